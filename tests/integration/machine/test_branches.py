"""Environments of branches on this machine: two at once, bounded, removed with their branch."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from lapwing.desired.repository import DesiredRepository
from lapwing.observed import status
from lapwing.system import locks
from tests.deployed import Deployed, until
from tests.installation import installation

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("branches")]

STACK = """\
stack: shop
services:
  app:
    build: .
    command: python app.py
    route: /
    secrets: [TOKEN]
    volumes: {data: data}
    rollout: {analysis: {window: 1s}}
environments:
  preview: {branches: {max: 2, disk: LIMIT}}
"""
APP = """\
import http.server, os, pathlib, signal, time
if open("VERSION").read() == "slow":
    def end(*_):
        while not os.path.exists("data/end"): time.sleep(0.05)
        os._exit(0)
    signal.signal(signal.SIGTERM, end)
FILE = pathlib.Path("data/notes")
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        FILE.write_text(FILE.read_text() + "x" if FILE.exists() else "x")
        self.do_GET()
    def do_GET(self):
        notes = FILE.read_text() if FILE.exists() else ""
        body = f"{open('VERSION').read()} {os.environ['TOKEN']} {notes}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


class Branches(Deployed):
    """A clone of a bare remote repository, with a stack that has environments of branches."""

    SERVICE = "app"

    def switch(self, branch: str) -> None:
        """Create a branch with a version, push it, and leave it checked out."""
        self.where.git("switch", "-q", "-c", branch, "main")
        self.where.write({"VERSION": branch})
        self.where.git("push", "-q", "-u", "origin", branch)

    def up(self, branch: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        """Deploy a branch."""
        return self.where.run("up", "-e", "preview", "--branch", branch, status=status)

    def ask(self, label: str, method: str = "GET") -> str:
        """What the application of a branch answers."""
        host = f"{label}.preview.shop.localhost"
        return httpx.request(
            method,
            f"https://127.0.0.1:{self.where.port}/",
            headers={"Host": host, "Connection": "close"},
            verify=False,
            timeout=20,
        ).text

    def listed(self) -> dict[str, dict[str, Any]]:
        """The environments of branches, by name."""
        found = self.where.json("status", "-e", "preview")["branches"]
        return {entry["environment"]: entry for entry in found}

    def left(self) -> list[str]:
        """The folders and files that environments of branches have, without those of releases."""
        home = self.where.home
        found = [p for p in home.rglob("preview_*") if "desired.git" not in p.parts]
        return sorted(str(p.relative_to(home)) for p in found)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Branches]:
    root = tmp_path_factory.mktemp("branches")
    with installation(root) as where:
        remote = root / "remote.git"
        where.git("init", "-q", "--bare", "-b", "main", str(remote))
        where.git("remote", "add", "origin", str(remote))
        stack = STACK.replace("LIMIT", "5Gi")
        files = {"lapwing.yaml": stack, "app.py": APP, "requirements.txt": "", "VERSION": "main"}
        where.write({**files, ".gitignore": "/data\n"})
        where.git("push", "-q", "-u", "origin", "main")
        command = [*where.command, "secret", "set", "TOKEN", "-e", "preview"]
        subprocess.run(
            command, input=b"secret", cwd=where.folder, env=where.environ, check=True,
            capture_output=True,
        )  # fmt: skip
        yield Branches(where, "shop")


