"""Backups of one environment on a machine: what is stored, and where.

    <to>/<stack>/<environment>/<id>/manifest.json   what it contains, with SHA-256 and row counts
                                    <part>.tar.gz   a folder of `data/`: a resource or a volume
                               .rehearsed.json      when one was last restored or verified

A backup is written under a hidden name and renamed when it is complete. `data_copies` copies each
part. Parts that cannot be copied are listed in the manifest, with the reason.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shlex
import tarfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from lapwing import __version__
from lapwing.agent import data_copies
from lapwing.agent.processes import Owner
from lapwing.agent.resources import dumps, images, launches, servers
from lapwing.desired.secrets import SecretStore
from lapwing.errors import BackupError, LapwingError
from lapwing.observed.status import LeftOut
from lapwing.plan.model import Backup, Document, Resource
from lapwing.settings import Settings
from lapwing.system import files, locks

MANIFEST = "manifest.json"
_REHEARSED = ".rehearsed.json"
ID = re.compile(r"\d{8}T\d{6}Z")
PROBE_S = 0.5
"""For how long a lock may be held by commands that only look whether it is held."""
_FOLDER = ".backup-folder"
"""The file with the name of the folder that contains the backups."""
VOLUME = "volume."
"""The prefix of the name of a volume's folder, and so of its part."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One resource or volume in a backup. `counts` are the rows of SQLite tables, by file."""

    name: str
    kind: str
    bytes: int
    sha256: str
    program: str | None = None
    image: str | None = None
    login: str | None = None
    counts: dict[str, int] = {}


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup contains. `created` is Unix time, `commit` the deployment that was running.

    `scheduled` is false for a backup made by hand.
    """

    format: int = 1
    id: str
    stack: str
    environment: str
    created: float
    commit: str | None
    scheduled: bool = False
    lapwing: str = __version__
    parts: list[Part]
    left_out: list[LeftOut] = []


class Backups:
    """The backups of one environment, as its document describes them."""

    def __init__(self, settings: Settings, document: Document) -> None:
        self.settings = settings
        self.document = document
        self.wanted = document.backup if document.backup is not msgspec.UNSET else Backup()
        top = Path(self.wanted.to) if self.wanted.to else settings.home / "backups"
        self.folder = top / document.stack / document.environment
        self.data = settings.data / document.stack / document.environment

    def create(self, commit: str | None, *, scheduled: bool = False) -> Manifest:
        """Make a backup, and remove those of its kind, scheduled or not, beyond `keep`.

        Raises BackupError, OSError.
        """
        ref = f"{self.document.stack}/{self.document.environment}"
        if not self.document.services:
            raise BackupError(
                f"{ref} cannot be backed up while it is stopped.",
                hint=f"Run `lapwing up -e {self.document.environment}` first.",
            )
        left_out = self.left_out()
        absent = {part.name for part in left_out}
        parts = {name: r for name, r in self._data_of() if name not in absent}
        if not parts:
            reasons = "; ".join(f"{part.name}, {part.reason}" for part in left_out)
            raise BackupError(
                f"Nothing of {ref} can be backed up: {reasons or 'it has no database or volume'}."
            )
        self._make_folder()
        with only_one(self.folder / ".lock", "backup"):
            name, now = self._new_id()
            place = self.folder / f".{name}.new"
            for left in self.folder.glob(".*.new"):
                files.remove_tree(left)
            place.mkdir(mode=0o700)
            try:
                made = [self._write(place, part, resource) for part, resource in parts.items()]
                manifest = Manifest(
                    id=name,
                    stack=self.document.stack,
                    environment=self.document.environment,
                    created=now,
                    commit=commit,
                    scheduled=scheduled,
                    parts=made,
                    left_out=left_out,
                )
                data = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
                files.write_atomic(place / MANIFEST, data)
                place.rename(self.folder / name)
                files.sync_folder(self.folder)
            except BaseException:
                files.remove_tree(place)
                raise
            same = [m for m in self.list() if m.scheduled == scheduled]
            for old in same[self.wanted.keep :]:
                files.remove_tree(self.folder / old.id)
        return manifest

    def _make_folder(self) -> None:
        """Create the folder of the backups, but not in place of an unmounted file system.

        A folder that contained backups is not created again. Raises BackupError.
        """
        known, folder = self.data / _FOLDER, str(self.folder)
        missing = None
        if self.wanted.to and not self.folder.exists():
            if known.exists() and known.read_text() == folder:
                missing = self.folder
            elif not (parent := Path(self.wanted.to).parent).exists():
                missing = parent
        if missing is not None:
            raise BackupError(
                f"{missing} does not exist, so the backup was not written to {self.wanted.to}.",
                hint=f"Mount its file system, or run `mkdir -p {shlex.quote(str(missing))}`.",
            )
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not os.access(self.folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder)
            files.write_atomic(known, folder.encode())
        except OSError as error:
            raise BackupError(
                f"The folder for backups {folder} cannot be used: {error.strerror} "
                f"({error.filename}).",
                hint="Correct `to` of `backup`, or the owner and the mode of the folder.",
            ) from error

    def left_out(self, made: Manifest | None = None) -> list[LeftOut]:
        """Return what a backup does not contain: the given one, by default the next one."""
        if made is not None and not self.document.services:  # The environment is stopped.
            return made.left_out
        there = {part.name for part in made.parts} if made is not None else None
        found = []
        for name, resource in self._data_of():
            reason = None
            if resource is not None:
                reason = data_copies.reason_left_out(self.settings, self.document, name, resource)
            if reason is None and name not in (there or ()):
                if not (self.data / name).is_dir():
                    reason = "it has no data yet"
                elif there is not None:
                    reason = "added after the newest backup"
            if reason is not None:
                found.append(LeftOut(name=name, reason=reason))
        return found

    def list(self) -> list[Manifest]:
        """Return the complete backups, newest first. Unreadable ones are skipped."""
        return list(self._readable())

    def find(self, name: str | None) -> Manifest:
        """Return a backup by its ID, by default the newest. Raises BackupError."""
        for each in self._ids():
            if name not in (None, each):
                continue
            try:
                return self._read(each)
            except FileNotFoundError:
                continue
            except (OSError, msgspec.MsgspecError) as error:
                raise BackupError(
                    f"The manifest of backup {each} is damaged: {self.folder / each / MANIFEST}.",
                    hint="Name another backup; see "
                    f"`lapwing backup list -e {self.document.environment}`.",
                ) from error
        raise BackupError(
            f"There is no backup {name} in {self.folder}."
            if name
            else f"There is no backup in {self.folder}.",
            hint=f"Run `lapwing backup list -e {self.document.environment}`."
            if self.list()
            else f"Run `lapwing backup -e {self.document.environment}`.",
        )

    def record_rehearsal(self) -> None:
        """Record that a backup was restored or verified, if the folder is writable."""
        with suppress(OSError):
            files.write_atomic(self.folder / _REHEARSED, msgspec.json.encode(time.time()))

    def last_rehearsal(self) -> float | None:
        """Return when a backup was last restored or verified; None if never."""
        try:
            return msgspec.json.decode((self.folder / _REHEARSED).read_bytes(), type=float)
        except (OSError, msgspec.MsgspecError):
            return None

    def _new_id(self) -> tuple[str, float]:
        """Return the ID of a new backup, and its time; wait if the ID of this second is in use."""
        while True:
            now = time.time()
            name = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
            if not (self.folder / name).exists():
                return name, now
            time.sleep(0.1)

    def _readable(self) -> Iterator[Manifest]:
        for name in self._ids():
            with suppress(OSError, msgspec.MsgspecError):
                yield self._read(name)

    def _ids(self) -> Iterable[str]:
        """Return the IDs of the backups, newest first."""
        names = (p.name for p in self.folder.iterdir()) if self.folder.is_dir() else ()
        return sorted((n for n in names if ID.fullmatch(n)), reverse=True)

    def _read(self, name: str) -> Manifest:
        """Read the manifest of a backup. Raises OSError or msgspec.MsgspecError."""
        return msgspec.json.decode((self.folder / name / MANIFEST).read_bytes(), type=Manifest)

    def _data_of(self) -> Iterator[tuple[str, Resource | None]]:
        """Yield the name of each folder with data, and its resource; None for a volume."""
        yield from self.document.resources.items()
        for name in sorted({v for s in self.document.services.values() for v in s.volumes}):
            yield f"{VOLUME}{name}", None

    def _write(self, place: Path, name: str, resource: Resource | None) -> Part:
        """Write the archive of one part."""
        source, login, counts = self.data / name, None, dict[str, int]()
        program = resource.program if resource is not None else None
        contained = images.recorded(source) if resource is not None else None
        target = place / f"{name}.tar.gz"
        with TemporaryDirectory(dir=place) as scratch, tarfile.open(target, "x:gz") as archive:
            if resource is None or resource.provider == "embedded":
                counts = data_copies.add_files(archive, source, "", Path(scratch))
            else:
                login = launches.login_of(source)
                for file in (launches.LOGIN, launches.ROOT_LOGIN, images.RECORD):
                    if (source / file).exists():
                        archive.add(source / file, file)
                if resource.kind == "redis":
                    snapshot = Path(scratch) / "snapshot"
                    password = password_of(self.settings, self.document, name, login)
                    port = int((source / "port").read_text())
                    environment = self.document.environment
                    data_copies.copy_redis(name, environment, port, password, snapshot)
                    # Redis reads a snapshot at the beginning of an append-only file.
                    archive.add(snapshot, "data/appendonly.aof")
                elif resource.provider == "container":
                    owner = Owner(
                        self.document.stack, self.document.environment, name, servers.LABEL
                    )
                    dumps.dump(self.settings, owner, resource.kind, Path(scratch) / dumps.FILE)
                    archive.add(Path(scratch) / dumps.FILE, dumps.FILE)
                else:
                    counts = data_copies.add_files(archive, source / "data", "data/", Path(scratch))
        target.chmod(0o600)
        with target.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            os.fsync(stream.fileno())
        kind = "volume" if resource is None else resource.kind
        return Part(
            name=name,
            kind=kind,
            bytes=target.stat().st_size,
            sha256=digest,
            program=program,
            image=contained.image if contained is not None else None,
            login=login,
            counts=counts,
        )


def password_of(
    settings: Settings,
    document: Document,
    name: str,
    version: str | None,
    secret: str = "password",  # noqa: S107 - the name of the secret
) -> str | None:
    """Return a version of the password of a resource. Raises SecretError."""
    if version is None:
        return None
    store = SecretStore(settings.secrets)
    return store.get(document.stack, document.environment, f"resource.{name}.{secret}", version)


@contextmanager
def only_one(lock: Path, what: str) -> Iterator[None]:
    """Hold a lock. Raises BackupError if another process holds it."""
    until = time.monotonic() + PROBE_S
    while True:
        try:
            descriptor = locks.acquire(lock, wait=False)
            break
        except BlockingIOError as error:
            if time.monotonic() > until:
                raise BackupError(f"Another {what} of this environment is in progress.") from error
            time.sleep(PROBE_S / 20)
    try:
        yield
    finally:
        os.close(descriptor)


def main(stack: str, environment: str) -> None:
    """Make a backup of a running environment; the agent starts this on a schedule."""
    from lapwing.agent import state
    from lapwing.settings import read

    settings = read(dict(os.environ))
    memory = state.load(settings.environment(stack, environment))
    if memory is None or memory.document is None:
        raise BackupError(f"{stack}/{environment} is not running.")
    backups = Backups(settings, memory.document)
    made = backups.create(memory.commit, scheduled=True)
    size = sum(p.bytes for p in made.parts)
    print(f"Backup {made.id}: {len(made.parts)} parts, {size} bytes.")
    for part in made.left_out:
        print(f"NOT backed up: {part.name}, {part.reason}.")


if __name__ == "__main__":
    import sys

    try:
        main(*sys.argv[1:])
    except (LapwingError, OSError) as failed:
        sys.exit(f"error: {failed}")
