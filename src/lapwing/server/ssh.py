"""Commands on another machine, run by the ssh program of the system.

The user's SSH configuration, keys, agent, jump hosts and known hosts all apply. Host keys are never
accepted on our account: ssh asks the user, or refuses. Connections of one command, and of commands
within a minute of each other, share one TCP connection (ControlMaster, see ssh_config(5)).
"""

from __future__ import annotations

import functools
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from lapwing.errors import LapwingError, ServerConnectionError, ServerError, UsageError
from lapwing.server import USER
from lapwing.stack.quantities import HOST_ADDRESS
from lapwing.system.git import without_login
from lapwing.system.sanitize import escape_controls

FAILED = 255
"""The exit status of ssh itself when there is no connection. Source: ssh(1)."""
NOT_FOUND = 127
"""The exit status of a shell for a program that is missing. Source: POSIX, sh."""
CONNECT_TIMEOUT_S = 15
ALIVE_INTERVAL_S = 10
"""Interval of keep-alive messages; after three without a reply, the connection is closed."""
ROOT_TIMEOUT_S = 900.0
"""How long a step of a setup may take; one installs packages."""
OUTPUT_LINES = 5
MAX_FOLDER = 104 - 58
"""The length of a folder for sockets: ssh adds a name of 40 and a suffix of 17 characters."""


@dataclass(frozen=True, slots=True)
class Host:
    """The address of a server: a name or an IP address, and if given the user and the port."""

    name: str
    user: str | None = None
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> Host:
        """Read `user@name:port`; IPv6 in brackets. Raises UsageError."""
        found = re.fullmatch(HOST_ADDRESS, text)
        if found is None:
            raise UsageError(
                f"{text!r} is not the address of a server.", hint="Write `user@server.example.com`."
            )
        port = int(found["port"]) if found["port"] else None
        return cls(found["name"].strip("[]"), found["user"], port)

    def as_user(self, user: str) -> Host:
        """Return the same server with another user."""
        return replace(self, user=user)

    @property
    def target(self) -> str:
        """The arguments of ssh for a login by a person, so not as Lapwing's user."""
        port = f"-p {self.port} " if self.port else ""
        user = f"{self.user}@" if self.user and self.user != USER else ""
        return f"{port}{user}{self.name}"

    def __str__(self) -> str:
        """Return `user@name:port`, as far as it is known."""
        name = f"[{self.name}]" if ":" in self.name else self.name
        user = f"{self.user}@" if self.user else ""
        return f"{user}{name}{f':{self.port}' if self.port else ''}"


class Connection:
    """Runs commands on a server. `environ` is the user's environment.

    `environment` is that of the stack, for hints.
    """

    def __init__(self, host: Host, environ: Mapping[str, str], environment: str) -> None:
        self.host = host
        self.environ = dict(environ)
        self.environment = environment

    @property
    def program(self) -> list[str]:
        """The ssh command with its options, without the server. Raises LapwingError."""
        options = {
            "ConnectTimeout": CONNECT_TIMEOUT_S,
            "ServerAliveInterval": ALIVE_INTERVAL_S,
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "BatchMode": "no" if sys.stdin.isatty() else "yes",
            "ControlMaster": "auto",
            "ControlPath": f"{_control_folder()}/%C",
            "ControlPersist": 60,
            "ForwardAgent": "no",
            "ForwardX11": "no",
        }
        user = ["-l", self.host.user] if self.host.user else []
        port = ["-p", str(self.host.port)] if self.host.port else []
        return ["ssh", *(f"-o{k}={v}" for k, v in options.items()), *user, *port]

    def run(self, command: str, given: bytes = b"", timeout: float | None = None) -> bytes:
        """Run a command and return its output. Raises ServerConnectionError or ServerError."""
        arguments = [*self.program, "-T", "--", self.host.name, command]
        try:
            done = subprocess.run(
                arguments,
                input=given,
                capture_output=True,
                env=self.environ,
                timeout=timeout,
                check=False,
            )
        except FileNotFoundError as error:
            raise no_ssh() from error
        except subprocess.TimeoutExpired as error:
            raise ServerConnectionError(
                f"{self.host} did not answer within {timeout:g} s.", hint="Check the network."
            ) from error
        messages = escape_controls(done.stderr.decode(errors="replace"))
        if done.returncode == FAILED:
            raise failure(self.host, messages, self.environment)
        if done.returncode == NOT_FOUND and self.host.user == USER:
            raise not_installed(self.host, self.environment)
        if done.returncode:
            lines = messages.strip().splitlines()[-OUTPUT_LINES:]
            raise ServerError(
                f"A command failed on {self.host} (status {done.returncode}).",
                detail="\n".join(lines) or None,
            )
        return done.stdout

    def run_as_root(self, script: str, given: bytes = b"") -> bytes:
        """Run a shell script as root, by sudo for another user; it ends at the first failure.

        Raises as `run` does, and ServerError if sudo asks for a password.
        """
        return self.run(f"{self._sudo}sh -ec {shlex.quote(script)}", given, ROOT_TIMEOUT_S)

    @functools.cached_property
    def _sudo(self) -> str:
        if self.run("id -u").strip() == b"0":
            return ""
        try:
            self.run("sudo -n true")
        except ServerError as error:
            raise ServerError(
                f"The user of {self.host} cannot use sudo without a password.",
                detail=error.detail,
                hint="Use root in `host`, or allow it with a file in /etc/sudoers.d: "
                "`USER ALL=(ALL) NOPASSWD: ALL`.",
            ) from error
        return "sudo -n "

    def call(
        self, command: str, *, capture: bool = False, given: IO[str] | None = None
    ) -> tuple[int, bytes]:
        """Run a command with the standard streams of this process; return its exit status.

        `given` replaces the standard input. With `capture`, its standard output is returned as
        well. Without, it gets a terminal if this process has one. The status is FAILED if the
        connection is lost.
        """
        has_terminal = not capture and given is None and sys.stdin.isatty() and sys.stdout.isatty()
        arguments = [*self.program, "-t" if has_terminal else "-T", "-q"]
        process = subprocess.Popen(
            [*arguments, "--", self.host.name, command],
            stdin=given,
            stdout=subprocess.PIPE if capture else None,
            env=self.environ,
        )
        try:
            output, _ = process.communicate()
            return process.returncode, output or b""
        except KeyboardInterrupt:
            process.terminate()
            process.wait()
            raise

    def git(self) -> dict[str, str]:
        """Return the variables with which git uses this connection."""
        return {"GIT_SSH_COMMAND": shlex.join(self.program), "GIT_SSH_VARIANT": "ssh"}


