"""`lapwing ship` is killed in the middle of each of its steps, and run again.

Each step runs into a gate that holds it until it is opened: a build script, a test, a scanner, a
registry that is stopped, a hook of the desired-state repository. There everything of the command is
killed at once, as by a runner that goes away.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.control_plane import wait_until
from tests.installation import LAPWING, PATIENCE, Installation
from tests.needs import require
from tests.registries import Server, docker_registry

STACK = """\
stack: shop
services:
  web: {build: {path: ./web, test: sh check.sh}, static: dist, route: /}
environments:
  one: {}
"""
PACKAGE = {"name": "web", "version": "1.0.0", "private": True}
LOCK = {**PACKAGE, "lockfileVersion": 3, "requires": True, "packages": {"": PACKAGE}}
GATE = """\
#!/bin/sh
echo %(name)s >> %(folder)s/%(name)s.log
while ! test -e %(folder)s/%(name)s.open; do sleep 0.05; done
"""


class Line:
    """A stack, the registry and the desired state that it is shipped to, and a gate in each step.
    A closed gate is opened by a file; what came to it is in a log."""

    def __init__(self, root: Path, registry: Server) -> None:
        self.gates = root / "gates"
        self.registry = registry
        self.remote = root / "desired.git"
        self.place = Installation(root / "ci")
        for folder in (self.gates, root / "bin"):
            folder.mkdir()
        subprocess.run(["git", "init", "-q", "--bare", "-b", "main", self.remote], check=True)
        scripts = {**PACKAGE, "scripts": {"build": "sh build.sh"}}
        made = "mkdir -p dist && echo '<h1>shop</h1>' > dist/index.html\n"
        self.place.write(
            {
                "lapwing.yaml": STACK,
                "web/package.json": json.dumps(scripts),
                "web/package-lock.json": json.dumps(LOCK),
                "web/build.sh": self._gate("build") + made,
                "web/check.sh": self._gate("test"),
            }
        )
        self._program(self.remote / "hooks" / "pre-receive", self._gate("commit"))
        # Stands in for the scanner's place in time only; test_scanners.py has real ones.
        report = self._gate("scan") + "echo '{\"matches\": []}'\n"
        self._program(root / "bin" / "grype", report)
        npm = Path(require("npm")).parent
        self.place.environ["PATH"] = f"{root / 'bin'}:{npm}:/usr/bin:/bin"
        self.command = (
            "ship", "-e", "one", "--desired", str(self.remote),
            "--registry", f"{registry.host}/team",
        )  # fmt: skip

    def open(self, *names: str) -> None:
        """Let steps go on."""
        for name in names:
            (self.gates / f"{name}.open").touch()

    def came(self, name: str) -> int:
        """How often a step came to its gate."""
        path = self.gates / f"{name}.log"
        return len(path.read_text().split()) if path.exists() else 0

    def kill_when(self, holds: Callable[[str], bool]) -> None:
        """Begin to ship, and kill all of it as soon as something holds of what it has said."""
        said = self.gates / "said"
        with said.open("wb") as output:
            process = subprocess.Popen(
                [LAPWING, *self.command],
                cwd=self.place.folder,
                env=self.place.environ,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            wait_until(
                lambda: holds(said.read_text()) or process.poll() is not None, "gate", PATIENCE
            )
            assert process.poll() is None, said.read_text()
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def commits(self) -> int:
        """How many commits the desired state has."""
        done = self._git("rev-list", "--count", "--all")
        return int(done)

    def blobs(self) -> dict[str, int]:
        """The blobs that the registry has, and when each was written."""
        return {
            p.parent.name: p.stat().st_mtime_ns
            for p in self.registry.storage.rglob("blobs/sha256/*/*/data")
        }

    def check(self) -> None:
        """The remote is whole: every object is there and no branch but main."""
        self._git("fsck", "--full", "--strict")
        assert self._git("for-each-ref", "--format=%(refname)").split() in ([], ["refs/heads/main"])

    def _git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", "--git-dir", self.remote, *arguments],
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    def document(self) -> dict[str, dict[str, dict[str, str]]]:
        """What is wanted in the end."""
        found: dict[str, dict[str, dict[str, str]]] = json.loads(
            self._git("show", "main:shop/one/document.json")
        )
        return found

    def _gate(self, name: str) -> str:
        return GATE % {"name": name, "folder": self.gates}

    def _program(self, path: Path, text: str) -> None:
        path.write_text(text)
        path.chmod(0o755)


STEPS = ("build", "test", "scan", "push", "commit")


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    require("npm")
    with docker_registry(require("registry"), tmp_path / "registry") as registry:
        made = Line(tmp_path, registry)
        yield made
        made.open(*STEPS)


@pytest.mark.parametrize("step", STEPS)
def test_ship_completes_after_kill(line: Line, step: str) -> None:
    """Nothing is half done, what was done is not done again, and one commit comes of it."""
    line.open(*(name for name in STEPS if name != step))
    if step == "push":
        line.registry.process.send_signal(signal.SIGSTOP)
        line.kill_when(lambda said: "pushing web-" in said)
        line.registry.process.send_signal(signal.SIGCONT)
    else:
        line.kill_when(lambda _: line.came(step) == 1)
    line.check()
    assert line.commits() == 0
    before = line.blobs()
    assert bool(before) == (step == "commit")
    line.open(step)
    done = line.place.json(*line.command)
    line.check()
    assert line.commits() == 1
    web = done["services"]["web"]
    assert web["reused"] == (step != "build")
    assert line.came("build") == (2 if step == "build" else 1)
    assert line.document()["services"]["web"]["release"] == web["release"]
    digest = line.registry.whole("team/shop/web", web["revision"])
    assert line.registry.whole("team/shop/web", "latest") == digest
    after = line.blobs()
    assert {name: when for name, when in after.items() if name in before} == before
    again = line.place.json(*line.command)
    assert [s["outcome"] for s in again["steps"]][-1] == "unchanged"
    assert line.commits() == 1
    assert line.blobs() == after


def test_push_after_kill_makes_no_second_commit(line: Line) -> None:
    """Only the command itself is killed; git, which it called, ends what it had begun. The next run
    finds the commit there."""
    line.open("build", "test", "scan", "push")
    said = line.gates / "said"
    with said.open("wb") as output:
        process = subprocess.Popen(
            [LAPWING, *line.command],
            cwd=line.place.folder,
            env=line.place.environ,
            stdout=output,
            stderr=output,
        )
    wait_until(lambda: line.came("commit") == 1 or process.poll() is not None, "the hook", PATIENCE)
    process.kill()
    process.wait()
    line.open("commit")
    wait_until(lambda: line.commits() == 1, "the push that was under way", PATIENCE)
    done = line.place.json(*line.command)
    assert [s["outcome"] for s in done["steps"]][-1] == "unchanged"
    line.check()
    assert line.commits() == 1
