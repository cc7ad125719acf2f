"""SSL_CERT_FILE adds an authority to those of the system, for Python and for git."""

from __future__ import annotations

import os
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lapwing.errors import LapwingError, UsageError
from lapwing.system.git import Git
from lapwing.system.trust import system_bundle, tls_context
from tests import https_files
from tests.integration.registry.test_transport import certificate


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    return certificate(tmp_path)[0]


@pytest.fixture
def remote(tmp_path: Path, authority: Path) -> Iterator[str]:
    """A git repository behind HTTPS, by the protocol that needs only files."""
    repository = tmp_path / "served" / "r.git"
    subprocess.run(["git", "init", "-q", "--bare", repository], check=True)
    subprocess.run(["git", "-C", repository, "update-server-info"], check=True)
    with https_files.serve(repository.parent, authority) as port:
        yield f"https://127.0.0.1:{port}/r.git"


def test_git_trusts_authority_of_ssl_cert_file(
    tmp_path: Path, authority: Path, remote: str
) -> None:
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    with pytest.raises(LapwingError):
        Git(tmp_path, environ).text("ls-remote", remote)
    environ["SSL_CERT_FILE"] = str(authority)
    assert Git(tmp_path, environ).text("ls-remote", remote) == ""


def test_added_authority_does_not_replace_those_of_the_system(authority: Path) -> None:
    system = ssl.create_default_context(cafile=system_bundle())
    context = tls_context({"SSL_CERT_FILE": str(authority)})
    expected = system.cert_store_stats()["x509_ca"] + 1
    assert context.cert_store_stats()["x509_ca"] == expected > 1


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_unreadable_authority_is_an_error(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "authority.pem"
    if content:
        file.write_text(content)
    with pytest.raises(UsageError, match="Cannot read the certificates"):
        tls_context({"SSL_CERT_FILE": str(file)})
