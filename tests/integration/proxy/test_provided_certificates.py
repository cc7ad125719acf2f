"""Certificates of users, as clients of the real Envoy get them."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lapwing.system.x509 import KeyPair, create_authority, create_server
from tests.deployed import until
from tests.installation import Installation, envoys, installation
from tests.integration.proxy.test_acme import APP, served

STACK = """\
stack: shop
services:
  api: {build: ., command: python app.py, route: /, rollout: {analysis: false}}
environments:
  live:
    domain: app.example.com
    redirects: {www.example.com: app.example.com}
    tls: {certificate: tls.pem, key: TLS_KEY}
"""
AUTHORITY = create_authority("Test", ["example.com"], 900)


@pytest.fixture
def where(tmp_path: Path) -> Iterator[Installation]:
    with installation(tmp_path / "i") as made:
        yield made
        made.call("down", "-e", "live")


def write(where: Installation, pair: KeyPair) -> None:
    chain = (pair.certificate_pem + AUTHORITY.certificate_pem).decode()
    where.write({"lapwing.yaml": STACK, "app.py": APP, "requirements.txt": "", "tls.pem": chain})


def set_key(where: Installation, pair: KeyPair) -> None:
    subprocess.run(
        [*where.command, "secret", "set", "TLS_KEY", "-e", "live"],
        cwd=where.folder, env=where.environ, input=pair.key_pem, check=True, capture_output=True,
    )  # fmt: skip


def serial(where: Installation, host: str) -> int:
    return served(where, host).serial_number


def test_certificate_is_checked_served_and_replaced(where: Installation) -> None:
    first = create_server("shop", 300, ["*.example.com"], [], AUTHORITY)
    narrow = create_server("shop", 300, ["app.example.com"], [], AUTHORITY)
    last = create_server("shop", 10, ["app.example.com", "www.example.com"], [], AUTHORITY)
    write(where, first)
    error = where.run("deploy", "-e", "live", status=1).stderr
    assert "Secret TLS_KEY of `tls` is not set" in error
    set_key(where, narrow)
    error = where.run("deploy", "-e", "live", status=2).stderr
    assert "tls.pem cannot be used: its key belongs to another certificate" in error
    write(where, narrow)
    error = where.run("deploy", "-e", "live", status=2).stderr
    assert "it is not for www.example.com, but for app.example.com" in error
    write(where, first)
    set_key(where, first)
    where.run("deploy", "-e", "live")
    for host in ("app.example.com", "www.example.com"):
        until(lambda h=host: serial(where, h) == first.certificate.serial_number, "a new Envoy")
    assert served(where, "localhost").issuer != AUTHORITY.certificate.subject
    assert where.json("status", "-e", "live")["problem"] is None
    write(where, last)
    set_key(where, last)
    where.run("deploy", "-e", "live")
    problem = where.json("status", "-e", "live", status=1)["problem"]
    assert problem.startswith("The certificate of shop/live is valid until")
    until(
        lambda: serial(where, "app.example.com") == last.certificate.serial_number,
        "the new certificate",
    )
    where.run("agent", "stop")
    where.run("agent", "start")
    assert serial(where, "app.example.com") == last.certificate.serial_number
    line = last.key_pem.splitlines()[1]
    files = [p for p in where.home.rglob("*") if p.is_file() and line in p.read_bytes()]
    assert [(p.name, p.stat().st_mode & 0o777) for p in files] == [("shop.live.pem", 0o600)]
    write(where, first)
    set_key(where, first)
    where.run("deploy", "-e", "live")
    assert where.json("status", "-e", "live")["problem"] is None


@pytest.mark.parametrize("damage", [lambda f: f.write_text("x"), Path.unlink])
def test_damaged_file_is_written_again(where: Installation, damage: Callable[[Path], None]) -> None:
    """Envoy, which reads the file only when it starts, would accept no connection with TLS."""
    pair = create_server("shop", 300, ["*.example.com"], [], AUTHORITY)
    write(where, pair)
    set_key(where, pair)
    where.run("deploy", "-e", "live")
    damage(where.home / "certificates" / "provided" / "shop.live.pem")
    for pid in envoys(where.home):
        os.kill(pid, signal.SIGKILL)

    def is_served() -> bool:
        try:
            return serial(where, "app.example.com") == pair.certificate.serial_number
        except OSError:
            return False

    until(is_served, "the certificate")


def test_file_with_a_private_key_is_refused(where: Installation) -> None:
    """Or the key would be in the history of the desired state."""
    pair = create_server("shop", 300, ["*.example.com"], [], AUTHORITY)
    write(where, pair)
    set_key(where, pair)
    where.run("deploy", "-e", "live")
    where.write({"tls.pem": (pair.key_pem + pair.certificate_pem).decode()})
    expected = "tls.pem, the `certificate` of `tls`, contains a private key"
    assert expected in where.run("check", "-e", "live").stderr
    assert expected in where.run("deploy", "-e", "live", status=2).stderr
    log = ["git", "-C", str(where.home / "desired.git"), "log", "--all", "-p"]
    history = subprocess.run(log, check=True, capture_output=True).stdout
    assert pair.certificate_pem.splitlines()[1] in history
    assert pair.key_pem.splitlines()[1] not in history


def test_authority_file_with_a_private_key_is_refused(where: Installation) -> None:
    directory = '{email: ops@example.com, directory: "https://localhost/dir", ca: tls.pem}'
    stack = STACK.replace("{certificate: tls.pem, key: TLS_KEY}", f"{{acme: {directory}}}")
    where.write({"lapwing.yaml": stack, "app.py": APP, "requirements.txt": ""})
    where.write({"tls.pem": (AUTHORITY.key_pem + AUTHORITY.certificate_pem).decode()})
    error = where.run("deploy", "-e", "live", status=2).stderr
    assert "tls.pem, the `ca` of `tls`, contains a private key" in error
