"""A server that is set up once, and a laptop that deploys to it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from lapwing.load.connection import Target
from tests.installation import Installation, installation
from tests.integration.server.machines import Machine
from tests.needs import require

DOMAIN = "app.example.com"
STACK = """\
stack: shop
services:
  api:
    build: .
    command: python app.py
    route: /
    secrets: [TOKEN]
    rollout: {analysis: {window: 2s}, keep_old: 10m}
environments:
  vps: {target: machine, host: "root@HOST", domain: app.example.com}
  qa: {target: machine, host: "root@HOST", domain: qa.example.com}
  preview: {target: machine, host: "root@HOST", branches: {max: 1, domain: preview.example.com}}
"""
APP = """\
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = open("VERSION").read().encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments): pass
assert os.environ["TOKEN"]
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


class Laptop:
    """A home of Lapwing with a stack, and an SSH configuration that knows one server."""

    def __init__(self, where: Installation, machine: Machine, key: Path) -> None:
        self.where = where
        self.machine = machine
        self._folders: list[str] = []
        self.key = key
        self.know([machine])
        stack = STACK.replace("HOST", machine.address)
        where.write({"lapwing.yaml": stack, "app.py": APP, "VERSION": "v0", "requirements.txt": ""})

    def use(self, key: Path) -> None:
        """Log in with another key."""
        self.key = key
        self.know([self.machine])

    def know(self, machines: Sequence[Machine]) -> None:
        """Reach these servers, also after they booted. OpenSSH reads the home of the user from the
        system's table, not from HOME, so a program on the PATH adds the configuration."""
        folder = self.where.folder.parent / f"ssh-{self.key.name}"
        folder.mkdir(mode=0o700, exist_ok=True)
        known = self.where.folder.parent / "known_hosts"
        known.write_text("".join(machine.host_key() for machine in machines))
        options = (
            f"-F none -o IdentityFile={self.key} -o IdentitiesOnly=yes "
            f"-o UserKnownHostsFile={known}"
        )
        script = "#!/bin/sh\n"
        for machine in machines:
            inside = " ".join(machine.here)
            script += f'case " $* " in *[\\ @]{machine.address}\\ *) '
            script += f"test -e /proc/{machine.init}/ns/net || exit 255\n"  # The machine is off.
            script += f'exec {inside} /usr/bin/ssh {options} "$@";; esac\n'
        script += 'echo "unknown server: $*" >&2; exit 255\n'
        (folder / "ssh").write_text(script)
        (folder / "ssh").chmod(0o755)
        self.where.environ["PATH"] = f"{folder}:{os.environ['PATH']}"
        self.where.environ["XDG_RUNTIME_DIR"] = self.sockets()

    def sockets(self) -> str:
        """A new folder with a short path, so that no connection of before is used."""
        self._folders.append(tempfile.mkdtemp(prefix="lw-", dir="/tmp"))
        return self._folders[-1]

    def close(self) -> None:
        """End the connections that ssh keeps."""
        for folder in self._folders:
            for socket in Path(folder).glob("*/*"):
                end = ["/usr/bin/ssh", "-F", "none", f"-oControlPath={socket}", "-O", "exit", "any"]
                subprocess.run(end, capture_output=True, check=False)
            shutil.rmtree(folder)

    def write(self, version: str) -> None:
        """Commit a version of the application."""
        self.where.write({"VERSION": version})

    def ask(self, path: str = "/", domain: str = DOMAIN) -> str:
        """What the server answers to a browser."""
        done = subprocess.run(
            [*self.machine.here, "curl", "-sS", "-m", "10", "--cacert", str(self.authority),
             "--resolve", f"{domain}:443:{self.machine.address}", f"https://{domain}{path}"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.stdout + done.stderr

    @property
    def authority(self) -> Path:
        """The server's certificate authority."""
        return self.machine.root / "var/lib/lapwing/state/certificates/ca.pem"

    @property
    def target(self) -> Target:
        """The server, as a load client has to know it."""
        return Target(
            f"https://{DOMAIN}", address=self.machine.address, authority=str(self.authority),
            timeout=30.0,
        )  # fmt: skip


def version(laptop: Laptop) -> str:
    """The version in the laptop's working tree."""
    return (laptop.where.folder / "VERSION").read_text()


def make_key(path: Path) -> str:
    """Make an SSH key; return its public part."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path.with_suffix(".pub").read_text()


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A fresh server on which the key `id` may log in as root."""
    parts = Path(require("server"))
    folder = tmp_path_factory.mktemp("server")
    made = Machine(folder / "machine", parts, 100 + os.getpid() % 100)
    try:
        made.allow(make_key(folder / "id"))
        made.boot()
        yield made
    finally:
        made.remove()


@pytest.fixture(scope="session")
def laptop(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    """A laptop; the server is set up from it."""
    with installation(tmp_path_factory.mktemp("laptop")) as where:
        made = Laptop(where, machine, machine.folder.parent / "id")
        where.run("server", "setup", "-e", "vps")
        subprocess.run(
            [*where.command, "secret", "set", "TOKEN", "-e", "vps"], cwd=where.folder,
            env=where.environ, input="a-secret-value", text=True, check=True,
        )  # fmt: skip
        yield made
        made.close()


@pytest.fixture
def deployed(laptop: Laptop) -> Laptop:
    """A laptop that has deployed a version."""
    laptop.write(f"v{time.monotonic_ns()}")
    laptop.where.run("deploy", "-e", "vps")
    return laptop
