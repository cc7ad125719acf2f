"""`lapwing ship` against real git repositories: others commit too, hooks refuse, tests fail."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.installation import LAPWING, Installation
from tests.needs import require
from tests.registries import docker_registry

STACK = """\
stack: shop
services:
  web: {build: {path: ./web%s}, static: ., route: /}
environments:
  one: {}
  two: {}
  three: {}
"""
FASTER = """\
#!/bin/sh
test -e raced && exit 0
touch raced
unset GIT_QUARANTINE_PATH GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES
tree=$(git mktree </dev/null)
git update-ref refs/heads/main $(git commit-tree -m other $tree)
"""


@pytest.fixture
def place(tmp_path: Path) -> Installation:
    """A stack of one page, in a git repository."""
    made = Installation(tmp_path / "ci")
    made.write({"lapwing.yaml": STACK % "", "web/index.html": "<h1>shop</h1>"})
    return made


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    """An empty bare repository for the desired state."""
    folder = tmp_path / "desired.git"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", folder], check=True)
    return folder


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "--git-dir", folder, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def hook(remote: Path, script: str) -> None:
    path = remote / "hooks" / "pre-receive"
    path.write_text(script)
    path.chmod(0o755)


def test_ship_commits_once_and_starts_nothing(place: Installation) -> None:
    """To this machine's own desired state, if no other is named."""
    first = place.json("ship", "--scan", "off")
    assert first["commit"]
    assert [s["outcome"] for s in first["steps"]] == ["done", "skipped", "skipped", "done"]
    again = place.json("ship", "--scan", "off")
    assert again["commit"] is None
    assert again["services"]["web"]["reused"]
    assert [s["outcome"] for s in again["steps"]][-1] == "unchanged"
    assert git(place.home / "desired.git", "rev-list", "--count", "main") == "1"
    assert not (place.home / "agent").exists()


def test_ship_of_another_stack_of_the_same_name_is_refused(place: Installation) -> None:
    place.run("ship", "--scan", "off")
    other = place.beside("other")
    other.write({"lapwing.yaml": STACK % "", "web/index.html": "<h1>another</h1>"})
    for verb in (("ship", "--scan", "off"), ("deploy",)):
        refused = other.run(*verb, status=1).stderr
        assert f"deployed from {place.folder}" in refused
        assert str(other.folder) in refused
    assert len(place.json("history")) == 1


def test_check_stops_before_commit(place: Installation) -> None:
    done = place.json("ship", "--scan", "off", "--check")
    assert done["services"]["web"]["release"].startswith("web-")
    assert done["commit"] is None
    assert [s["outcome"] for s in done["steps"]] == ["done", "skipped", "skipped", "skipped"]
    assert not (place.home / "desired.git").exists()


def test_ship_pushes_only_changes_to_remote(place: Installation, remote: Path) -> None:
    options = ("ship", "-e", "one", "--scan", "off", "--desired", str(remote))
    first = place.json(*options)
    assert git(remote, "rev-parse", "main") == first["commit"]
    assert place.json(*options)["commit"] is None
    place.write({"web/index.html": "<h1>more</h1>"})
    second = place.json(*options)
    assert git(remote, "log", "--format=%H", "main").split() == [second["commit"], first["commit"]]
    document = json.loads(git(remote, "show", "main:shop/one/document.json"))
    assert document["services"]["web"]["release"] == second["services"]["web"]["release"]


def test_ship_retries_after_conflict(place: Installation, remote: Path) -> None:
    """Another commit arrives while ours is being pushed: the hook makes it."""
    hook(remote, FASTER)
    done = place.run("ship", "-e", "one", "--scan", "off", "--desired", str(remote))
    assert "another commit came first" in done.stderr
    assert git(remote, "log", "--format=%s", "main").splitlines()[-1] == "other"
    assert git(remote, "log", "--format=%H", "-1", "main") == done.stdout.strip()


