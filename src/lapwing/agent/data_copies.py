"""Copy data of each kind consistently while its program keeps running.

Redis sends a snapshot, as it does to a replica; SQLite files, also those of FerretDB, are copied by
SQLite's backup API; other files are copied one after the other. Other databases are dumped
(`resources/dumps.py`, `resources/program_dumps.py`), or left out, with the reason.
"""

from __future__ import annotations

import os
import re
import socket
import sqlite3
import tarfile
import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from lapwing.agent.resources import program_dumps
from lapwing.errors import BackupError
from lapwing.observed.status import LeftOut
from lapwing.plan.model import Resource

SNAPSHOT_TIMEOUT_S = 600.0
LOCKED_TIMEOUT_S = 60.0
"""How long a SQLite file may be locked until its backup fails."""
_SQLITE = b"SQLite format 3\0"
_BESIDE_SQLITE = ("-wal", "-shm", "-journal")
_BLOCK = 1024 * 1024
_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' AND sql LIKE 'CREATE TABLE%'"
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def reason_left_out(resource: Resource) -> str | None:
    """Return why a database cannot be copied, and what to use instead; None if it can be."""
    if resource.provider == "url":
        return "at a URL: back it up where it runs"
    program = resource.program
    if program is not None and program_dumps.runs(resource):
        tool, package = program_dumps.missing(program), program_dumps.package(program)
        if tool is not None:
            return f"{Path(program).name} cannot be copied without {tool}: install {package}"
    return None


@dataclass(slots=True)
class Tables:
    """The SQLite files of a folder: `counts` are the rows by file and table.

    A file that is `damaged`, or that needs functions of its application, has no counts.
    """

    counts: dict[str, int] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)

    def examine(self, file: Path, name: str) -> None:
        """Add a file, by a name."""
        try:
            counts = _rows(file, name)
        except sqlite3.DatabaseError as error:
            counts = None if _is_damage(error) else {}
        if counts is None:
            self.damaged.append(name)
        self.counts |= counts or {}


def add_files(archive: tarfile.TarFile, source: Path, prefix: str, scratch: Path) -> Tables:
    """Add a folder to an archive, SQLite files as consistent copies; return what these contain.

    A damaged SQLite file is copied like any other file. Devices, and files that are removed during
    the copy, are skipped. Raises BackupError, OSError.
    """
    found = Tables()
    copy = scratch / "copy.db"
    for path in _below(source):
        name = f"{prefix}{path.relative_to(source).as_posix()}"
        ending = next((e for e in _BESIDE_SQLITE if path.name.endswith(e)), None)
        if (
            path.is_socket()
            or _is_device(path)
            or (ending and _is_sqlite(path.with_name(path.name.removesuffix(ending))))
        ):
            continue
        try:
            is_sqlite = _is_sqlite(path)
            if is_sqlite and _copy_sqlite(path, copy):
                found.examine(copy, name)
                information = archive.gettarinfo(copy, name)
                status = path.stat()
                information.uid, information.gid = status.st_uid, status.st_gid
                information.mode = status.st_mode & 0o7777
                with copy.open("rb") as stream:
                    archive.addfile(information, stream)
                copy.unlink()
            else:
                archive.add(path, name, recursive=False)
                found.damaged += [name] if is_sqlite else []
        except FileNotFoundError:
            continue
    return found


def devices(data: Path, parts: Iterable[str]) -> list[LeftOut]:
    """Return the device files below the folders of these parts: a restore would refuse them."""
    return [
        LeftOut(name=path.relative_to(data).as_posix(), reason="a device file")
        for part in parts
        if (data / part).is_dir()
        for path in _below(data / part)
        if _is_device(path)
    ]


def _is_device(path: Path) -> bool:
    return not path.is_symlink() and (path.is_block_device() or path.is_char_device())


def _below(folder: Path) -> list[Path]:
    """Return everything below a folder, in order. Raises OSError if a folder cannot be read.

    `Path.rglob` leaves such a folder out without an error.
    """

    def fail(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    found: list[Path] = []
    for parent, folders, names in os.walk(folder, onerror=fail):
        found += [Path(parent, name) for name in (*folders, *names)]
    return sorted(found)


def copy_redis(name: str, environment: str, port: int, password: str | None, to: Path) -> None:
    """Write a snapshot of a Redis server on this machine. Raises BackupError.

    Source: redis.io, "Redis replication": the reply to SYNC is `$<length>`, then an RDB file.
    """
    try:
        with (
            socket.create_connection(("127.0.0.1", port), SNAPSHOT_TIMEOUT_S) as connection,
            connection.makefile("rb") as replies,
        ):
            if password is not None:
                connection.sendall(f"AUTH {password}\r\n".encode())
                if replies.readline() != b"+OK\r\n":
                    raise BackupError(f"{name} rejected its password.")
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
            f"{name} cannot be read: {error}.",
            hint=f"Check that {name} is running: `lapwing status -e {environment}`.",
        ) from error


def tables(folder: Path) -> Tables:
    """Examine the SQLite files in a folder."""
    found = Tables()
    for file in sorted(p for p in folder.rglob("*") if _is_sqlite(p)):
        found.examine(file, file.relative_to(folder).as_posix())
    return found


def _rows(file: Path, name: str) -> dict[str, int] | None:
    """Count the rows of each table; None if the file is damaged. Raises sqlite3.DatabaseError."""
    with closing(sqlite3.connect(file)) as database:
        if database.execute("PRAGMA integrity_check(1)").fetchone()[0] != "ok":
            return None
        counts = {}
        for table in sorted(row[0] for row in database.execute(_TABLES)):
            quoted = '"' + table.replace('"', '""') + '"'
            query = f"SELECT count(*) FROM {quoted}"  # noqa: S608 - the name is quoted
            counts[f"{name}:{table}"] = int(database.execute(query).fetchone()[0])
        return counts


def _copy_sqlite(path: Path, to: Path) -> bool:
    """Copy a database that may be in use; return False if the file is damaged.

    Raises BackupError if it stays locked.
    """
    until = time.monotonic() + LOCKED_TIMEOUT_S

    def check(status: int, _remaining: int, _total: int) -> None:
        """Called after each attempt: Python repeats it without end while the file is locked."""
        if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) and time.monotonic() > until:
            raise BackupError(
                f"{path} is locked by a program.",
                hint="Let it close the database, or not use `locking_mode=EXCLUSIVE`.",
            )

    try:
        with (
            closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(to)) as target,
        ):
            source.backup(target, progress=check)
            target.execute("PRAGMA journal_mode = DELETE")
        return True
    except (sqlite3.Error, BackupError) as error:
        to.unlink(missing_ok=True)
        if isinstance(error, BackupError):
            raise
        if _is_damage(error):
            return False
        raise BackupError(f"{path} cannot be copied: {error}.") from error


def _is_damage(error: sqlite3.Error) -> bool:
    """Return whether a file is damaged: Python has no code for text that is not UTF-8."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF in _DAMAGED


def _is_sqlite(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return file.read(len(_SQLITE)) == _SQLITE
    except OSError:
        return False
