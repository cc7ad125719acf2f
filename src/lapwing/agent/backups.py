"""Backups of one environment on a machine: databases that Lapwing runs, embedded data, volumes.

    <to>/<stack>/<environment>/<id>/manifest.json   what it contains, with SHA-256 and row counts
                                    <part>.tar.gz   a folder of `data/`: a resource or a volume

A backup is written under a hidden name and renamed when it is complete. Each part is a consistent
copy while its program keeps running: Redis sends a snapshot, as to a replica; SQLite files, also
those of FerretDB, are copied by SQLite's backup API; other files are copied one after the other.

`unpack` writes a part beside the present data, and `switch` exchanges the two folders by one
renameat2(2), so there is always one complete folder.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import socket
import sqlite3
import tarfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from lapwing import __version__
from lapwing.agent.resources import servers
from lapwing.desired.secrets import SecretStore
from lapwing.errors import BackupError
from lapwing.plan.model import Backup, Document, Resource
from lapwing.settings import Settings
from lapwing.system import files, locks

MANIFEST = "manifest.json"
ID = re.compile(r"\d{8}T\d{6}Z")
BACKED_UP = ("binary", "embedded")
"""The providers of resources whose data is in a folder of this machine."""
VOLUME = "volume."
"""The beginning of the name of a volume's folder, and so of its part."""
SNAPSHOT_TIMEOUT_S = 600.0
_SQLITE = b"SQLite format 3\0"
_BESIDE_SQLITE = ("-wal", "-shm", "-journal")
_BLOCK = 1024 * 1024
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One resource or volume in a backup. `counts` are the rows of SQLite tables, by file."""

    name: str
    kind: str
    bytes: int
    sha256: str
    program: str | None = None
    login: str | None = None
    counts: dict[str, int] = {}


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup contains. `created` is Unix time, `commit` the deployment that was running."""

    format: int = 1
    id: str
    stack: str
    environment: str
    created: float
    commit: str | None
    lapwing: str = __version__
    parts: list[Part]


