"""The generated workflow installs Helm where it is missing, and only the archive of its digest.

The step runs as it is generated, with real curl, sha256sum and tar; get.helm.sh is a server here,
and the digest that of its archive of the installed Helm.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from lapwing.design import pipeline
from lapwing.design.workflow import workflow
from tests import https_files
from tests.integration.registry.test_transport import certificate
from tests.needs import require

PLAIN = pipeline.Pipeline("gitea", "lapwing-deploy==1", False, None, None, ("main",), ())
TOOLS = ("bash", "cat", "curl", "gzip", "mkdir", "sed", "sha256sum", "tar", "uname")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """The archive as get.helm.sh has it, for this machine."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    path = tmp_path / "served" / f"helm-v{pipeline.HELM}-linux-{machine}.tar.gz"
    path.parent.mkdir()
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        tar.add(require("helm"), f"linux-{machine}/helm")
    return path


@pytest.fixture
def home(tmp_path: Path, archive: Path) -> Iterator[Path]:
    """A home whose curl finds get.helm.sh here, with a certificate that it trusts."""
    authority, _ = certificate(tmp_path, "get.helm.sh")
    (tmp_path / "home").mkdir()
    with https_files.serve(archive.parent, authority) as port:
        (tmp_path / "home/.curlrc").write_text(
            f'connect-to = "get.helm.sh:443:127.0.0.1:{port}"\ncacert = "{authority}"\n'
        )
        yield tmp_path / "home"


def run_step(home: Path, digest: str, *tools: str) -> subprocess.CompletedProcess[str]:
    """Run the generated step with a digest in place of Helm's, and only some programs."""
    text = workflow(replace(PLAIN, has_chart=True))
    [script] = [
        step["run"]
        for step in yaml.safe_load(text)["jobs"]["release"]["steps"]
        if "Helm" in step.get("name", "")
    ]
    for pinned in pipeline.HELM_SUMS.values():
        script = script.replace(pinned, digest)
    programs = home / "bin"
    programs.mkdir(exist_ok=True)
    for tool in (*TOOLS, *tools):
        (programs / tool).symlink_to(shutil.which(tool) or "")
    temporary = home / "temp"
    temporary.mkdir()
    environ = {
        "PATH": str(programs),
        "HOME": str(home),
        "RUNNER_TEMP": str(temporary),
        "GITHUB_PATH": str(home / "path"),
    }
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)


def test_missing_helm_is_installed(home: Path, archive: Path) -> None:
    done = run_step(home, hashlib.sha256(archive.read_bytes()).hexdigest())
    assert done.returncode == 0, done.stderr
    helm = Path((home / "path").read_text().strip(), "helm")
    shown = subprocess.run([helm, "version", "--short"], capture_output=True, text=True, check=True)
    assert shown.stdout.startswith("v3.")


def test_other_archive_is_refused(home: Path, archive: Path) -> None:
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    with archive.open("ab") as file:
        file.write(b"x")
    done = run_step(home, digest)
    assert done.returncode != 0
    assert "FAILED" in done.stdout
    assert not (home / "path").exists()
    assert not (home / "temp/helm").exists()


def test_installed_helm_is_kept(home: Path) -> None:
    done = run_step(home, "0" * 64, "helm")
    assert done.returncode == 0, done.stderr
    assert not any((home / "temp").iterdir())


def test_workflow_without_chart_installs_no_helm() -> None:
    assert "Helm" not in workflow(PLAIN)
