"""From a push to a published release, by the generated workflow alone, on a real Gitea.

The stack is `stacks/fleetdm` as it is shipped, in a repository of an organisation with capitals in
its name; only Fleet's image is replaced, by one of a second registry here, since the real one
cannot be pulled in a test. The jobs have the token that Gitea gives them.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import time
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from lapwing.system.registry_variable import registry_variable
from tests import gitea as giteas
from tests.actions import Runner
from tests.deployed import until
from tests.gitea import Gitea
from tests.installation import GIT
from tests.integration.release.conftest import Project
from tests.needs import require
from tests.registries import Server, docker_registry
from tests.signing import new_key, signing

pytestmark = [pytest.mark.xdist_group("gitea")]

ROOT = Path(__file__).parents[3]
FLEET = "fleetdm/fleet:v4.93.0"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """The Python that `setup-python` stands for. It has the dependencies of this checkout, without
    those of the extra `machine` and without the checkout itself."""
    folder = tmp_path / "python"
    venv.create(folder, with_pip=True)
    core = tmp_path / "core"
    core.mkdir()
    for found in Path(sysconfig.get_path("purelib")).iterdir():
        if not found.name.startswith(("envoy", "caddy", "lapwing", "_lapwing", "__editable__")):
            (core / found.name).symlink_to(found)
    packages = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
    Path(packages, "dependencies.pth").write_text(f"{core}\n")
    (folder / "bin/uv").symlink_to(Path(sysconfig.get_path("scripts"), "uv"))
    return folder / "bin"


@pytest.fixture
def registries(tmp_path: Path) -> Iterator[tuple[Server, Server]]:
    """The upstream's registry and the team's."""
    program = require("registry")
    with (
        docker_registry(program, tmp_path / "upstream") as upstream,
        docker_registry(program, tmp_path / "team") as team,
    ):
        yield upstream, team


@dataclass
class Team:
    """A repository with the stack, and the runner of its jobs."""

    project: Project
    runner: Runner
    owner: str
    name: str = "Fleet-Stack"

    @property
    def path(self) -> str:
        """The repository in the API."""
        return f"/repos/{self.owner}/{self.name}"

    def pin(self, wheel: Path) -> None:
        """Write the requirements file that the workflow installs from."""
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        pinned = f"lapwing-deploy @ {wheel.as_uri()} --hash=sha256:{digest}\n"
        self.project.write("ci/lapwing.txt", pinned)

    def edit(self, message: str, before: str, after: str) -> None:
        """Replace a text in the stack file, and commit it."""
        text = (self.project.folder / "lapwing.yaml").read_text()
        assert text.count(before) == 1
        self.project.commit(message, **{"lapwing.yaml": text.replace(before, after)})

    def write_workflow(self) -> None:
        """Write the workflow for the stack file as it is."""
        made = self.project.call(
            "ci", "init", "--forge", "gitea", "--install-from", "ci/lapwing.txt"
        )
        assert made.returncode == 0, made.stderr

    def create_secret(self, forge: Gitea, name: str, value: str) -> None:
        """Create a secret of the repository's jobs."""
        forge.api("PUT", f"{self.path}/actions/secrets/{name}", json={"data": value})

    def push(self) -> None:
        """Push as a person who is not CI."""
        self.project.git(*self.project.login, "push", "-q", "origin", "main")