class Backups:
    """The backups of one environment, by its document."""

    def __init__(self, settings: Settings, document: Document) -> None:
        self.settings = settings
        self.document = document
        self.wanted = document.backup if document.backup is not msgspec.UNSET else Backup()
        top = Path(self.wanted.to) if self.wanted.to else settings.home / "backups"
        self.folder = top / document.stack / document.environment
        self.data = settings.data / document.stack / document.environment

    def create(self, commit: str | None) -> Manifest:
        """Make a backup, and remove those beyond `keep`. Raises BackupError, OSError."""
        parts = dict(self._parts())
        if not parts:
            raise BackupError(
                f"{self.document.stack}/{self.document.environment} has no data to back up: no "
                "volume, and no database that Lapwing runs.",
                hint="Back up a database at a URL where it runs.",
            )
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._only_one():
            now = time.time()
            name = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
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
                    parts=made,
                )
                data = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
                files.write_atomic(place / MANIFEST, data)
                place.rename(self.folder / name)
                files.sync_folder(self.folder)
            except BaseException:
                files.remove_tree(place)
                raise
            for old in self.list()[self.wanted.keep :]:
                files.remove_tree(self.folder / old.id)
        return manifest

    @property
    def left_out(self) -> str:
        """A sentence on the databases that are in no backup; empty if there is none."""
        names = [n for n, r in self.document.resources.items() if r.provider not in BACKED_UP]
        if not names:
            return ""
        return f"Not in the backup: {', '.join(names)} (in a container, or at a URL)."

    def list(self) -> list[Manifest]:
        """Return the complete backups, newest first. What cannot be read is left out."""
        return list(self._readable())

    def find(self, name: str | None) -> Manifest:
        """Return a backup by its ID, by default the newest. Raises BackupError."""
        found = self.list()
        match = next((m for m in found if name in (None, m.id)), None)
        if match is None:
            raise BackupError(
                f"There is no backup {name} in {self.folder}."
                if name
                else f"There is no backup in {self.folder}.",
                hint="Run `lapwing backup list`." if found else "Run `lapwing backup`.",
            )
        return match

    def unpack(self, manifest: Manifest, part: Part, to: Path) -> None:
        """Check a part and unpack it into a new folder. Raises BackupError, OSError."""
        file = self.folder / manifest.id / f"{part.name}.tar.gz"
        try:
            with file.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise BackupError(f"{file} cannot be read: {error.strerror}.") from error
        if digest != part.sha256:
            raise BackupError(f"{file} is damaged: its SHA-256 is not that of the manifest.")
        files.remove_tree(to)
        to.mkdir(mode=0o700, parents=True)
        with tarfile.open(file) as archive:
            archive.extractall(to, filter="tar")
        os.sync()

    def switch(self, part: Part, restored: Path) -> Path:
        """Exchange the data of a part for restored data; returns where the data before is now.

        Only the data before this restore is kept, not that before earlier ones.
        """
        present, before = self.data / part.name, self.data / f".{part.name}.before-restore"
        if part.kind != "volume" and (port := present / "port").exists():
            shutil.copy2(port, restored / "port")
        files.remove_tree(before)
        if present.exists():
            _exchange(restored, present)
            restored.rename(before)
        else:
            restored.rename(present)
        files.sync_folder(self.data)
        return before

    def restored(self, part: Part) -> Path:
        """Return the folder that a part is unpacked into before the switch."""
        return self.data / f".{part.name}.restored"

    def _readable(self) -> Iterator[Manifest]:
        names = (p.name for p in self.folder.iterdir()) if self.folder.is_dir() else ()
        for name in sorted((n for n in names if ID.fullmatch(n)), reverse=True):
            try:
                yield msgspec.json.decode(
                    (self.folder / name / MANIFEST).read_bytes(), type=Manifest
                )
            except (OSError, msgspec.MsgspecError):
                continue

    def _only_one(self) -> closing[_Lock]:
        try:
            return closing(_Lock(locks.acquire(self.folder / ".lock", wait=False)))
        except BlockingIOError as error:
            raise BackupError("Another backup of this environment is in progress.") from error

    def _parts(self) -> Iterator[tuple[str, Resource | None]]:
        """Yield the folders with data, each with its resource; None for a volume."""
        for name, resource in self.document.resources.items():
            if resource.provider in BACKED_UP and (self.data / name).is_dir():
                yield name, resource
        for name in sorted({v for s in self.document.services.values() for v in s.volumes}):
            if (self.data / f"{VOLUME}{name}").is_dir():
                yield f"{VOLUME}{name}", None

    def _write(self, place: Path, name: str, resource: Resource | None) -> Part:
        """Write the archive of one part."""
        source, login, counts = self.data / name, None, dict[str, int]()
        program = resource.program if resource is not None else None
        target = place / f"{name}.tar.gz"
        with TemporaryDirectory(dir=place) as scratch, tarfile.open(target, "x:gz") as archive:
            if program is None:
                counts = _add_files(archive, source, "", Path(scratch))
            else:
                assert resource is not None
                login = servers.login_of(source)
                if login is not None:
                    _add_bytes(archive, servers.LOGIN, login.encode())
                if Path(program).name == "mongod":
                    raise BackupError(
                        f"The data of {name} (mongod) cannot be copied while it runs.",
                        hint="Use `mongodump`, or FerretDB as the server.",
                    )
                if resource.kind == "redis":
                    snapshot = Path(scratch) / "snapshot"
                    self._copy_redis(name, resource, snapshot)
                    # Redis reads a snapshot at the beginning of an append-only file.
                    archive.add(snapshot, "data/appendonly.aof")
                else:
                    counts = _add_files(archive, source / "data", "data", Path(scratch))
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
            login=login,
            counts=counts,
        )

    def _copy_redis(self, name: str, resource: Resource, to: Path) -> None:
        """Write a snapshot of a Redis. Raises BackupError.

        Source: redis.io, "Redis replication": the reply to SYNC is `$<length>`, then an RDB file.
        """
        port = int((self.data / name / "port").read_text())
        login = servers.login_of(self.data / name)
        password = password_of(self.settings, self.document, name, login)
        try:
            with (
                socket.create_connection(("127.0.0.1", port), SNAPSHOT_TIMEOUT_S) as connection,
                connection.makefile("rb") as replies,
            ):
                if password is not None:
                    connection.sendall(f"AUTH {password}\r\n".encode())
                    if replies.readline() != b"+OK\r\n":
                        raise BackupError(f"{name} refused its password.")
                connection.sendall(b"SYNC\r\n")
                while (line := replies.readline()) == b"\n":
                    pass
                if not re.fullmatch(rb"\$\d+\r\n", line):
                    raise BackupError(f"{name} sent no snapshot: {line.decode(errors='replace')}")
                left = int(line[1:])
                with to.open("xb") as file:
                    while left and (block := replies.read(min(left, _BLOCK))):
                        file.write(block)
                        left -= len(block)
                if left:
                    raise BackupError(f"The snapshot of {name} ended too early.")
        except OSError as error:
            raise BackupError(
                f"{name} cannot be read: {error}.", hint="Run `lapwing status`: is it running?"
            ) from error


