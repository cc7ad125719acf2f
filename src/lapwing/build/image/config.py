"""The configuration of an image: the base image's settings, and how the service is run.

The program runs as a numeric user that is not root, on a read-only root file system with only /tmp
to write to, and is the first process of its container, so that SIGTERM reaches it.
"""

from __future__ import annotations

import datetime
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lapwing.registry.manifest import Platform
from lapwing.system.shell import with_exec

USER = 65532
"""The user of an image without `user`: `nonroot` of the distroless images."""
PORT = 8080
CREATED_BY = "lapwing image build"
"""`created_by` of each built layer in the history of an image."""
_SHELL = re.compile(r"[|&;<>()`$\n*?~#]|^\s*\w+=")


@dataclass(frozen=True, slots=True)
class Run:
    """How the program of an image is run. `created` is the time of its commit, in Unix time."""

    command: Sequence[str]
    folder: str
    created: int
    user: int = USER
    port: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


def exec_form(command: str) -> list[str]:
    """Split a command into its words; one with shell syntax is given to a shell that `exec`s."""
    try:
        words = [] if _SHELL.search(command) else shlex.split(command)
    except ValueError:
        words = []
    return words or ["/bin/sh", "-c", with_exec(command.strip())]


def image_config(
    base: Mapping[str, Any], platform: Platform, diff_ids: Sequence[str], run: Run
) -> bytes:
    """Build a configuration: the same bytes for the same arguments."""
    inherited = base.get("config") or {}
    created = timestamp(run.created)
    own = {"HOME": "/tmp", **listening(run.port), **run.environment}  # noqa: S108 - in a container
    before = dict(text.partition("=")[::2] for text in inherited.get("Env") or [])
    config: dict[str, Any] = {
        "User": f"{run.user}:{run.user}",
        "Env": [f"{name}={value}" for name, value in {**before, **own}.items()],
        "Entrypoint": None,
        "Cmd": list(run.command),
        "WorkingDir": run.folder,
        "Labels": dict(sorted(run.labels.items())),
        "StopSignal": "SIGTERM",
    }
    if run.port is not None:
        config["ExposedPorts"] = {f"{run.port}/tcp": {}}
    rootfs = base.get("rootfs") or {}
    entry = {"created": created, "created_by": CREATED_BY}
    document: dict[str, Any] = {
        "created": created,
        "architecture": platform.architecture,
        **({"variant": platform.variant} if platform.variant else {}),
        "os": platform.os,
        "config": {key: value for key, value in config.items() if value is not None},
        "rootfs": {"type": "layers", "diff_ids": [*rootfs.get("diff_ids", []), *diff_ids]},
        "history": [*(base.get("history") or []), *(entry for _ in diff_ids)],
    }
    return encode(document)


def encode(document: Mapping[str, Any]) -> bytes:
    """Encode a configuration reproducibly: the same content has the same bytes."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def listening(port: int | None) -> dict[str, str]:
    """Return the variables from which servers read their address."""
    if port is None:
        return {}
    host = "0.0.0.0"  # noqa: S104 - in its container
    servers = {"FLASK_RUN_HOST": host, "FLASK_RUN_PORT": str(port)}
    servers |= {"UVICORN_HOST": host, "UVICORN_PORT": str(port)}
    return {"PORT": str(port), "HOST": host, **servers}


def timestamp(seconds: int) -> str:
    """Format a Unix time as RFC 3339 in UTC."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
