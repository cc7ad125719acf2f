"""What a replica is started with: arguments, environment, folder. Pure.

The environment is made from nothing: what the release needs, what the stack file says, secrets,
the URLs of resources, and what Lapwing tells (PORT and who the replica is). The agent's own
environment does not leak in. Servers that read a bind address from the environment are told the
loopback one, because Envoy is the only listener the outside may reach.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lapwing.build.release import Release
from lapwing.plan.model import Service

BUILTINS = {
    ".", ":", "alias", "bg", "break", "cd", "command", "continue", "eval", "exec", "exit", "export",
    "fg", "getopts", "hash", "jobs", "local", "read", "readonly", "return", "set", "shift",
    "source", "times", "trap", "type", "ulimit", "umask", "unalias", "unset", "wait",
}  # fmt: skip
"""What the shell does itself and no program does. Source: POSIX.1-2024, Shell & Utilities, 2.15
(special built-ins) and 1.7 (intrinsic utilities)."""


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start one process."""

    arguments: tuple[str, ...]
    environ: dict[str, str]
    folder: Path


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process belongs: stack, environment, service and the generation's label."""

    stack: str
    environment: str
    service: str
    label: str
    index: int = 0

    def __str__(self) -> str:
        return f"{self.stack}/{self.environment}/{self.service}/{self.label}/{self.index}"


def environ(
    spec: Service, release: Release, place: Place, given: Mapping[str, str], port: int | None
) -> dict[str, str]:
    """The environment of a process. `given` holds secrets and resource URLs, by variable name."""
    variables = {
        "PATH": os.pathsep.join([*release.path, "/usr/local/bin", "/usr/bin", "/bin"]),
        "LANG": "C.UTF-8",
        "HOME": "/nonexistent",
        "LAPWING_STACK": place.stack,
        "LAPWING_ENVIRONMENT": place.environment,
        "LAPWING_SERVICE": place.service,
        "LAPWING_RELEASE": spec.release,
        "LAPWING_REVISION": spec.revision,
        "LAPWING_REPLICA": f"{place.label}.{place.index}",
        **release.environment,
    }
    if port is not None:
        variables |= {
            "PORT": str(port),
            "HOST": "127.0.0.1",
            # gunicorn binds 0.0.0.0:$PORT by itself; its settings' own variable comes first.
            # Source: docs.gunicorn.org, settings, GUNICORN_CMD_ARGS and bind.
            "GUNICORN_CMD_ARGS": f"--bind 127.0.0.1:{port}",
            "FLASK_RUN_HOST": "127.0.0.1",
            "FLASK_RUN_PORT": str(port),
            "UVICORN_HOST": "127.0.0.1",
            "UVICORN_PORT": str(port),
        }
    return variables | dict(spec.env) | dict(given)


def command(spec: Service) -> tuple[str, ...]:
    """The arguments of a service's command. A shell expands `$PORT` and its like, then becomes
    the program, so signals reach the program itself.

    In `cd x && A=1 y` it becomes the last program. Where there is more to do for the shell than
    one program after the other (pipes, loops, traps), it stays, and what it runs is ended with it.
    """
    text = (spec.command or "").strip()
    return ("/bin/sh", "-c", _becoming(text))


def _becoming(text: str) -> str:
    """A command with `exec` before its last program; as it is, where that would change it."""
    last, quoted = 0, r"\$\{[^}`'\"]*\}|'[^']*'|\"(?:\\.|[^\"\\`$]|\$(?!\())*\"|\\."
    for token in re.finditer(rf"{quoted}|[<>]&|&&|\$\(|\s#|[;&|(){{}}`\n'\"]", text):
        if token[0] in ("&&", ";"):
            if not _program(text[last : token.start()]):
                return text
            last = token.end()
        elif not re.fullmatch(rf"{quoted}|[<>]&", token[0]):
            return text
    found = _program(text[last:])
    if found is None or found[1] in BUILTINS:
        return text
    at = last + found.start(1)
    return f"{text[:at]}exec {text[at:]}"


def _program(part: str) -> re.Match[str] | None:
    """A match with the program of one plain command as group 1, after its assignments."""
    assignment = r"[A-Za-z_]\w*=(?:'[^']*'|\"[^\"]*\"|[^\s'\"])*"
    found = re.match(rf"\s*(?:{assignment}\s+)*([^\s<>=!-][^\s<>=]*)(?=\s|$)", part)
    words = ("if", "for", "while", "until", "case", "trap", "function", "select")
    return None if found is None or found[1] in words else found