class _Lock:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def close(self) -> None:
        os.close(self._descriptor)


def password_of(
    settings: Settings, document: Document, name: str, version: str | None
) -> str | None:
    """Return a version of the password of a resource. Raises SecretError."""
    if version is None:
        return None
    store = SecretStore(settings.secrets)
    return store.get(document.stack, document.environment, f"resource.{name}.password", version)


def rows(folder: Path) -> dict[str, int]:
    """Count the rows of each table of the SQLite files in a folder. Raises sqlite3.Error."""
    found: dict[str, int] = {}
    for file in sorted(p for p in folder.rglob("*") if p.is_file() and _is_sqlite(p)):
        found |= _rows(file, file.relative_to(folder).as_posix())
    return found


def _rows(file: Path, name: str) -> dict[str, int]:
    with closing(sqlite3.connect(file)) as database:
        problem = database.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if problem != "ok":
            raise sqlite3.DatabaseError(f"{name}: {problem}")
        query = "SELECT name FROM sqlite_master WHERE type = 'table' AND sql LIKE 'CREATE TABLE%'"
        tables = [row[0] for row in database.execute(query)]
        counts = {}
        for table in sorted(tables):
            quoted = '"' + table.replace('"', '""') + '"'
            count = database.execute(f"SELECT count(*) FROM {quoted}").fetchone()[0]  # noqa: S608
            counts[f"{name}:{table}"] = int(count)
        return counts


def _add_files(
    archive: tarfile.TarFile, source: Path, prefix: str, scratch: Path
) -> dict[str, int]:
    """Add a folder to an archive, SQLite files as consistent copies; return their row counts."""
    counts: dict[str, int] = {}
    copy = scratch / "copy.db"
    for path in sorted(source.rglob("*")):
        inside = path.relative_to(source).as_posix()
        name = f"{prefix}/{inside}" if prefix else inside
        ending = next((e for e in _BESIDE_SQLITE if path.name.endswith(e)), None)
        if ending and _is_sqlite(path.with_name(path.name.removesuffix(ending))):
            continue
        if path.is_file() and not path.is_symlink() and _is_sqlite(path):
            _copy_sqlite(path, copy)
            counts |= _rows(copy, name)
            information = archive.gettarinfo(copy, name)
            information.uid, information.gid = path.stat().st_uid, path.stat().st_gid
            with copy.open("rb") as stream:
                archive.addfile(information, stream)
            copy.unlink()
        elif path.is_socket():
            continue
        else:
            archive.add(path, name, recursive=False)
    return counts


def _copy_sqlite(path: Path, to: Path) -> None:
    """Copy a database that may be in use. Raises BackupError."""
    try:
        with (
            closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=60)) as source,
            closing(sqlite3.connect(to)) as target,
        ):
            source.backup(target)
            target.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error as error:
        raise BackupError(f"{path} cannot be copied: {error}.") from error


def _add_bytes(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    import io

    information = tarfile.TarInfo(name)
    information.size, information.mode = len(data), 0o600
    archive.addfile(information, io.BytesIO(data))


def _is_sqlite(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_SQLITE)) == _SQLITE
    except OSError:
        return False


def _exchange(one: Path, other: Path) -> None:
    """Exchange two folders atomically. Raises OSError. Source: renameat2(2)."""
    library = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(one), os.fsencode(other)
    if library.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(other))


def main(stack: str, environment: str) -> None:
    """Make a backup of the environment that runs, as the agent does on a schedule."""
    from lapwing.agent import state
    from lapwing.settings import read

    settings = read(dict(os.environ))
    memory = state.load(settings.environment(stack, environment))
    if memory is None or memory.document is None:
        raise BackupError(f"{stack}/{environment} is not running.")
    backups = Backups(settings, memory.document)
    made = backups.create(memory.commit)
    size = sum(p.bytes for p in made.parts)
    print(f"Backup {made.id}: {len(made.parts)} parts, {size} bytes. {backups.left_out}".rstrip())


if __name__ == "__main__":
    import sys

    try:
        main(*sys.argv[1:])
    except (BackupError, OSError) as failed:
        sys.exit(f"error: {failed}")
