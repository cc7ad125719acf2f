"""The generated workflow installs Helm and Trivy where they are missing, and only from the archive
with the pinned digest.

The step runs as it is generated, with real curl, sha256sum and tar; the host of the archive is a
server here, and the digest that of its archive. That of Helm has the installed Helm, that of Trivy
a script.
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
from urllib.parse import urlsplit

import pytest
import yaml

from lapwing.design import pipeline
from lapwing.design.programs import HELM, TRIVY, RunnerProgram
from lapwing.design.workflow import workflow
from tests import https_files
from tests.integration.registry.test_transport import certificate
from tests.needs import require

PLAIN = pipeline.Pipeline("gitea", "lapwing-deploy==1", False, None, None, ("main",), ())
TOOLS = ("bash", "cat", "curl", "gzip", "mkdir", "sed", "sha256sum", "tar", "uname")


@pytest.fixture
def program(request: pytest.FixtureRequest) -> RunnerProgram:
    """The program that is installed."""
    return getattr(request, "param", HELM)


@pytest.fixture
def archive(tmp_path: Path, program: RunnerProgram) -> Path:
    """The archive of a program as its host has it, for this machine."""
    machine = {"x86_64": program.amd64, "aarch64": program.arm64}[os.uname().machine]
    folder = tmp_path / "served" / urlsplit(program.place).path.lstrip("/")
    folder.mkdir(parents=True)
    path = folder / program.archive.replace("$machine", machine)
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        if program is HELM:
            tar.add(require("helm"), f"linux-{machine}/helm")
        else:
            (tmp_path / "trivy").write_text("#!/bin/sh\necho Version: 0.72.0\n")
            (tmp_path / "trivy").chmod(0o755)
            tar.add(tmp_path / "trivy", "trivy")
    return path


@pytest.fixture
def home(tmp_path: Path, program: RunnerProgram, archive: Path) -> Iterator[Path]:
    """A home whose curl finds the host of the archive here, with a certificate that it trusts."""
    host = urlsplit(program.place).netloc
    authority, _ = certificate(tmp_path, host)
    (tmp_path / "home").mkdir()
    with https_files.serve(tmp_path / "served", authority) as port:
        (tmp_path / "home/.curlrc").write_text(
            f'connect-to = "{host}:443:127.0.0.1:{port}"\ncacert = "{authority}"\n'
        )
        yield tmp_path / "home"


def run_step(
    home: Path, digest: str, *tools: str, program: RunnerProgram = HELM
) -> subprocess.CompletedProcess[str]:
    """Run the generated step with a digest in place of the pinned ones, and only some programs."""
    ship = pipeline.ShipJob("production", "ssh", scans=True)
    text = workflow(replace(PLAIN, has_chart=True, ship=ship))
    [script] = [
        step["run"]
        for job in yaml.safe_load(text)["jobs"].values()
        for step in job["steps"]
        if step.get("name") == program.title
    ]
    for pinned in program.sums.values():
        script = script.replace(pinned, digest)
    found = home / "bin"
    found.mkdir(exist_ok=True)
    for tool in (*TOOLS, *tools):
        (found / tool).symlink_to(shutil.which(tool) or "")
    temporary = home / "temp"
    temporary.mkdir()
    environ = {
        "PATH": str(found),
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


@pytest.mark.parametrize("program", [TRIVY], indirect=True)
def test_missing_scanner_is_installed(home: Path, archive: Path) -> None:
    done = run_step(home, hashlib.sha256(archive.read_bytes()).hexdigest(), program=TRIVY)
    assert done.returncode == 0, done.stderr
    trivy = Path((home / "path").read_text().strip(), "trivy")
    shown = subprocess.run([trivy], capture_output=True, text=True, check=True)
    assert shown.stdout == "Version: 0.72.0\n"


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


def test_programs_that_no_job_needs_are_not_installed() -> None:
    text = workflow(replace(PLAIN, ship=pipeline.ShipJob("production", "ssh")))
    assert "Helm" not in text
    assert "Trivy" not in text
