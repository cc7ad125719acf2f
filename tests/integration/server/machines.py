"""A fresh Debian server for the tests: its systemd and sshd are real, in namespaces of their own.

`.ci/install-server` makes the root file system once; each server writes into an overlay of it. The
server has a network of its own, with the loopback interface only. What talks to it runs in that
namespace (`here`): the interfaces of this machine stay as they are, because a browser of another
test ends its requests when they change.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
from contextlib import AbstractContextManager
from pathlib import Path

from tests.deployed import until
from tests.networks import network_of

BOOT = Path(__file__).with_name("boot.sh")


class Machine:
    """A server: `root` is its file system as this machine sees it. It has all addresses of its
    loopback interface; `address` is the one that it is called by."""

    def __init__(self, folder: Path, parts: Path, number: int, address: str = "127.0.0.1") -> None:
        self.address = address
        self.folder = folder
        self.wheels = parts / "wheels"
        self.root = folder / "root"
        for name in ("root", "upper", "work"):
            (folder / name).mkdir(parents=True)
        lower = f"lowerdir={parts / 'root'},upperdir={folder / 'upper'},workdir={folder / 'work'}"
        _run("mount", "-t", "overlay", "overlay", "-o", lower, str(self.root))
        (self.root / "etc/hosts").write_text("127.0.0.1 localhost vps\n")
        (self.root / "etc/pip.conf").write_text("[global]\nno-index = true\nfind-links = /wheels\n")
        _run("chroot", str(self.root), "ssh-keygen", "-A")
        self._group = Path("/sys/fs/cgroup/systemd")
        self._group = (
            self._group if self._group.is_dir() else Path("/sys/fs/cgroup")
        ) / f"lapwing-test-{number}"
        self._process: subprocess.Popen[bytes] | None = None
        self.init = 0

    def host_key(self) -> str:
        """The line of known_hosts."""
        key = (self.root / "etc/ssh/ssh_host_ed25519_key.pub").read_text().split()
        return f"{self.address} {key[0]} {key[1]}\n"

    def allow(self, key: str, user: str = "root") -> None:
        """Let a public key log in."""
        home = self.root / ("root" if user == "root" else f"home/{user}")
        (home / ".ssh").mkdir(mode=0o700, parents=True, exist_ok=True)
        (home / ".ssh/authorized_keys").write_text(key)

    def boot(self) -> None:
        """Start it, and wait until sshd listens."""
        self._group.mkdir(exist_ok=True)
        script = f"echo $$ > {self._group}/cgroup.procs; exec unshare --fork --pid --mount --net "
        script += "--uts --ipc --cgroup --kill-child "
        words = ["bash", str(BOOT), str(self.root), str(self.wheels), "vps"]
        self._process = subprocess.Popen(["sh", "-c", script + shlex.join(words)])
        self.init = until(self._find_init)
        until(lambda: ":22 " in self.run("ss -Hltn"))

    def _find_init(self) -> int:
        """The process that is systemd, once it is."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        for pid in children.read_text().split():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/exe").readlink().name == "systemd":
                    return int(pid)
        return 0

    def power_off(self) -> None:
        """Kill everything in it at once, as a power failure does."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.init or self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None
        until(lambda: not self._remove_groups())

    def _remove_groups(self) -> bool:
        """Remove its control groups; whether any is left."""
        for folder, _, _ in os.walk(self._group, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
        return self._group.exists()

    def remove(self) -> None:
        """End it, and unmount its file system."""
        self.power_off()
        subprocess.run(["umount", "-l", str(self.root)], check=True)

    @property
    def here(self) -> list[str]:
        """The words before a command that let it run in the network of the server."""
        return self._inside("n")

    def network(self) -> AbstractContextManager[None]:
        """Let this thread, and what it starts, use the network of the server."""
        return network_of(self.init)

    def _inside(self, namespaces: str) -> list[str]:
        return ["nsenter", "-t", str(self.init), f"-{namespaces}"]

    def run(self, script: str) -> str:
        """Run a shell script on it as root; it has to succeed."""
        return _run(*self._inside("a"), "sh", "-c", script)


def _run(*arguments: str) -> str:
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{arguments}: {done.stdout}\n{done.stderr}"
    return done.stdout
