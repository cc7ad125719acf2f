"""A Lapwing of one's own: a home, a port, a git repository with a stack, the command as users call
it. When it ends, everything is stopped, and a process that is left over is an error."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lapwing.agent import process_tree, termination
from lapwing.load.connection import Target
from lapwing.observed import agent
from lapwing.settings import Settings, read
from tests.json_output import command_of, validate

LAPWING = Path(sys.executable).with_name("lapwing")
PATIENCE = 120.0
GIT = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "GIT_AUTHOR_NAME": "A",
    "GIT_AUTHOR_EMAIL": "a@example.com",
    "GIT_COMMITTER_NAME": "A",
    "GIT_COMMITTER_EMAIL": "a@example.com",
}


def envoys(home: Path) -> list[int]:
    """The processes of Envoy, without their supervisor."""
    found = []
    for identity, owner in process_tree.owned(home):
        with contextlib.suppress(OSError):
            if owner == "envoy" and Path(f"/proc/{identity.pid}/exe").readlink().name == "envoy":
                found.append(identity.pid)
    return sorted(found)


class Installation:
    """`folder` is the stack's; `environ` what commands are called with, `command` how."""

    def __init__(self, root: Path, **environ: str) -> None:
        self.command: tuple[str | Path, ...] = (LAPWING,)
        self.home = root / ".local"  # Hidden, as the default is below ~/.local.
        self.folder = root / "stack"
        self.folder.mkdir(parents=True)
        self.port = free_port()
        self.environ = {
            **{k: v for k, v in os.environ.items() if not k.startswith("LAPWING_")},
            **GIT,
            "LAPWING_HOME": str(self.home),
            "LAPWING_PORT": str(self.port),
            "LAPWING_ACTOR": "tester",
            "KUBECONFIG": str(root / "no-cluster"),
            "NO_COLOR": "1",
            **environ,
        }
        self.git("init", "-q", "-b", "main")

    def beside(self, name: str, **environ: str) -> Installation:
        """Another stack in the same home, in a folder of its own. Its `end` is not called: end the
        first one after `down` of this one."""
        other = copy.copy(self)
        other.folder = self.folder.with_name(name)
        other.folder.mkdir()
        other.environ = {**self.environ, **environ}
        other.git("init", "-q", "-b", "main")
        return other

    @property
    def settings(self) -> Settings:
        """The settings that its commands read."""
        return read(self.environ)

    def target(self, stack: str) -> Target:
        """The stack's local environment, as a load client has to know it."""
        return Target(
            f"https://{stack}.localhost:{self.port}",
            address="127.0.0.1",
            authority=str(self.home / "certificates" / "ca.pem"),
            timeout=30.0,
        )

    def git(self, *arguments: str) -> str:
        """Run git in the stack's folder; returns what it prints."""
        done = subprocess.run(
            ["git", *arguments], cwd=self.folder, env=self.environ, check=True, capture_output=True
        )
        return done.stdout.decode().strip()

    def write(self, files: dict[str, str]) -> None:
        """Write files of the stack and commit them."""
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "A change")

    def begin(self, *arguments: str, stderr: int = subprocess.PIPE) -> subprocess.Popen[str]:
        """Start a command of lapwing in a session of its own, and do not wait for it."""
        return subprocess.Popen(
            [LAPWING, *arguments],
            cwd=self.folder,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            start_new_session=True,
        )

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of lapwing in the stack's folder, however it ends."""
        return subprocess.run(
            [*self.command, *arguments],
            cwd=self.folder,
            env=self.environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )

    def run(self, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command of lapwing in the stack's folder, which has to end with that status."""
        done = self.call(*arguments)
        said = f"lapwing {' '.join(arguments)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == status, said
        return done

    def json(self, *arguments: str, status: int = 0) -> Any:
        """What a command answers to programs."""
        document = json.loads(self.run(*arguments, "--output", "json", status=status).stdout)
        validate(command_of(arguments), document)
        return document

    def end(self) -> None:
        """Stop everything. What had to be killed is an error."""
        if not self.home.exists():
            return
        down = self.call("down")
        self.run("agent", "stop")
        until = time.monotonic() + PATIENCE
        while (left := list(process_tree.owned(self.home))) and time.monotonic() < until:
            if agent.is_running(self.home / "agent"):  # A command that failed had just begun it.
                self.run("agent", "stop")
            time.sleep(0.1)
        for identity, _what in left:
            asyncio.run(termination.kill(identity))
        assert not agent.is_running(self.home / "agent")
        assert not left, f"left over: {left}\n{down.stdout}\n{down.stderr}"


@contextlib.contextmanager
def installation(root: Path, **environ: str) -> Iterator[Installation]:
    """An installation for as long as the block runs."""
    made = Installation(root, **environ)
    try:
        yield made
    finally:
        made.end()


def free_port() -> int:
    """A port that nothing listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