@pytest.fixture
def team(
    forge: Gitea, wheel: Path, python: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> Team:
    owner = f"Acme-{request.node.name.split('_')[1].title()}"
    forge.api("POST", "/orgs", json={"username": owner})
    about = {"name": "Fleet-Stack", "default_branch": "main"}
    forge.api("POST", f"/orgs/{owner}/repos", json=about)
    project = Project(
        tmp_path / "clone",
        f"{forge.address}/{owner}/Fleet-Stack.git",
        LAPWING_FORGE_TOKEN=forge.token,
    )
    shutil.copytree(ROOT / "stacks/fleetdm", project.folder, dirs_exist_ok=True)
    runner = Runner(forge, tmp_path / "jobs", python, GIT | {"LANG": "C.UTF-8"})
    team = Team(project, runner, owner)
    team.pin(wheel)
    team.write_workflow()
    runner.register(team.path, "ubuntu-latest")
    return team


def test_push_is_released_by_generated_workflow(
    forge: Gitea, team: Team, registries: tuple[Server, Server], tmp_path: Path
) -> None:
    upstream, registry = registries
    private, public = new_key(tmp_path)
    digest = upstream.push_image("fleetdm/fleet", "v4.93.0", [os.urandom(1 << 16)])["digest"]
    team.edit("Mirror a made-up image", f"&image {FLEET}", f"&image {upstream.host}/{FLEET}")
    lines = f"registry: {registry.host}/acme\n{signing(public)}"
    team.edit("Use a registry, and sign", "\nservices:", f"\n{lines}services:")
    team.write_workflow()
    team.project.commit("Update the workflow")
    team.create_secret(forge, "LAPWING_SIGNING_KEY", private.read_text())
    team.push()
    check, release = team.runner.run(2)
    assert (check.name, check.passed) == ("check", True), check.log
    assert (release.name, release.passed) == ("release", True), release.log
    assert team.runner.is_idle()

    published = forge.api("GET", f"{team.path}/releases/tags/v0.0.1")
    assert not published["draft"]
    assert f"{upstream.host}/{FLEET}@{digest}" in published["body"]
    assets = {a["name"]: a["browser_download_url"] for a in published["assets"]}
    package = forge.client.get(assets["fleetdm-stack-0.0.1.tgz"]).content
    with tarfile.open(fileobj=io.BytesIO(package)) as archive:
        chart = yaml.safe_load(archive.extractfile("fleetdm-stack/Chart.yaml").read())
    assert (chart["version"], chart["appVersion"]) == ("0.0.1", "4.93.0")
    for tag in ("4.93.0", "0.0.1", "latest"):
        assert registry.whole("acme/fleet", tag) == digest
    for name in ("charts/fleetdm-stack:0.0.1", "fleet:4.93.0"):
        checked = team.project.call("image", "verify", f"{registry.host}/acme/{name}")
        assert checked.returncode == 0, checked.stdout + checked.stderr

    # A change of documentation starts no job; a merge of a feature is a major version.
    head = team.project.commit("Explain", **{"README.md": "words"})
    team.push()
    # Gitea processes a push in the background, and then compares it with what the branch is.
    branch = f"{team.path}/branches/main"
    until(lambda: forge.api("GET", branch)["commit"]["id"] == head, "the push")
    time.sleep(2)
    assert team.runner.is_idle()
    team.project.merge("feature/more", compose="x")
    team.push()
    jobs = team.runner.run(2)
    assert [(job.name, job.passed) for job in jobs] == [("check", True), ("release", True)]
    assert forge.api("GET", f"{team.path}/releases/latest")["tag_name"] == "v1.0.0"
    assert registry.whole("acme/fleet", "1.0.0") == digest


def test_mirror_to_forge_registry_needs_secret(
    forge: Gitea, team: Team, registries: tuple[Server, Server]
) -> None:
    """The job's token cannot push images to Gitea: nothing is tagged before the secret exists."""
    upstream, _ = registries
    upstream.push_image("fleetdm/fleet", "v4.93.0", [os.urandom(1 << 16)])
    team.edit("Mirror a made-up image", f"&image {FLEET}", f"&image {upstream.host}/{FLEET}")
    team.push()
    check, release = team.runner.run(2)
    assert check.passed, check.log
    assert not release.passed
    assert "LAPWING_REGISTRY_TOKEN" in release.log
    assert forge.api("GET", f"{team.path}/tags") == []

    token = forge.new_token(f"packages-{os.getpid()}", "write:package")
    team.create_secret(forge, "LAPWING_REGISTRY_TOKEN", token)
    team.project.commit("Again", again="x")
    team.push()
    jobs = team.runner.run(2)
    assert all(job.passed for job in jobs), jobs[-1].log
    packages = forge.api("GET", f"/packages/{team.owner}?type=container")
    versions = {p["version"] for p in packages if p["name"] == "fleet"}
    assert {"4.93.0", "0.0.1", "latest"} <= versions


CLUSTER = """\
stack: shop
registry: {registry}
services:
  web: {{build: {{path: ./web, test: test -f index.html}}, static: ., route: /}}
environments:
  production:
    target: kubernetes
    domain: shop.example.com
    cloud: {{provider: gcp, region: europe-west1}}
    repository: {repository}
"""


def test_push_is_shipped_to_the_desired_state_of_a_cluster(
    forge: Gitea, wheel: Path, python: Path, tmp_path: Path
) -> None:
    """The image is in the forge's registry, and its digest in the repository of Argo CD."""
    owner = "Acme-Cluster"
    forge.api("POST", "/orgs", json={"username": owner})
    for name in ("Shop", "Desired"):
        about = {"name": name, "default_branch": "main"}
        forge.api("POST", f"/orgs/{owner}/repos", json=about)
    address = f"{forge.address}/{owner}"
    project = Project(tmp_path / "clone", f"{address}/Shop.git", LAPWING_FORGE_TOKEN=forge.token)
    index = {k: v for k, v in os.environ.items() if k.startswith(("SSL_", "UV_"))}
    runner = Runner(forge, tmp_path / "jobs", python, GIT | index)
    team = Team(project, runner, owner, "Shop")
    text = CLUSTER.format(
        registry=f"{forge.host}/{owner.lower()}", repository=f"{address}/Desired.git"
    )
    project.write("lapwing.yaml", text)
    project.write("web/index.html", "<p>shop</p>")
    team.pin(wheel)
    team.write_workflow()
    team.runner.register(team.path, "ubuntu-latest")
    project.commit("Begin")
    team.push()
    check, ship, release = team.runner.run(3)
    assert (check.name, check.passed) == ("check", True), check.log
    assert (ship.name, ship.passed) == ("ship", False)
    assert (release.name, release.skipped) == ("release", True)
    variable = registry_variable(forge.host)
    needed = ("LAPWING_DESIRED_TOKEN", f"{variable}_USER", f"{variable}_TOKEN")
    assert f"Missing in the settings of the repository: {' '.join(needed)}." in ship.log

    packages = forge.new_token("ship-packages", "write:package")
    for name, value in zip(needed, (forge.token, giteas.OWNER, packages), strict=True):
        team.create_secret(forge, name, value)
    team.create_secret(forge, "LAPWING_REGISTRY_TOKEN", packages)
    commit = project.commit("Again", again="x")
    team.push()
    jobs = team.runner.run(3)
    assert [job.name for job in jobs] == ["check", "ship", "release"]
    assert all(job.passed for job in jobs), "".join(job.log for job in jobs if not job.passed)
    project.git(*project.login, "fetch", "-q", f"{address}/Desired.git", "main")
    assert project.git("log", "--format=%H", "FETCH_HEAD").count("\n") == 0
    manifests = project.git("show", "FETCH_HEAD:shop/production/manifests/workloads.yaml")
    image = f"{forge.host}/{owner.lower()}/web"
    [digest] = set(re.findall(rf"{re.escape(image)}@(sha256:\w+)", manifests))
    for tag in (commit, "latest", "0.0.1"):
        shown = project.call("image", "inspect", f"{image}:{tag}", "--output", "json")
        assert json.loads(shown.stdout)["digest"] == digest, shown.stderr
    assert packages not in "".join(job.log for job in jobs)


UNIX = ("fcntl", "grp", "pwd", "pty", "resource", "termios", "tty")
ATTRIBUTES = {
    "os": (
        "O_CLOEXEC", "O_NONBLOCK", "chown", "copy_file_range", "fchmod", "fork", "getegid",
        "geteuid", "getgid", "killpg", "pidfd_open", "posix_spawn", "pwrite", "setsid", "sysconf",
    ),
    "select": ("epoll", "poll"),
    "signal": ("SIGHUP", "SIGKILL", "SIGQUIT", "SIGUSR1", "SIGUSR2", "pidfd_send_signal"),
}  # fmt: skip
WITHOUT_UNIX = f"""
import os, select, signal, sys


class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in {UNIX}:
            raise ModuleNotFoundError(name, name=name)


sys.meta_path.insert(0, Missing())
for name in {UNIX}:
    sys.modules.pop(name, None)
for module, names in {ATTRIBUTES}.items():
    for name in names:
        if hasattr(sys.modules[module], name):
            delattr(sys.modules[module], name)
"""


@pytest.mark.parametrize("system", ["linux", "without-unix"])
def test_core_needs_no_machine_extra(
    system: str, wheel: Path, python: Path, tmp_path: Path
) -> None:
    """`pip install lapwing-deploy` renders, estimates, copies and releases; what runs stacks names
    the extra. The same without the modules and functions that Windows lacks."""
    install = [python / "pip", "install", "-q", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    shutil.copytree(ROOT / "stacks/fleetdm", tmp_path / "fleet")
    project = Project(tmp_path / "tool", str(tmp_path / "remote.git"))
    project.git("init", "-q", "--bare", str(tmp_path / "remote.git"))
    project.begin("project: shop\nrelease: {chart: chart, forge: none}\n")
    project.push()
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **GIT}
    if system == "without-unix":
        (tmp_path / "windows").mkdir()
        (tmp_path / "windows/sitecustomize.py").write_text(WITHOUT_UNIX)
        environ["PYTHONPATH"] = str(tmp_path / "windows")

    def call(*arguments: str, folder: str = "fleet") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [python / "lapwing", "-C", folder, *arguments],
            cwd=tmp_path, env=environ, capture_output=True, text=True, check=False,
        )  # fmt: skip

    for arguments in (
        ("check",), ("cost", "-e", "production"), ("render", "-e", "kind", "-o", "manifests"),
        ("chart", "-e", "kind", "-o", "chart"), ("release", "--help"), ("image", "copy", "--help"),
        ("ship", "--help"),
    ):  # fmt: skip
        done = call(*arguments)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
    done = call("release", folder="tool")
    assert done.returncode == 0, done.stdout + done.stderr
    assert project.git("ls-remote", "--tags", "origin").endswith("refs/tags/v0.0.1^{}")
    with docker_registry(require("registry"), tmp_path / "registry") as registry:
        registry.push_image("acme/shop", "1.0.0", [b"layer"])
        source = f"{registry.host}/acme/shop:1.0.0"
        for arguments in (("copy", source, f"{registry.host}/acme/copy"), ("tag", source, "1")):
            done = call("image", *arguments)
            assert done.returncode == 0, done.stdout + done.stderr
    agent = call("agent", "start")
    assert agent.returncode == 1
    missing = "Linux or macOS" if system == "without-unix" else "'lapwing-deploy[machine]'"
    assert missing in agent.stderr