def _control_folder() -> Path:
    """Return a folder of this user for sockets, with a path that is short enough."""
    parents = (os.environ.get("XDG_RUNTIME_DIR") or "", tempfile.gettempdir(), "/tmp")  # noqa: S108
    folders = [Path(parent, f"lapwing-ssh-{os.getuid()}") for parent in parents if parent]
    folder = next((f for f in folders if len(str(f)) <= MAX_FOLDER), folders[-1])
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077 or folder.is_symlink():
        raise LapwingError(
            f"{folder} belongs to another user, or others may write in it.",
            hint="Set XDG_RUNTIME_DIR to a folder that only you can read.",
        )
    return folder


def no_ssh() -> LapwingError:
    """Return the error for a machine without the ssh program."""
    return LapwingError(
        "ssh is not installed.",
        hint="Install it, for instance with `apt-get install openssh-client`.",
    )


DENIED = "Permission denied"
CAUSES = (
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "The host key of {host} has changed: this may be another machine.",
        "If the server was installed again, run `ssh-keygen -R {name}`, connect once with "
        "`ssh {target}`, and compare the key with the one that the provider shows.",
    ),
    (
        "Host key verification failed",
        "The host key of {host} is not known yet.",
        "Connect once with `ssh {target}`, and compare the key with the one that the provider "
        "shows. In CI, write the key to ~/.ssh/known_hosts.",
    ),
    (
        DENIED,
        "{host} refuses the login.",
        "Lapwing logs in with an SSH key, never with a password. Check the user in `host`. "
        "`ssh-copy-id {target}` allows your key; `ssh-add` loads one with a passphrase.",
    ),
    (
        "Could not resolve hostname",
        "The name {name} cannot be resolved.",
        "Check `host` in the stack file and the DNS.",
    ),
    (
        "Connection refused",
        "{host} refuses the connection.",
        "Check the port in `host`, and that the SSH server is running.",
    ),
    (
        "timed out",
        "{host} does not answer.",
        "Check that the server is running, and that its firewall allows SSH.",
    ),
)
"""Messages of OpenSSH, with the error and the hint for each."""
_NOT_ALLOWED = (
    "Run `lapwing server setup -e {environment}`: it installs Lapwing, and allows the SSH keys of "
    "the user in `host`. For a key of CI, run `lapwing server key -e {environment} FILE`."
)
"""The hint for a login as Lapwing's user, which a setup allows."""


def not_installed(host: Host, environment: str) -> ServerError:
    """Return the error for a server without Lapwing."""
    return ServerError(
        f"Lapwing is not installed on {host}.",
        hint=f"Run `lapwing server setup -e {environment}`.",
    )


def failure(host: Host, messages: str, environment: str) -> ServerConnectionError:
    """Return the error for a connection that failed, from the messages of ssh."""
    values = {"host": host, "name": host.name, "target": host.target, "environment": environment}
    for sign, message, hint in CAUSES:
        if sign in messages:
            is_ours = sign == DENIED and host.user == USER
            step = (_NOT_ALLOWED if is_ours else hint).format(**values)
            return ServerConnectionError(message.format(**values), hint=step)
    return ServerConnectionError(
        f"The connection to {host} failed.",
        detail=without_login(messages).strip() or None,
        hint="Check that `ssh {target}` works.".format(**values),
    )
