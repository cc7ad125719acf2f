"""Projects with a history, and a real Gitea for those that are released there."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import gitea as giteas
from tests.deployed import until
from tests.faulty import Proxy, proxy
from tests.gitea import Gitea
from tests.installation import GIT
from tests.needs import require
from tests.registries import Server, docker_registry, oci_registry

LAPWING = Path(sys.executable).with_name("lapwing")
CHART = {
    "chart/Chart.yaml": "apiVersion: v2\nname: shop  # ours\nversion: 0.0.0\n",
    "chart/values.yaml": "greeting: hello\n",
    "chart/templates/config.yaml": (
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: shop}\n"
        "data: {greeting: {{ .Values.greeting | quote }}}\n"
    ),
}
FILE = "project: shop\nrelease: {chart: chart}\n"


class Project:
    """A git repository in `folder`. `environ` is what commands are called with."""

    def __init__(self, folder: Path, remote: str | None = None, **environ: str) -> None:
        self.folder = folder
        unwanted = ("LAPWING_", "GITHUB_", "GITEA_", "GIT_")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(unwanted)}
        self.environ = {
            **kept,
            **GIT,
            "LAPWING_HOME": str(folder.parent / "home"),
            "HOME": str(folder.parent),
            "NO_COLOR": "1",
            **environ,
        }
        folder.mkdir(parents=True)
        self.git("init", "-q", "-b", "main")
        if remote is not None:
            self.git("remote", "add", "origin", remote)

    def git(self, *arguments: str, status: int = 0) -> str:
        """Run git here; returns what it prints."""
        done = subprocess.run(
            ["git", *arguments], cwd=self.folder, env=self.environ, capture_output=True, check=False
        )
        assert done.returncode == status, done.stderr.decode()
        return done.stdout.decode().strip()

    def commit(self, message: str, **files: str) -> str:
        """Write files and commit them; returns the commit. A `__` in a name is a slash, and the
        rest is taken as it is."""
        for name, text in files.items():
            self.write(name.replace("__", "/"), text)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")

    def write(self, name: str, text: str) -> None:
        """Write a file."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def begin(self, file: str = FILE) -> None:
        """The first commit: a release file and a chart."""
        for name, text in {"lapwing-release.yaml": file, **CHART}.items():
            self.write(name, text)
        self.commit("Begin")

    def merge(self, branch: str, message: str | None = None, **files: str) -> None:
        """Make a commit on a branch and merge it, as `git merge` does."""
        self.git("checkout", "-q", "-b", branch)
        self.commit(f"Work on {branch}", **files)
        self.git("checkout", "-q", "main")
        self.git("merge", "-q", "--no-ff", *(["-m", message] if message else ["--no-edit"]), branch)

    @property
    def login(self) -> tuple[str, str]:
        """Arguments of git for a person who is logged in."""
        token = self.environ.get("LAPWING_FORGE_TOKEN") or self.environ.get("GITHUB_TOKEN")
        helper = f"!f() {{ echo username=x-access-token; echo password={token}; }}; f"
        return "-c", f"credential.helper={helper}"

    def push(self) -> None:
        """Push main as people do."""
        self.git(*self.login, "push", "-q", "origin", "main")

    def call(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run lapwing here, however it ends."""
        return subprocess.run(
            [LAPWING, *arguments],
            cwd=self.folder,
            env={**self.environ, **environ},
            capture_output=True,
            text=True,
            check=False,
            timeout=250,
        )

    def release_killed(self, reached: Callable[[], bool], what: str, **environ: str) -> None:
        """Begin to release, and kill the command and its children (SIGKILL) when `reached`."""
        process = subprocess.Popen(
            [LAPWING, "release"],
            cwd=self.folder,
            env={**self.environ, **environ},
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until(reached, what)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def release(self, *arguments: str, status: int = 0, **environ: str) -> Any:
        """Release, and read the answer for programs."""
        done = self.call("release", *arguments, "--output", "json", **environ)
        assert done.returncode == status, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return json.loads(done.stdout)


def outcomes(answer: Any) -> dict[str, str]:
    """The outcome of each step."""
    return {step["name"]: step["outcome"] for step in answer["steps"]}


def project_of(folder: Path, file: str) -> Project:
    bare = folder / "origin.git"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(bare)], check=True)
    made = Project(folder / "shop", str(bare))
    made.begin(file)
    made.push()
    return made


def referrers(project: Project, reference: str) -> list[str]:
    """The digests, or the tags, of what refers to an image or a chart."""
    shown = project.call("image", "inspect", reference, "--output", "json")
    assert shown.returncode == 0, shown.stderr
    return [found.get("digest") or found["tag"] for found in json.loads(shown.stdout)["referrers"]]


def verified(project: Project, *arguments: str) -> dict[str, bool]:
    """The checks of `lapwing image verify`, and whether each passed."""
    done = project.call("image", "verify", *arguments, "--output", "json")
    return {check["check"]: check["ok"] for check in json.loads(done.stdout)}


@pytest.fixture(params=["registry", "oci-registry"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """A registry without the referrers API, and one with it."""
    started = docker_registry if request.param == "registry" else oci_registry
    with started(require(request.param), tmp_path / "registry") as served:
        yield served


@pytest.fixture(scope="module")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gitea]:
    """A Gitea for all tests of a module."""
    program = require("gitea")
    with giteas.gitea(program, tmp_path_factory.mktemp("gitea")) as served:
        yield served


@pytest.fixture
def project(tmp_path: Path, forge: Gitea, request: pytest.FixtureRequest) -> Project:
    """A project with a repository of its own on the Gitea."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")
    address = forge.repository(name)
    made = Project(tmp_path / "shop", address, LAPWING_FORGE_TOKEN=forge.token)
    made.begin()
    return made


@pytest.fixture
def bad(project: Project, forge: Gitea) -> Iterator[Proxy]:
    """The same repository, reached through a faulty proxy."""
    with proxy(forge.host) as between:
        address = project.git("remote", "get-url", "origin").replace(forge.host, between.host)
        project.git("remote", "set-url", "origin", address)
        project.push()
        yield between
