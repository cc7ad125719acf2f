"""`lapwing backup verify` and `lapwing restore` on a machine.

A restore unpacks the backup first, while everything runs, and the server program of a database has
to start on it. Then it stops the environment, exchanges the folders in one step, and starts the
previous deployment again, also after an error. Meanwhile clients get the maintenance page, and
other deployments are refused. The data from before the restore is kept until the next restore.

Ctrl-C during the stop cancels the restore: the deployment is started again with the data that it
has. Later, it only stops waiting for the start, which is committed in any case.

Verifying restores each part into a scratch folder: SQLite checks every file, whose rows are
counted, and the server program of a database has to start on its data.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import msgspec

from lapwing.agent import basic_auth, data_copies
from lapwing.agent.backup_manifest import Manifest, Part
from lapwing.agent.backups import VOLUME, Backups, password_of
from lapwing.agent.ports import free_port
from lapwing.agent.processes import Owner
from lapwing.agent.resources import dumps, images, kinds, launches, program_dumps, servers
from lapwing.agent.restores import Restores, Restoring, inode
from lapwing.agent.scratch_folders import VERIFY, scratch_folder
from lapwing.desired.history import outcome
from lapwing.desired.secrets import SecretStore
from lapwing.errors import BackupError, LapwingError, check_name
from lapwing.observed.checks import CheckResult
from lapwing.observed.status import Status
from lapwing.plan.model import Resource, ResourceKind
from lapwing.system import interrupts
from lapwing.system.files import remove_tree
from lapwing.system.process import bound_to_caller
from lapwing.system.sanitize import escape_name
from lapwing.targets import machine_migrations
from lapwing.targets.base import DeployResult, Silent
from lapwing.targets.machine import MachineTarget
from lapwing.targets.machine_backups import interrupted_restore

START_TIMEOUT_S = 60.0


class MachineBackups:
    """Makes, lists and verifies the backups of an environment on a machine. Raises LapwingError."""

    def __init__(self, target: MachineTarget, identity: str | None) -> None:
        self._target, self._backups = target, target.backups(identity)
        self.find, self.list = self._backups.find, self._backups.list

    @property
    def place(self) -> str:
        """The address of the backups, for messages."""
        return self._backups.store.place

    def create(self) -> Manifest:
        """Make a backup of what is running."""
        status = self._target.read_status()
        commit = status.commit if status else None
        return self._backups.create(commit, self._target.reporter.say)

    def verify(self, made: Manifest) -> Iterator[CheckResult]:
        """Restore each part of a backup into a scratch folder, and check it there."""
        return verify(self._backups, made)


def verify(backups: Backups, manifest: Manifest) -> Iterator[CheckResult]:
    """Restore each part of a backup into a scratch folder, and check it there.

    The time is recorded if all of them pass.
    """
    backups.data.mkdir(parents=True, exist_ok=True)
    passed = True
    for part in manifest.parts:
        check = f"{part.name} ({part.kind})"
        with scratch_folder(backups.data, VERIFY) as scratch:
            folder = scratch / "data"
            try:
                Restores(backups).unpack(manifest, part, folder)
                seen = _check_rows(folder, part)
                if part.image is not None:
                    seen += load(backups, part, folder)
                elif part.program is not None:
                    seen += _check_program(backups, part, folder)
            except (LapwingError, OSError) as error:
                passed = False
                yield CheckResult(check, False, str(error))
            else:
                yield CheckResult(check, True, seen)
    if passed:
        backups.record_rehearsal()


def find_part(manifest: Manifest, name: str) -> Part:
    """Return the part of a resource or volume. Raises UnknownNameError."""
    short = {p.name.removeprefix(VOLUME): p for p in manifest.parts}
    parts = short | {p.name: p for p in manifest.parts}
    if name not in parts:
        check_name("resource or volume", name, short, f"backup {manifest.id}")
    return parts[name]


def restore(
    target: MachineTarget, backups: Backups, manifest: Manifest, part: Part
) -> DeployResult:
    """Restore a part; return the deployment that was started again, `unchanged` without one.

    Raises BackupError if nothing was changed, or LapwingError.
    """
    password_of(backups.settings, backups.document, part.name, part.login)
    machine_migrations.check_restore(target, manifest, part.name)
    restores = Restores(backups)
    restores.check_server(part)
    with restores.locked():
        try:
            with target.reporter.working(f"unpacking {part.name}"):
                restores.unpack(manifest, part, restores.unpacked(part))
                if part.image is not None:
                    load(backups, part, restores.unpacked(part))
                elif part.program is not None:
                    _check_program(backups, part, restores.unpacked(part))
            return _switch(target, restores, manifest, part)
        except BaseException:
            remove_tree(restores.unpacked(part))
            raise


def _switch(
    target: MachineTarget, restores: Restores, manifest: Manifest, part: Part
) -> DeployResult:
    """Stop what uses the data, replace the data, and start the deployment again.

    If an interrupted restore left the environment stopped, its last deployment is started.
    """
    interrupted = _interrupted(target, restores, part)
    head, found = _head(target), target.read_status()
    if interrupted is None and _is_deploying(target, found, head):
        raise BackupError(
            f"A deployment of {target.ref} is in progress.",
            hint="Wait until the deployment ends, or run "
            f"`lapwing abort -e {target.ref.environment}`; then run the restore again.",
        )
    restoring = Restoring(
        name=part.name,
        backup=manifest.id,
        commit=found.commit if found and restores.backups.document.services else None,
        head=head,
        inode=inode(restores.data / part.name),
    )
    if interrupted is not None:
        restoring = msgspec.structs.replace(interrupted, backup=manifest.id)
    _check_secrets(target, restoring)
    for number in (signal.SIGHUP, signal.SIGTERM):  # The connection to a client may break.
        signal.signal(number, signal.SIG_IGN)
    with interrupts.deferred():
        restores.record(restoring)
        try:
            if found is not None and (found.running or found.stopping):
                _stop(target, restoring)
            restoring = restores.switch(part, restores.unpacked(part), restoring)
        finally:
            result = _start(target, restoring)
            restores.remove_record()
        restores.backups.record_rehearsal()
    return result


def _stop(target: MachineTarget, restoring: Restoring) -> None:
    """Stop what uses the data. Raises BackupError, or KeyboardInterrupt: nothing was restored."""
    target.reporter.progress("stopping what uses the data")
    stopped = target.stop_for_restore(restoring.description, restoring.head)
    if stopped.outcome == "detached":
        target.reporter.say("The restore is cancelled; the deployment is started again.")
        raise KeyboardInterrupt
    if stopped.outcome != "succeeded":
        raise BackupError(f"{target.ref} could not be stopped. Nothing was restored.")


def _check_secrets(target: MachineTarget, restoring: Restoring) -> None:
    """Check the secrets of the deployment that is started again. Raises SecretError or UsageError.

    They may have been removed while it runs.
    """
    if restoring.commit is None:
        return
    stack, environment = target.ref.stack, target.ref.environment
    document = target.repository.read(stack, environment, restoring.commit)
    assert document is not None
    store = SecretStore(target.settings.secrets)
    for _, error in store.check(document):
        raise error
    basic_auth.check(document, store)


def _is_deploying(target: MachineTarget, found: Status | None, head: str | None) -> bool:
    """Return whether a deployment is in progress, or committed and not begun yet."""
    if found is None or found.rollout is not None:
        return found is not None
    return head not in (None, found.commit) and outcome(target.repository, head) is None


def _interrupted(target: MachineTarget, restores: Restores, part: Part) -> Restoring | None:
    """Return an interrupted restore of the same part.

    Raises BackupError if the environment was stopped for that of another part.
    """
    found = interrupted_restore(restores.backups, target.repository)
    if found is None or found.name == part.name:
        return found
    if found.head == _head(target):
        return None
    environment = target.ref.environment
    raise BackupError(
        f"A restore of {found.name} was interrupted: its data may not be that of the backup.",
        hint=f"Run `lapwing restore {found.name} {found.backup} -e {environment}` to complete it, "
        f"or `lapwing deploy -e {environment}` to keep the data that it has. Nothing was changed.",
    )


def _start(target: MachineTarget, restoring: Restoring) -> DeployResult:
    """Start a deployment again, unless it was not stopped: `head` is still the newest commit."""
    what, commit, restored = restoring.description, restoring.commit, restoring.restored
    if commit is None or _head(target) == restoring.head:
        return target.unchanged("nothing was stopped")
    try:
        return target.start_after_restore(what, commit, restored)
    except OSError:  # No client reads the progress any more.
        target.reporter = Silent()
        return target.start_after_restore(what, commit, restored)


def _head(target: MachineTarget) -> str | None:
    return target.repository.newest(target.ref.stack, target.ref.environment)


def _check_rows(folder: Path, part: Part) -> str:
    """Compare the rows of SQLite files with those of the manifest. Raises BackupError."""
    tables = data_copies.tables(folder)
    if tables.damaged:
        names = ", ".join(map(escape_name, tables.damaged))
        raise BackupError(f"Damaged SQLite files: {names}.")
    found = tables.counts
    if found != part.counts:
        different = sorted(n for n in found | part.counts if found.get(n) != part.counts.get(n))
        raise BackupError(f"The number of rows differs: {', '.join(different[:5])}.")
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    rows = f"rows: {sum(found.values())}, tables: {len(found)}, " if found else ""
    return f"{rows}{size / 2**20:.1f} MiB"


def load(backups: Backups, part: Part, folder: Path) -> str:
    """Load restored data in a container of the current image. Raises BackupError."""
    container = images.recorded(backups.data / part.name) or images.recorded(folder)
    assert container is not None
    images.record(folder, container)
    kind, document = cast(ResourceKind, part.kind), backups.document
    password = password_of(backups.settings, document, part.name, part.login)
    root_version = launches.login_of(folder, launches.ROOT_LOGIN)
    root = password_of(backups.settings, document, part.name, root_version, "root-password")
    probe = images.SERVERS[kind].probe
    seen = dumps.load(
        backups.settings,
        _owner(backups, part),
        Resource(kind=kind, variable="", provider="container", container=container),
        folder,
        {
            "password": password or "",
            "root_password": root or "",
            "database": document.stack,
        },
        lambda port: _ask(kind, probe, port, password) or "",
    )
    return f", {container.image} starts{seen}"


def _owner(backups: Backups, part: Part) -> Owner:
    document = backups.document
    return Owner(document.stack, document.environment, part.name, servers.LABEL)


def _check_program(backups: Backups, part: Part, folder: Path) -> str:
    """Start the server program on restored data, until it responds; load a dump into new data.

    Raises LapwingError.
    """
    assert part.program is not None
    kind, stack = cast(ResourceKind, part.kind), backups.document.stack
    is_dumped = program_dumps.is_dumped(part.program)
    password = password_of(backups.settings, backups.document, part.name, part.login)
    port = free_port(set())
    try:
        if is_dumped:
            launches.create_data(kind, part.program, folder, password, stack)
        launch, probe = launches.launch_program(
            kind,
            part.program,
            folder,
            port=port,
            password=password,
            database=stack,
            mark="",
        )
    except KeyError as error:
        raise BackupError(
            f"This version of Lapwing does not support {part.program}, the server of {part.name}."
        ) from error
    process = subprocess.Popen(
        bound_to_caller(launch.arguments, launch.environ),
        env=dict(launch.environ),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until = time.monotonic() + START_TIMEOUT_S
        while (found := _ask(part.kind, probe, port, password)) is None:
            if process.poll() is not None or time.monotonic() > until:
                raise BackupError(f"{Path(part.program).name} does not start on the data.")
            time.sleep(0.1)
        if is_dumped:
            server = program_dumps.Server(_owner(backups, part), part.program, port, password)
            program_dumps.load(server, folder / dumps.FILE)
        process.send_signal(kinds.of(kind, part.program).stop_signal)  # It writes its data.
        process.wait(servers.STOP_GRACE_S)
    except subprocess.TimeoutExpired as error:
        raise BackupError(
            f"{Path(part.program).name} does not stop after the restore.",
            hint="Run the command again.",
        ) from error
    finally:
        process.kill()
        process.wait()
    return f", {Path(part.program).name} starts{found}"


def _ask(kind: str, probe: kinds.Probe, port: int, password: str | None) -> str | None:
    """Return the number of keys of Redis as text, "" of others; None without a response."""
    sent, expected = probe.sent.replace(b"{password}", (password or "").encode()), probe.expected
    if kind == "redis":
        sent, expected = sent + b"DBSIZE\r\n", b"\r\n:"
    try:
        with socket.create_connection(("127.0.0.1", port), 2) as connection:
            connection.settimeout(5)
            connection.sendall(sent)
            response = b""
            while expected not in response or (kind == "redis" and response[-2:] != b"\r\n"):
                more = connection.recv(4096)
                if not more or b"-LOADING" in response:
                    return None
                response += more
    except OSError:
        return None
    return f" with {response.rpartition(b':')[2].strip().decode()} keys" if kind == "redis" else ""
