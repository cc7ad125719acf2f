"""Lapwing is released by the workflow of this repository, in a repository on a real Gitea.

The job makes its virtual environment as everybody does, with `make setup`, so packages that are not
in pip's cache are downloaded.
"""

from __future__ import annotations

import email
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest

from lapwing import __version__
from tests.actions import Runner
from tests.gitea import Gitea
from tests.installation import GIT
from tests.integration.release.conftest import Project, outcomes

pytestmark = [pytest.mark.xdist_group("gitea"), pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[3]
TAG = f"v{__version__}"
WHEEL = f"lapwing_deploy-{__version__}-py3-none-any.whl"
SOURCE = f"lapwing_deploy-{__version__}.tar.gz"
LOCK = "requirements.txt"
CI = ".github/workflows/ci.yaml"


def pip_settings() -> dict[str, str]:
    """Settings of pip, and its cache: a job has another home. Nothing is compiled in advance, which
    is most of the work of an installation."""
    command = [sys.executable, "-m", "pip", "cache", "dir"]
    cache = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    given = {key: value for key, value in os.environ.items() if key.startswith(("PIP_", "SSL_"))}
    return {**given, "PIP_CACHE_DIR": cache, "PIP_NO_COMPILE": "1"}


@pytest.fixture
def project(tmp_path: Path, forge: Gitea, request: pytest.FixtureRequest) -> Project:
    """The files of this repository without the workflow for tests, which runs this one."""
    url = forge.repository(f"Lapwing-{request.node.name.split('_')[1]}")
    made = Project(tmp_path / "clone", url, LAPWING_FORGE_TOKEN=forge.token)
    command = ["git", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    for name in listed.decode().strip("\0").split("\0"):
        if name != CI and (ROOT / name).is_file():
            (made.folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, made.folder / name)
    made.commit("Begin")
    return made


def test_release_workflow_publishes_wheel_source_and_lock(
    forge: Gitea, project: Project, tmp_path: Path
) -> None:
    venv.create(tmp_path / "python", with_pip=False)
    environ = GIT | {"LANG": "C.UTF-8"} | pip_settings()
    runner = Runner(forge, tmp_path / "jobs", tmp_path / "python/bin", environ)
    page = project.git("remote", "get-url", "origin").removesuffix(".git")
    path = page.replace(forge.address, "/repos")
    runner.register(path, "ubuntu-latest")
    project.push()
    [job] = runner.run(1)
    assert (job.name, job.passed) == ("release", True), job.log
    assert runner.is_idle()

    head = project.git("rev-parse", "HEAD")
    published = forge.api("GET", f"{path}/releases/tags/{TAG}")
    assert not published["draft"]
    assert forge.api("GET", f"{path}/tags/{TAG}")["commit"]["sha"] == head
    files = {
        a["name"]: forge.client.get(a["browser_download_url"]).content for a in published["assets"]
    }
    sums = {f"{name}.sha256" for name in (WHEEL, SOURCE, LOCK)}
    assert set(files) == {WHEEL, SOURCE, LOCK, *sums, f"lapwing-{__version__}.cdx.json"}
    for name in (WHEEL, SOURCE, LOCK):
        digest = hashlib.sha256(files[name]).hexdigest()
        assert files[f"{name}.sha256"].decode() == f"{digest}  {name}\n"

    check_wheel(files[WHEEL], page, head)
    with tarfile.open(fileobj=io.BytesIO(files[SOURCE])) as archive:
        version = archive.extractfile(f"lapwing_deploy-{__version__}/src/lapwing/__init__.py")
        assert version is not None
        assert __version__ in version.read().decode()
    pinned = re.findall(r"^[\w.-]+==\S+", files[LOCK].decode(), re.M)
    assert len(pinned) > 20
    assert files[LOCK].decode().count("--hash=sha256:") >= len(pinned)

    # The job again, as after a lost connection: everything is there, nothing is uploaded again.
    project.folder = next((tmp_path / "jobs").iterdir()) / "work"
    found = outcomes(project.release())
    assert {found[n] for n in ("tag", "release", f"upload {WHEEL}", "publish")} == {"present"}
    kept = forge.api("GET", f"{path}/releases/tags/{TAG}")["assets"]
    assert [a["id"] for a in kept] == [a["id"] for a in published["assets"]]


def check_wheel(content: bytes, repository: str, commit: str) -> None:
    """Its metadata links to the repository and to the files of the commit."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        name = f"lapwing_deploy-{__version__}.dist-info/METADATA"
        about = email.message_from_bytes(archive.read(name))
    urls: dict[str, Any] = dict(line.split(", ") for line in about.get_all("Project-URL", []))
    assert urls["Source"] == repository
    assert urls["Changelog"] == f"{repository}/src/commit/{commit}/CHANGELOG.md"
    text = str(about.get_payload())
    assert f"{repository}/raw/commit/{commit}/docs/" in text


def test_dry_run_of_release_workflow_changes_nothing(
    forge: Gitea, tmp_path: Path, project: Project
) -> None:
    project.push()
    missing = project.release("--dry-run", status=1)
    assert missing["tag"] == TAG
    assert "No file matches 'dist/lapwing_deploy-*.whl'" in missing["error"]["message"]
    build = [sys.executable, "-m", "hatchling", "build", "-d", "dist"]
    subprocess.run(build, cwd=project.folder, check=True, capture_output=True)
    dry = project.release("--dry-run")
    assert dry["tag"] == TAG
    assert set(outcomes(dry).values()) == {"planned", "skipped"}
    assert {f"upload {name}" for name in (WHEEL, SOURCE, LOCK)} <= set(outcomes(dry))
    page = project.git("remote", "get-url", "origin").removesuffix(".git")
    path = page.replace(forge.address, "/repos")
    assert forge.api("GET", f"{path}/tags") == forge.api("GET", f"{path}/releases") == []
