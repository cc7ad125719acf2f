"""`lapwing backup verify` and `lapwing restore` on a machine.

A restore unpacks and checks the backup first, while everything runs. Only then is the environment
stopped, the folder of the data exchanged in one step, and the deployment that ran started again:
also after an error or Ctrl-C. The data before the restore stays beside it, until the next one.

Verifying restores each part into a scratch folder: SQLite checks every file, whose rows are
counted, and the server program of a database has to start on its data.
"""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from lapwing.agent import backups as stored
from lapwing.agent.backups import VOLUME, Backups, Manifest, Part
from lapwing.agent.ports import free_port
from lapwing.agent.resources import kinds
from lapwing.errors import BackupError, LapwingError, check_name
from lapwing.observed.checks import CheckResult
from lapwing.plan.model import ResourceKind
from lapwing.targets.base import DeployResult, DownRequest, Silent
from lapwing.targets.machine import MachineTarget

START_TIMEOUT_S = 60.0


def verify(backups: Backups, manifest: Manifest) -> Iterator[CheckResult]:
    """Restore each part of a backup into a scratch folder, and check it there."""
    backups.data.mkdir(parents=True, exist_ok=True)
    for part in manifest.parts:
        check = f"{part.name} ({part.kind})"
        with TemporaryDirectory(dir=backups.data, prefix=".verify.") as scratch:
            folder = Path(scratch) / "data"
            try:
                backups.unpack(manifest, part, folder)
                seen = _check_rows(folder, part)
                if part.program is not None:
                    seen += _check_server(backups, part, folder)
            except (LapwingError, OSError, sqlite3.Error) as error:
                yield CheckResult(check, False, str(error))
            else:
                yield CheckResult(check, True, seen)


def find_part(manifest: Manifest, name: str) -> Part:
    """Return the part of a resource or volume. Raises UnknownNameError."""
    parts = {p.name.removeprefix(VOLUME): p for p in manifest.parts}
    parts |= {p.name: p for p in manifest.parts}
    check_name("resource or volume", name, parts, f"backup {manifest.id}")
    return parts[name]


def restore(
    target: MachineTarget, backups: Backups, manifest: Manifest, part: Part
) -> DeployResult:
    """Restore a part; returns the deployment that runs again, `unchanged` if nothing was running.

    Raises BackupError, and then nothing was changed, or LapwingError.
    """
    stored.password_of(backups.settings, backups.document, part.name, part.login)
    restored = backups.restored(part)
    with target.reporter.working(f"unpacking {part.name}"):
        backups.unpack(manifest, part, restored)
    found = target.read_status()
    if found is None or found.commit is None or not backups.document.services:
        backups.switch(part, restored)
        return target.unchanged("nothing was running")
    if found.rollout is not None:
        raise BackupError(
            f"A deployment of {target.ref} is in progress.",
            hint="Wait for it, or run `lapwing abort`, then restore again.",
        )
    for number in (signal.SIGHUP, signal.SIGTERM):  # The connection to a client may break.
        signal.signal(number, signal.SIG_IGN)
    try:
        target.reporter.progress("stopping what uses the data")
        stopped = target.down(DownRequest())
        if stopped.outcome != "succeeded":
            raise BackupError(f"{target.ref} was not stopped: nothing was restored.")
        backups.switch(part, restored)
    finally:
        try:
            started = target.start_again(found.commit)
        except OSError:  # No client reads the progress any more.
            target.reporter = Silent()
            started = target.start_again(found.commit)
    return started


def _check_rows(folder: Path, part: Part) -> str:
    """Compare the rows of SQLite files with those of the manifest. Raises BackupError."""
    found = stored.rows(folder)
    if found != part.counts:
        different = sorted(n for n in found | part.counts if found.get(n) != part.counts.get(n))
        raise BackupError(f"The number of rows differs: {', '.join(different[:5])}.")
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    rows = f"{sum(found.values())} rows in {len(found)} tables, " if found else ""
    return f"{rows}{size / 2**20:.1f} MiB"


def _check_server(backups: Backups, part: Part, folder: Path) -> str:
    """Start the server program on restored data, until it responds. Raises BackupError."""
    assert part.program is not None
    try:
        program = kinds.of(cast(ResourceKind, part.kind), part.program)
    except KeyError as error:
        raise BackupError(f"{part.program} is not a server for {part.name} any more.") from error
    password = stored.password_of(backups.settings, backups.document, part.name, part.login)
    port = free_port(set())
    arguments = program.arguments(part.program, folder / "data", port)
    environ = {"PATH": os.defpath, "LANG": "C.UTF-8", "HOME": str(folder)}
    if password is not None and program.login is not None:
        facts = {"password": password, "database": backups.document.stack}
        environ |= {k: v.format(**facts) for k, v in program.login.environ.items()}
        if program.login.configuration is not None:
            file = folder / "server.conf"
            file.touch(mode=0o600)
            file.write_text(program.login.configuration.format(**facts))
            arguments = (arguments[0], str(file), *arguments[1:])
    process = subprocess.Popen(
        arguments,
        env=environ,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until = time.monotonic() + START_TIMEOUT_S
        while (found := _ask(program, port, password)) is None:
            if process.poll() is not None or time.monotonic() > until:
                raise BackupError(f"{Path(part.program).name} does not start on the data.")
            time.sleep(0.1)
    finally:
        process.kill()
        process.wait()
    return f", {Path(part.program).name} starts{found}"


def _ask(program: kinds.Program, port: int, password: str | None) -> str | None:
    """Return what a server has (for Redis: its keys); None if it does not respond yet."""
    greeting = (
        program.login.greeting.format(password=password) if program.login and password else ""
    )
    is_redis = program.scheme == "redis"
    ping = program.probe.sent + (b"DBSIZE\r\n" if is_redis else b"")
    wanted = b"\r\n:" if is_redis else program.probe.expected
    try:
        with socket.create_connection(("127.0.0.1", port), 2) as connection:
            connection.settimeout(5)
            connection.sendall(greeting.encode() + ping)
            response = b""
            while wanted not in response or not (response.endswith(b"\r\n") or not is_redis):
                more = connection.recv(4096)
                if not more or b"-LOADING" in response:
                    return None
                response += more
    except OSError:
        return None
    return f" with {response.rpartition(b':')[2].strip().decode()} keys" if is_redis else ""