def test_concurrent_ships_all_commit(place: Installation, remote: Path, tmp_path: Path) -> None:
    """Each pushes to an environment of its own; the branch is one line with all of them."""
    running = []
    for name in ("one", "two", "three"):
        other = place.beside(name)
        command = ["ship", "-e", name, "--scan", "off", "--desired", str(remote)]
        running.append(
            subprocess.Popen(
                [LAPWING, *command],
                cwd=place.folder,
                env=other.environ,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    said = [process.communicate(timeout=240)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], said
    assert git(remote, "rev-list", "--count", "main") == "3"
    assert git(remote, "rev-list", "--merges", "main") == ""
    names = git(remote, "ls-tree", "-r", "--name-only", "main").split()
    assert names == [f"shop/{name}/document.json" for name in ("one", "three", "two")]


def test_protected_branch(place: Installation, remote: Path) -> None:
    """And once it takes the commit, the commit is made: one that was refused is not there."""
    hook(remote, "#!/bin/sh\necho main is protected >&2\nexit 1\n")
    options = ("ship", "-e", "one", "--scan", "off", "--desired", str(remote))
    done = place.run(*options, status=1)
    assert f"The push to {remote} was rejected." in done.stderr
    assert "main is protected" in done.stderr
    assert git(remote, "for-each-ref") == ""
    (remote / "hooks" / "pre-receive").unlink()
    assert place.json(*options)["commit"] == git(remote, "rev-parse", "main")


def test_failing_test_stops_ship(place: Installation, remote: Path) -> None:
    """The test runs in the source; what it prints is in the error."""
    script = "#!/bin/sh\ntest -f index.html && echo the till is empty && exit 3\n"
    place.write({"lapwing.yaml": STACK % ", test: sh check.sh", "web/check.sh": script})
    options = ("ship", "-e", "one", "--scan", "off", "--desired", str(remote))
    done = place.run(*options, status=1)
    assert "The test of web failed (exit status 3)" in done.stderr
    assert "the till is empty" in done.stderr
    assert git(remote, "for-each-ref") == ""
    place.write({"web/check.sh": "exit 0\n"})
    assert "test   done: web" in place.run(*options).stderr


def test_missing_scanner_stops_ship(place: Installation, remote: Path) -> None:
    git_only = place.home.parent / "bin"
    git_only.mkdir()
    (git_only / "git").symlink_to(subprocess.check_output(["which", "git"], text=True).strip())
    place.environ["PATH"] = str(git_only)
    done = place.run("ship", "-e", "one", "--desired", str(remote), status=1)
    assert "No vulnerability scanner (trivy, grype) is on the PATH." in done.stderr
    assert git(remote, "for-each-ref") == ""


def test_releases_are_pushed_to_registry(place: Installation, tmp_path: Path) -> None:
    """The archive has the page; made again elsewhere it is the same, byte for byte."""
    with docker_registry(require("registry"), tmp_path / "registry") as server:
        options = ("ship", "--scan", "off", "--registry", f"{server.host}/team")
        done = place.json(*options)
        revision = done["services"]["web"]["revision"]
        digest = server.whole("team/shop/web", revision)
        assert server.whole("team/shop/web", "latest") == digest
        found = server.manifest("team/shop/web", revision)
        assert found is not None
        data = server.blob("team/shop/web", found["layers"][0]["digest"])
        assert data is not None
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            page = archive.extractfile("app/index.html")
            assert page is not None
            assert page.read() == b"<h1>shop</h1>"
        place.environ["LAPWING_HOME"] = str(tmp_path / "elsewhere")
        assert not place.json(*options)["services"]["web"]["reused"]
        assert server.whole("team/shop/web", "latest") == digest


def test_password_in_url_is_refused_and_hidden(place: Installation) -> None:
    address = "https://ci:hunter2@127.0.0.1:1/desired.git"
    done = place.run("ship", "-e", "one", "--scan", "off", "--desired", address, status=2)
    assert "has a password in it" in done.stderr
    assert "hunter2" not in done.stdout + done.stderr


def test_uncommitted_changes_are_not_shipped(place: Installation, remote: Path) -> None:
    (place.folder / "web" / "index.html").write_text("<h1>draft</h1>")
    options = ("ship", "-e", "one", "--scan", "off", "--desired", str(remote))
    done = place.run(*options, status=2)
    assert "has uncommitted changes" in done.stderr


def test_resources_and_secrets_are_left_to_the_machine(place: Installation, remote: Path) -> None:
    """CI has neither the database nor the values: the machine completes the document."""
    secrets = ", secrets: [TOKEN, {name: KEY, generate: 24}], needs: [db]"
    stack = (STACK % "").replace("static: ., route: /", f"command: run{secrets}")
    stack += "resources:\n  db: {kind: mongodb}\n"
    place.write({"lapwing.yaml": stack, "web/requirements.txt": "# None.\n"})
    place.json("ship", "-e", "one", "--scan", "off", "--desired", str(remote))
    document = json.loads(git(remote, "show", "main:shop/one/document.json"))
    assert document["services"]["web"]["secrets"] == {"TOKEN": "current", "KEY": "generate:24"}
    assert document["resources"]["db"]["kind"] == "mongodb"
