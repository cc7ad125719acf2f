"""Backups with the real servers: made while they run, data destroyed, restored, verified."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lapwing.agent import state
from lapwing.desired.secrets import SecretStore
from lapwing.observed import agent
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
FAR = "postgres://shop:secret@db.example.com/shop"
VOLUMES = "    volumes: {shop: ./shop.sqlite3, uploads: ./uploads}\n"


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    """A stack with two databases and two volumes, and backups in a folder beside the home."""
    require("mongodb")
    require("redis")
    folder = tmp_path_factory.mktemp("backups")
    with installation(folder, LAPWING_RESOURCE_FAR_URL=FAR) as where:
        yard = Yard(where)
        minute = time.gmtime(time.time() - 600).tm_min  # The next time is in 50 minutes.
        backup = BACKUP.replace("@TO@", str(where.home.parent / "to"))
        yard.stack(
            more=MORE + "  far: {kind: postgres}\n" + backup.replace("@MINUTE@", str(minute))
        )
        path = where.folder / "lapwing.yaml"
        text = path.read_text()
        needs = NEEDS.replace("cache]", "cache, far]")
        path.write_text(text.replace("route: /\n", f"route: /\n{needs}{VOLUMES}"))
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
    return yard.where.run("backup").stdout.strip()


def scheduled(yard: Yard) -> dict[str, object]:
    """Let the time of a backup pass while no agent is running; return how it ended."""
    until(lambda: "@backup" in yard.memory().schedules, "the schedule")
    yard.where.run("agent", "stop")
    memory = yard.memory()
    memory.schedules["@backup"].next = time.time() - 1200
    state.save(yard.environment, memory)
    yard.where.run("agent", "start")
    last: dict[str, object] = until(lambda: yard.status()["backup"]["schedule"]["last"], "a backup")
    return last


def test_destroyed_data_is_restored(kept: Yard) -> None:
    """Databases and volumes that were changed or removed after the backup are restored."""
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


def test_backup_is_private_and_lists_its_contents(kept: Yard) -> None:
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
    [left_out] = kept.status()["backup"]["left_out"]
    assert left_out == manifest["left_out"][0]
    assert left_out["name"] == "far"
    text = kept.where.run("status").stdout
    assert f"newest {made}" in text
    assert "NOT backed up: far, at a URL" in text
    assert "NOT backed up: far, at a URL" in kept.where.run("backup", "verify").stderr


def test_old_backup_that_cannot_be_removed_is_a_warning(kept: Yard) -> None:
    require("tmpfs")
    old, _ = back_up(kept), back_up(kept)
    mounted, left = backups(kept) / old / "mounted", backups(kept) / f".{old}.removed"
    mounted.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "lapwing-test", mounted], check=True)
    try:
        made = kept.where.run("backup")
        assert f"{left} could not be removed" in kept.where.run("backup").stderr
        assert [*backups(kept).glob(".*.removed")] == [left]
    finally:
        subprocess.run(["umount", left / "mounted" if left.exists() else mounted], check=True)
    assert f"Cannot remove an old backup: {left} could not be removed." in made.stderr
    assert kept.where.json("backup", "list")[1]["id"] == made.stdout.strip()
    kept.where.run("backup")
    assert not left.exists()


def test_verify_starts_the_servers_on_the_restored_data(kept: Yard) -> None:
    write_and_read(kept, "verified")
    back_up(kept)
    shown = kept.where.run("backup", "verify").stdout
    assert "redis-server starts with 1 keys" in shown or "valkey-server starts" in shown
    assert "ferretdb starts" in shown or "mongod starts" in shown
    assert write_and_read(kept) == ("verified", "verified")


def test_review_reports_backups_that_were_never_restored_or_verified(kept: Yard) -> None:
    def reported() -> list[str]:
        found = kept.where.json("review", "-e", "local")
        return [f["evidence"] for f in found if f["rule"] == "risk/untested-backup"]

    made = back_up(kept)
    for record in (None, "restore", "verify"):
        (backups(kept) / ".rehearsed.json").unlink(missing_ok=True)
        if record == "restore":
            kept.where.run("restore", "uploads", made, "--yes")
        elif record == "verify":
            kept.where.run("backup", "verify", made)
        never = "no backup of `local` has been restored or verified yet"
        assert [never in evidence for evidence in reported()] == ([] if record else [True])


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


def test_damaged_database_is_reported_and_its_backup_not_restored(kept: Yard) -> None:
    write_and_read(kept, "whole")
    whole = back_up(kept)
    for file in kept.where.settings.data.rglob("db/data/*.sqlite"):
        pages = file.stat().st_size // 4096
        with file.open("r+b") as stream:
            stream.seek(100)
            stream.write(b"\xff" * (4096 * pages - 100))
        for beside in ("-wal", "-shm"):
            file.with_name(file.name + beside).unlink(missing_ok=True)
    made = kept.where.run("backup")
    assert "NOT backed up: db/data/" in made.stderr
    assert "a damaged SQLite file" in kept.where.run("status").stdout
    name = made.stdout.strip()
    checked = kept.where.run("backup", "verify", name, status=1).stdout
    assert "Damaged SQLite files: data/" in checked
    before = pids(kept)
    refused = kept.where.run("restore", "db", name, "--yes", status=1)
    assert "ferretdb does not start on the data" in refused.stderr
    assert pids(kept) == before
    kept.where.run("restore", "db", whole, "--yes")
    assert write_and_read(kept) == ("whole", "whole")


def test_folder_that_is_not_mounted_is_reported(kept: Yard) -> None:
    """A missing folder is an error, not an empty list of backups."""
    made = back_up(kept)
    unmounted = backups(kept).rename(kept.where.home.parent / "unmounted")
    expected = f"The folder for backups {backups(kept)} does not exist."
    assert f"Backups: {expected} Mount its file system" in kept.where.run("status").stdout
    for verb in (("backup", "list"), ("backup", "verify"), ("restore", "uploads", "--yes")):
        assert expected in kept.where.run(*verb, status=1).stderr
    unmounted.rename(backups(kept))
    assert made in kept.where.run("backup", "list").stdout


def test_folder_in_the_data_and_wrong_recipients_are_refused(kept: Yard) -> None:
    path = kept.where.folder / "lapwing.yaml"
    text, to = path.read_text(), str(kept.where.home.parent / "to")
    volume = upload(kept).parent
    path.write_text(text.replace(f'"{to}"', f'"{volume}/backups"'))
    expected = f"`to` of `backup` is {volume}/backups, which is in LAPWING_HOME"
    assert expected in kept.where.run("deploy", status=2).stderr
    assert expected in kept.where.run("check").stderr
    recipients = f'"{to}", encrypt: {{recipients: [age1qqqq]}}'
    path.write_text(text.replace(f'"{to}"', recipients))
    assert "'age1qqqq' is not a valid age recipient" in kept.where.run("deploy", status=1).stderr
    path.write_text(text)


def test_restore_asks_before_it_replaces_data(kept: Yard) -> None:
    back_up(kept)
    before = pids(kept)
    assert "--yes" in kept.where.run("restore", "db", status=2).stderr
    assert "cach" in kept.where.run("restore", "cach", "--yes", status=2).stderr
    assert pids(kept) == before


def test_restore_that_was_killed_is_reported_and_can_be_completed(kept: Yard) -> None:
    """The restore is killed after it stopped the environment."""
    write_and_read(kept, "backed up")
    made = back_up(kept)
    write_and_read(kept, "later")
    held = agent.holder(kept.where.settings.agent)
    assert held is not None
    os.kill(held, signal.SIGSTOP)
    try:
        restore = kept.where.begin("restore", "db", made, "--yes")
        until(lambda: not kept.history()[0]["services"], "the stop")
        assert kept.status()["problem"] is None
        restore.kill()
        restore.communicate()
    finally:
        os.kill(held, signal.SIGCONT)
    until(lambda: not kept.status()["running"] and not kept.status()["stopping"])
    text = kept.where.call("status").stdout
    assert f"A restore of db was interrupted, and {kept.name}/local is stopped" in text
    assert f"lapwing restore db {made} -e local" in text

    refused = kept.where.run("restore", "cache", made, "--yes", status=1).stderr
    assert "A restore of db was interrupted" in refused
    assert kept.get().status_code == 503
    kept.where.run("restore", "db", made, "--yes")
    assert write_and_read(kept) == ("backed up", "later")
    assert kept.status()["problem"] is None


def test_clients_get_the_maintenance_page_and_deployments_are_refused(kept: Yard) -> None:
    """The restore is paused while the environment is stopped."""
    made = back_up(kept)
    before = kept.history()
    held = agent.holder(kept.where.settings.agent)
    assert held is not None
    statuses: set[int] = set()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        restore = kept.where.begin("restore", "db", made, "--yes")
        client = pool.submit(lambda: _statuses_until(kept, lambda: restore.poll() is not None))
        try:
            os.kill(held, signal.SIGSTOP)
            until(lambda: not kept.history()[0]["services"], "the stop")
            restore.send_signal(signal.SIGSTOP)
            os.kill(held, signal.SIGCONT)
            until(lambda: not kept.status()["running"], "the end of all processes")
            page = kept.get()
            assert (page.status_code, page.headers["retry-after"]) == (503, "300")
            assert kept.status()["restore"] == {"name": "db", "backup": made}
            assert (
                f"db from backup {made} is being restored"
                in kept.where.run("verify", status=1).stdout
            )
            text = kept.where.call("status").stdout
            assert f"A restore of db from backup {made} is in progress" in text
            assert "Problem" not in text
            kept.write("meanwhile")
            for command in (["deploy"], ["rollback"], ["maintenance", "on"], ["down"]):
                refused = kept.where.run(*command, status=1).stderr
                assert f"A restore of db is in progress in {kept.name}/local" in refused
        finally:
            os.kill(held, signal.SIGCONT)
            restore.send_signal(signal.SIGCONT)
        restore.communicate()
        statuses = client.result()
    assert restore.returncode == 0
    assert statuses == {200, 503}
    assert kept.get().status_code == 200
    entry, *rest = kept.history()
    assert (entry["kind"], entry["outcome"], entry["services"]) == (
        "restore",
        "succeeded",
        before[0]["services"],
    )
    assert rest == before
    assert kept.status()["maintenance"] is None


def test_services_that_do_not_start_on_restored_data_stay_stopped(kept: Yard) -> None:
    bad = upload(kept).with_name("bad")
    kept.write("refuses", refuses="uploads/bad")
    kept.where.run("deploy")
    bad.write_text("")
    made = back_up(kept)
    bad.unlink()
    failed = kept.where.run("restore", "uploads", made, "--yes", status=1).stderr
    assert "The environment stays stopped, and clients get the maintenance page." in failed
    assert "keeps serving" not in failed
    assert kept.get().status_code == 503
    until(lambda: not kept.status()["running"], "the end of all processes")
    bad.unlink()
    kept.where.run("deploy", "-e", "local")
    assert kept.get().text == "refuses"


def test_restore_without_a_secret_of_a_service_stops_nothing(kept: Yard) -> None:
    """The secret was removed while the service that uses it runs."""
    path = kept.where.folder / "lapwing.yaml"
    text = path.read_text()
    path.write_text(text.replace("    route: /\n", "    route: /\n    secrets: [API_KEY]\n"))
    SecretStore(kept.where.settings.secrets).set("faults", "local", "API_KEY", "one")
    kept.where.run("deploy")
    made, before = back_up(kept), pids(kept)
    kept.where.run("secret", "remove", "API_KEY", "--yes")
    refused = kept.where.run("restore", "uploads", made, "--yes", status=1).stderr
    assert "API_KEY is not on this machine" in refused
    assert kept.get().status_code == 200
    assert pids(kept) == before
    path.write_text(text)
    kept.where.run("deploy")


def _statuses_until(yard: Yard, has_ended: Callable[[], bool]) -> set[int]:
    """The status codes that a client gets, also once after the end."""
    found = set()
    while not has_ended():
        found.add(yard.get().status_code)
        time.sleep(0.02)
    return found | {yard.get().status_code}


def test_only_the_newest_backups_are_kept(kept: Yard) -> None:
    made = [back_up(kept) for _ in range(3)]
    assert sorted(p.name for p in backups(kept).iterdir() if p.name[0] != ".") == made[-2:]


def test_agent_makes_a_backup_on_schedule(kept: Yard) -> None:
    """The time of the backup passes while no agent is running: the next agent makes it."""
    before = {p.name for p in backups(kept).iterdir()}
    found = scheduled(kept)
    output = kept.where.run("logs", "@backup").stdout
    assert found["outcome"] == "succeeded", output
    assert "4 parts" in output
    assert kept.status()["backup"]["newest"] not in before


def test_backup_of_nothing_fails(tmp_path: Path) -> None:
    """The only data is at a URL: a backup by hand fails, and so does the scheduled one."""
    with installation(tmp_path, LAPWING_RESOURCE_FAR_URL=FAR) as where:
        yard = Yard(where)
        backup = BACKUP.replace("@TO@", str(tmp_path / "to"))
        minute = str(time.gmtime(time.time() - 600).tm_min)
        more = "resources: {far: {kind: postgres}}" + backup.replace("@MINUTE@", minute)
        yard.stack(more=more)
        path = where.folder / "lapwing.yaml"
        path.write_text(path.read_text().replace("route: /\n", "route: /\n    needs: [far]\n"))
        yard.write("without data here")
        where.run("up")
        refused = where.run("backup", status=1).stderr
        assert "Nothing of faults/local can be backed up: far, at a URL" in refused
        no_log = where.run("logs", "@backup", status=1).stderr
        assert "No scheduled backup of faults/local has been made yet" in no_log
        assert scheduled(yard)["outcome"] == "failed"
        text = where.run("status").stdout
        assert "Backups: none yet" in text
        assert "NOT backed up: far, at a URL" in text
        assert "failed" in text
        assert "far, at a URL" in where.run("logs", "@backup").stdout