def test_branches_have_environments(shop: Branches) -> None:
    """The whole life: two at once, at the maximum, removed with the branch."""
    refused = shop.where.run("up", "-e", "preview", status=2)
    assert "Add `--branch NAME`" in refused.stderr
    shop.switch("feature/login")
    login, label = "preview_feature-login-df7c7aeb", "feature-login-df7c7aeb"
    url = shop.up("feature/login").stdout.strip()
    assert url == f"https://{label}.preview.shop.localhost:{shop.where.port}"
    shop.switch("fix")
    other = shop.up("feature/login", status=2)
    assert "has branch fix checked out" in other.stderr
    shop.up("fix")
    assert shop.ask(label, "POST") == "feature/login secret x"
    assert shop.ask("fix") == "fix secret "
    assert shop.ask(label) == "feature/login secret x"

    status = shop.where.json("status", "--branch", "fix", "-e", "preview")
    assert status["environment"] == "preview_fix"
    history = shop.where.json("history", "-e", "preview_fix")
    assert history[0]["message"].startswith("deploy app")

    assert shop.ask("fix", "POST") == "fix secret x"
    shop.switch("third")
    full = shop.up("third", status=1)
    assert "2 environments of branches exist, which is the maximum" in full.stderr
    assert f"{login}  deployed" in full.stderr
    assert "building" not in full.stderr
    assert set(shop.listed()) == {login, "preview_fix"}

    subprocess.run(
        ["git", "branch", "-q", "-D", "feature/login"],
        cwd=shop.where.folder.parent / "remote.git", env=shop.where.environ, check=True,
    )  # fmt: skip
    found = shop.listed()
    assert (found[login]["exists"], found[login]["branch"]) == (False, None)
    assert (found["preview_fix"]["exists"], found["preview_fix"]["branch"]) == (True, "fix")
    assert found["preview_fix"]["state"] == "running"
    assert found["preview_fix"]["disk"] > 0
    planned = shop.where.run("down", "--gone", "--dry-run", "-e", "preview").stdout
    assert f"{login}: would remove, its branch is gone" in planned
    assert "preview_fix: keep, branch fix exists" in planned
    assert set(shop.listed()) == {login, "preview_fix"}

    made = shop.up("third")  # The environment whose branch is gone makes room.
    assert f"Removing {login}, whose branch no longer exists." in made.stderr
    assert set(shop.listed()) == {"preview_third", "preview_fix"}
    assert not [name for name in shop.left() if login in name]
    assert shop.ask("third") == "third secret "

    shop.where.git("push", "-q", "origin", ":third")
    decided = shop.where.json("down", "--gone", "-e", "preview")
    assert {d["environment"]: d["action"] for d in decided} == {
        "preview_third": "removed", "preview_fix": "keep",
    }  # fmt: skip
    shop.where.run("down", "--volumes", "-e", "preview", "--branch", "fix")
    shop.where.run("down", "--volumes", "-e", "preview", "--branch", "fix")  # Idempotent.
    assert shop.listed() == {}
    assert shop.left() == []
    assert DesiredRepository(shop.where.settings.desired).environments() == []


def test_environment_starts_without_the_data_of_a_removed_one(shop: Branches) -> None:
    """And the limit of disk space is checked before the build."""
    shop.where.git("switch", "-q", "fix")
    shop.up("fix")
    assert shop.ask("fix") == "fix secret "
    assert len(shop.where.json("history", "-e", "preview_fix")) == 1
    (shop.where.folder / "lapwing.yaml").write_text(STACK.replace("LIMIT", "1k"))
    refused = shop.up("fix", status=1)
    assert "of disk space; the limit is" in refused.stderr
    assert "preview_fix  deployed" in refused.stderr
    assert "building" not in refused.stderr
    shop.where.git("checkout", "-q", "lapwing.yaml")
    shop.where.run("down", "--volumes", "-e", "preview", "--branch", "fix")
    assert shop.listed() == {}


def is_locked(file: Path) -> bool:
    """Return whether a deployment or a removal holds a lock."""
    try:
        os.close(locks.acquire(file, wait=False))
    except BlockingIOError:
        return True
    return False


def test_removal_waits_for_an_interrupted_down_and_for_a_deployment(shop: Branches) -> None:
    where, place = shop.where, ("-e", "preview", "--branch", "slow")
    shop.switch("slow")
    shop.up("slow")
    folder = where.settings.environment("shop", "preview_slow")
    down = where.begin("down", *place)
    until(lambda: (found := status.read(folder)) and found.stopping, "the stop")
    os.killpg(down.pid, signal.SIGKILL)
    down.communicate()
    down = where.begin("down", "--volumes", *place)
    assert down.stderr is not None
    printed = iter(down.stderr.readline, "")
    assert any("stopping app" in line for line in printed), "it does not wait"
    (where.settings.volume("shop", "preview_slow", "data", "data") / "end").touch()
    assert down.wait(60) == 0, list(printed)
    assert shop.left() == []

    deployment = where.begin("up", *place)
    lock = where.home / "sources/shop/.preview_slow.lock"
    until(lambda: is_locked(lock), "the deployment")
    deployment.send_signal(signal.SIGSTOP)
    down = where.begin("down", "--volumes", *place)
    assert down.stderr is not None
    assert down.stderr.readline() == "Waiting: preview_slow is being deployed.\n"
    deployment.send_signal(signal.SIGCONT)
    data = where.settings.volume("shop", "preview_slow", "data", "data")
    until(data.is_dir, "the volume")
    (data / "end").touch()
    _, printed = deployment.communicate()
    assert deployment.returncode == 0, printed
    _, printed = down.communicate()
    assert down.returncode == 0, printed
    assert shop.listed() == {}
    assert shop.left() == []
    assert not lock.exists()
