"""Backups with the real servers: made while they run, data destroyed, restored, verified."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lapwing.agent import state
from tests.deployed import until
from tests.installation import installation
from tests.needs import require

from .conftest import Yard
from .test_resources import MORE, NEEDS, write_and_read

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("backups")]
BACKUP = """
environments:
  local:
    backup: {every: "@MINUTE@ * * * *", keep: 2, to: "@TO@"}
"""
VOLUMES = "    volumes: {shop: ./shop.sqlite3, uploads: ./uploads}\n"


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    """A stack with two databases and two volumes, and backups in a folder beside the home."""
    require("mongodb")
    require("redis")
    with installation(tmp_path_factory.mktemp("backups")) as where:
        yard = Yard(where)
        minute = time.gmtime(time.time() - 600).tm_min  # The next time is in 50 minutes.
        backup = BACKUP.replace("@TO@", str(where.home.parent / "to"))
        yard.stack(more=MORE + backup.replace("@MINUTE@", str(minute)))
        path = where.folder / "lapwing.yaml"
        text = path.read_text()
        path.write_text(text.replace("route: /\n", f"route: /\n{NEEDS}{VOLUMES}"))
        yard.write("with data")
        where.run("up")
        yield yard


def backups(yard: Yard) -> Path:
    return yard.where.home.parent / "to" / "faults" / "local"


def database(yard: Yard) -> Path:
    return yard.where.settings.volume("faults", "local", "shop", "shop.sqlite3")


def sell(yard: Yard, *names: str) -> list[str]:
    """Add sales to the SQLite volume; return all of them."""
    with contextlib.closing(sqlite3.connect(database(yard))) as shop, shop:
        shop.execute("PRAGMA journal_mode = WAL")
        shop.execute("CREATE TABLE IF NOT EXISTS sales (name TEXT)")
        shop.executemany("INSERT INTO sales VALUES (?)", [(n,) for n in names])
        return [row[0] for row in shop.execute("SELECT name FROM sales ORDER BY name")]


def pids(yard: Yard) -> list[int]:
    found: list[int] = yard.service()["active"]["pids"]
    return found


def upload(yard: Yard) -> Path:
    return yard.where.settings.volume("faults", "local", "uploads", "./uploads") / "a.txt"


def back_up(yard: Yard) -> str:
    time.sleep(1.1)  # A backup is named after its second.
    return yard.where.run("backup").stdout.strip()


def test_destroyed_data_is_restored(kept: Yard) -> None:
    """Databases and volumes are changed and removed after the backup, and are as before again."""
    write_and_read(kept, "before")
    sell(kept, "a chair", "a lamp")
    upload(kept).write_text("before")
    made = back_up(kept)
    write_and_read(kept, "after")
    sell(kept, "a table")
    upload(kept).unlink()

    kept.where.run("restore", "db", made, "--yes")
    assert write_and_read(kept) == ("before", "after")
    kept.where.run("down")
    for name in ("cache", "volume.shop", "volume.uploads"):
        shutil.rmtree(kept.where.home / "data" / "faults" / "local" / name)
    kept.where.run("restore", "cache", made, "--yes")
    kept.where.run("restore", "shop", made, "--yes")
    kept.where.run("restore", "uploads", "--yes")
    kept.where.run("up")
    assert write_and_read(kept) == ("before", "before")
    assert sell(kept) == ["a chair", "a lamp"]
    assert upload(kept).read_text() == "before"
    write_and_read(kept, "and it can be written")
    assert kept.where.run("verify").returncode == 0


def test_backup_is_private_and_says_what_it_contains(kept: Yard) -> None:
    made = back_up(kept)
    folder = backups(kept) / made
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(f.stat().st_mode) for f in folder.iterdir()} == {0o600}
    manifest = json.loads((folder / "manifest.json").read_text())
    parts = {p["name"]: p for p in manifest["parts"]}
    assert set(parts) == {"db", "cache", "volume.shop", "volume.uploads"}
    assert parts["volume.shop"]["counts"] == {"shop.sqlite3:sales": len(sell(kept))}
    [newest, *_] = kept.where.json("backup", "list")
    assert newest == manifest
    assert kept.status()["backup"]["newest"] == made
    assert f"newest {made}" in kept.where.run("status").stdout


def test_verify_starts_the_servers_on_the_restored_data(kept: Yard) -> None:
    write_and_read(kept, "verified")
    back_up(kept)
    shown = kept.where.run("backup", "verify").stdout
    assert "redis-server starts with 1 keys" in shown or "valkey-server starts" in shown
    assert "ferretdb starts" in shown or "mongod starts" in shown
    assert write_and_read(kept) == ("verified", "verified")


def test_damaged_backup_is_neither_verified_nor_restored(kept: Yard) -> None:
    made = back_up(kept)
    archive = backups(kept) / made / "cache.tar.gz"
    data = archive.read_bytes()
    archive.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    before = pids(kept)
    assert "FAILED" in kept.where.run("backup", "verify", made, status=1).stdout
    assert "is damaged" in kept.where.run("restore", "cache", made, "--yes", status=1).stderr
    assert pids(kept) == before
    shutil.rmtree(backups(kept) / made)


def test_restore_asks_before_it_replaces_data(kept: Yard) -> None:
    back_up(kept)
    before = pids(kept)
    assert "--yes" in kept.where.run("restore", "db", status=2).stderr
    assert "cach" in kept.where.run("restore", "cach", "--yes", status=2).stderr
    assert pids(kept) == before


def test_only_the_newest_backups_are_kept(kept: Yard) -> None:
    made = [back_up(kept) for _ in range(3)]
    assert sorted(p.name for p in backups(kept).iterdir() if p.name[0] != ".") == made[-2:]


def test_agent_makes_a_backup_on_schedule(kept: Yard) -> None:
    """Its time passes while no agent is running: the next agent makes the backup."""
    before = {p.name for p in backups(kept).iterdir()}
    time.sleep(1.1)
    kept.where.run("agent", "stop")
    memory = kept.memory()
    memory.schedules["@backup"].next = time.time() - 1200
    state.save(kept.environment, memory)
    kept.where.run("agent", "start")
    found = until(lambda: kept.status()["backup"]["schedule"]["last"], "the scheduled backup")
    output = kept.where.run("logs", "@backup").stdout
    assert found["outcome"] == "succeeded", output
    assert "4 parts" in output
    assert kept.status()["backup"]["newest"] not in before
