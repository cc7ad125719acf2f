"""What backups leave out and how they report it; data from before a killed restore."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec
import pytest

from lapwing.agent import restores
from lapwing.agent.backups import Backups
from lapwing.agent.restores import Restores, Restoring
from lapwing.agent.scratch_folders import UNPACK, scratch_folder
from lapwing.errors import BackupError
from lapwing.plan.model import Backup, Document, Resource
from lapwing.settings import Settings, read
from tests.unit.agent.samples import document, service

DATABASES = {
    "carts": Resource(kind="postgres", provider="url", variable="CARTS_URL"),
    "docs": Resource(
        kind="mongodb", provider="binary", program="/usr/bin/mongod", variable="DOCS_URL"
    ),
}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return read({"LAPWING_HOME": str(tmp_path / "home")})


def with_resources(**volumes: str) -> Document:
    running = document(api=service("api-1", volumes=volumes))
    return msgspec.structs.replace(running, resources=DATABASES)


@pytest.fixture(autouse=True)
def without_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tools of MongoDB are not installed."""
    monkeypatch.setenv("PATH", "/nowhere")


def test_databases_that_cannot_be_copied_are_left_out_with_a_reason(settings: Settings) -> None:
    backups = Backups(settings, with_resources(uploads="./uploads"))
    volume = backups.data / "volume.uploads"
    volume.mkdir(parents=True)
    (volume / "a.txt").write_text("kept")
    made = backups.create(None, print)
    assert [p.name for p in made.parts] == ["volume.uploads"]
    carts, docs = made.left_out
    assert (carts.name, docs.name) == ("carts", "docs")
    assert carts.reason == "at a URL: back it up where it runs"
    assert docs.reason.endswith("without mongodump: install the MongoDB Database Tools")
    assert backups.left_out(backups.find(None)) == [carts, docs]


def test_backup_without_any_part_is_an_error(settings: Settings) -> None:
    with pytest.raises(BackupError, match=r"Nothing of shop/local can be backed up: carts, at a"):
        Backups(settings, with_resources()).create(None, print)
    assert not (settings.home / "backups").exists()


def test_volume_added_after_the_newest_backup_is_left_out_of_it(settings: Settings) -> None:
    before = Backups(settings, with_resources(uploads="./uploads"))
    for name in ("uploads", "media"):
        (before.data / f"volume.{name}").mkdir(parents=True)
    made = before.create(None, print)
    now = Backups(settings, with_resources(uploads="./uploads", media="./media"))
    assert [(p.name, p.reason) for p in now.left_out(made)][2:] == [
        ("volume.media", "added after the newest backup")
    ]


def to_folder(to: Path) -> Document:
    return msgspec.structs.replace(
        with_resources(uploads="./uploads"), backup=Backup(keep=1, to=str(to))
    )


def test_folder_of_an_unmounted_file_system_is_not_created(
    settings: Settings, tmp_path: Path
) -> None:
    """Neither before the first backup, nor when its backups are missing."""
    mounted = tmp_path / "disk"
    backups = Backups(settings, to_folder(mounted / "backups"))
    (backups.data / "volume.uploads").mkdir(parents=True)
    with pytest.raises(BackupError, match=f"{mounted} does not exist") as caught:
        backups.create(None, print)
    assert f"`mkdir -p {mounted}`" in str(caught.value.hint)
    mounted.mkdir()
    backups.create(None, print)
    mounted.rename(tmp_path / "unmounted")
    mounted.mkdir()
    with pytest.raises(BackupError, match=f"{backups.store.work} does not exist"):
        backups.create(None, print)
    for read_ in (backups.list, backups.known, lambda: backups.find(None)):
        with pytest.raises(BackupError, match=f"{backups.store.work} does not exist") as caught:
            read_()
        assert "Mount its file system" in str(caught.value.hint)
    assert list(mounted.iterdir()) == []
    backups.store.work.mkdir(parents=True)
    assert backups.create(None, print) in backups.list()


def test_folder_that_is_a_file_is_an_error(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    backups = Backups(settings, to_folder(tmp_path / "file"))
    (backups.data / "volume.uploads").mkdir(parents=True)
    with pytest.raises(BackupError, match=f"{tmp_path}/file/shop/local cannot be used: Not a dir"):
        backups.create(None, print)


def test_backups_made_by_hand_do_not_remove_scheduled_ones(
    settings: Settings, tmp_path: Path
) -> None:
    backups = Backups(settings, to_folder(tmp_path / "to"))
    (backups.data / "volume.uploads").mkdir(parents=True)
    scheduled = backups.create(None, print, scheduled=True)
    backups.create(None, print)
    newest = backups.create(None, print)
    assert backups.list() == [newest, scheduled]


def test_damaged_manifest_of_the_newest_backup_is_an_error(settings: Settings) -> None:
    backups = Backups(settings, with_resources(uploads="./uploads"))
    (backups.data / "volume.uploads").mkdir(parents=True)
    old, new = backups.create(None, print), backups.create(None, print)
    (backups.store.work / new.id / "manifest.json").write_text("{")
    for name in (None, new.id):
        with pytest.raises(BackupError, match=f"manifest of backup {new.id} in .* is damaged"):
            backups.find(name)
    assert backups.find(old.id) == old


class Killed(BaseException):
    """Raised where a restore is killed."""


@pytest.mark.parametrize("when", ["before", "after"])
def test_data_before_a_killed_restore_is_kept(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """The restore is killed before or after the exchange of the folders, and run again."""
    backups = Backups(settings, with_resources(uploads="./uploads"))
    volume = backups.data / "volume.uploads"
    volume.mkdir(parents=True)
    (volume / "a.txt").write_text("backed up")
    made = backups.create(None, print)
    [part] = made.parts
    (volume / "a.txt").write_text("before the restore")
    restores_of = Restores(backups)
    restoring = Restoring(
        name=part.name, backup=made.id, commit=None, head=None, inode=restores.inode(volume)
    )

    def killed(one: Path, other: Path) -> None:
        if when == "after":
            exchange(one, other)
        raise Killed

    exchange = restores._exchange
    monkeypatch.setattr(restores, "_exchange", killed)
    for expected in (Killed, None):
        restores_of.unpack(made, part, restores_of.unpacked(part))
        with pytest.raises(Killed) if expected else contextlib.nullcontext():
            restores_of.switch(part, restores_of.unpacked(part), restoring)
        monkeypatch.undo()
        kept = [f.read_text() for f in backups.data.rglob("a.txt")]
        assert "before the restore" in kept
    assert (volume / "a.txt").read_text() == "backed up"
    assert (restores_of.before(part) / "a.txt").read_text() == "before the restore"
    assert not restores_of.unpacked(part).exists()


def test_decrypted_data_of_a_killed_restore_is_removed(settings: Settings) -> None:
    """Not the folder of a restore that is in progress."""
    backups = Backups(settings, with_resources(uploads="./uploads"))
    (backups.data / "volume.uploads").mkdir(parents=True)
    killed = [backups.data / f".{kind}.abc" for kind in ("unpack", "verify")]

    def leave() -> None:
        for folder in killed:
            folder.mkdir()
            (folder / "archive").write_text("decrypted")

    leave()
    with scratch_folder(backups.data, UNPACK) as present:
        assert not any(folder.exists() for folder in killed)
        leave()
        backups.create(None, print)
        assert not any(folder.exists() for folder in killed)
        assert present.exists()
    assert not present.exists()
