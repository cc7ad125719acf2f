"""Copies of files that are in use, damaged, or unreadable."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import tarfile
from contextlib import closing
from pathlib import Path

import pytest

from lapwing.agent import data_copies
from lapwing.agent.data_copies import Tables
from lapwing.errors import BackupError
from lapwing.system.archives import extract


def copied(source: Path, to: Path) -> Tables:
    """Copy a folder by way of an archive; return its SQLite tables."""
    scratch = to.with_name("scratch")
    scratch.mkdir()
    file = to.with_name("part.tar.gz")
    with tarfile.open(file, "x:gz") as archive:
        found = data_copies.add_files(archive, source, "", scratch)
    to.mkdir()
    with tarfile.open(file) as archive:
        extract(archive, to)
    return found


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "volume"
    folder.mkdir()
    with closing(sqlite3.connect(folder / "shop.db")) as database, database:
        database.execute("CREATE TABLE sales (id INTEGER)")
        database.execute("INSERT INTO sales VALUES (1), (2)")
    return folder


def test_damaged_sqlite_file_does_not_stop_the_backup(source: Path, tmp_path: Path) -> None:
    (source / "upload.txt").write_bytes(b"SQLite format 3\0hello")
    content = (source / "shop.db").read_bytes()
    (source / "cut.db").write_bytes(content[: len(content) // 2])
    (source / "page.db").write_bytes(content[:-4096] + bytes(4096))
    damaged = ["cut.db", "page.db", "upload.txt"]
    assert copied(source, tmp_path / "copy") == Tables({"shop.db:sales": 2}, damaged)
    for name in ("upload.txt", "cut.db"):
        assert (tmp_path / "copy" / name).read_bytes() == (source / name).read_bytes()
    assert data_copies.tables(tmp_path / "copy") == Tables({"shop.db:sales": 2}, damaged)


def test_table_whose_name_is_no_text_is_damage(source: Path, tmp_path: Path) -> None:
    content = (source / "shop.db").read_bytes()
    (source / "name.db").write_bytes(
        content.replace(b"CREATE TABLE sales", b"CREATE TABLE s\xff\xfees")
    )
    assert copied(source, tmp_path / "copy").damaged == ["name.db"]


def test_database_that_needs_its_application_is_copied_without_counts(
    source: Path, tmp_path: Path
) -> None:
    with closing(sqlite3.connect(source / "shop.db")) as database, database:
        database.create_collation("DE", lambda a, b: (a > b) - (a < b))
        database.execute("CREATE TABLE names (name TEXT COLLATE DE PRIMARY KEY)")
    assert copied(source, tmp_path / "copy") == Tables()
    with closing(sqlite3.connect(tmp_path / "copy/shop.db")) as database:
        assert database.execute("SELECT count(*) FROM sales").fetchone() == (2,)


def test_locked_database_is_an_error_that_names_it(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_copies, "LOCKED_TIMEOUT_S", 0.5)
    with closing(sqlite3.connect(source / "shop.db", isolation_level=None)) as database:
        database.execute("BEGIN EXCLUSIVE")
        with pytest.raises(BackupError, match=r"shop\.db is locked by a program"):
            copied(source, tmp_path / "copy")


def test_modes_are_restored(source: Path, tmp_path: Path) -> None:
    shared = source / "shared"
    shared.mkdir()
    (shared / "file").touch()
    (shared / "file").chmod(0o664)
    shared.chmod(0o2775)
    copied(source, tmp_path / "copy")
    restored = tmp_path / "copy/shared"
    assert (restored.stat().st_mode & 0o7777, (restored / "file").stat().st_mode & 0o7777) == (
        0o2775,
        0o664,
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may create device files")
def test_device_files_are_left_out_and_reported(source: Path, tmp_path: Path) -> None:
    """A container may have made one; a restore refuses archives with devices."""
    os.mknod(source / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    (source / "link").symlink_to("/dev/null")
    assert copied(source, tmp_path / "copy") == Tables({"shop.db:sales": 2})
    assert sorted(p.name for p in (tmp_path / "copy").iterdir()) == ["link", "shop.db"]
    [found] = data_copies.devices(tmp_path, ["volume", "missing"])
    assert (found.name, found.reason) == ("volume/null", "a device file")


def test_unreadable_folder_is_an_error(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container may write files that no other user can read. The tests may run as root."""
    (source / "private").mkdir()
    scan = os.scandir

    def refuse(folder: str) -> object:
        if Path(folder).name == "private":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder)
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match="private"):
        copied(source, tmp_path / "copy")
