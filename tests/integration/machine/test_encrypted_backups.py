"""Encrypted backups in a bucket of a real server of S3: the data is destroyed and restored."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pyrage
import pytest

from lapwing.agent import data_copies
from lapwing.agent.backups import Backups
from lapwing.desired.secrets import SecretStore
from lapwing.errors import BackupError
from lapwing.plan.model import Backup, Document
from lapwing.settings import Settings, read
from tests.buckets import ACCESS_KEY, SECRET_KEY, Bucket, bucket
from tests.command_lines import command_lines
from tests.installation import installation
from tests.unit.agent.samples import document, service

from .conftest import Yard
from .test_backups import back_up, scheduled, sell

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("encrypted-backups")]
IDENTITY = pyrage.x25519.Identity.generate()
BACKUP = """
environments:
  local:
    backup:
      every: "@MINUTE@ * * * *"
      keep: 2
      to: s3://backups/of
      endpoint: "@ENDPOINT@"
      encrypt: {recipients: [@RECIPIENT@]}
"""
VOLUMES = "    volumes: {shop: ./shop.sqlite3, uploads: ./uploads}\n"
KEYS = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    with bucket(tmp_path_factory.mktemp("bucket")) as running:
        yield running


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, server: Bucket) -> Iterator[Yard]:
    """A stack with two volumes, and encrypted backups in the bucket."""
    with installation(tmp_path_factory.mktemp("encrypted")) as where:
        yard = Yard(where)
        recipient = str(IDENTITY.to_public())
        backup = BACKUP.replace("@ENDPOINT@", server.endpoint).replace("@RECIPIENT@", recipient)
        minute = time.gmtime(time.time() - 600).tm_min  # The next time is in 50 minutes.
        yard.stack(more=backup.replace("@MINUTE@", str(minute)))
        path = where.folder / "lapwing.yaml"
        path.write_text(path.read_text().replace("route: /\n", f"route: /\n{VOLUMES}"))
        yard.write("with data")
        for name, value in KEYS.items():
            SecretStore(where.settings.secrets).set(yard.name, "local", name, value)
        where.run("up")
        yield yard


def test_destroyed_data_is_restored_with_the_identity(
    kept: Yard, server: Bucket, tmp_path: Path
) -> None:
    file = tmp_path / "identity"
    file.write_text(f"# created: today\n{IDENTITY}\n")
    wrong = tmp_path / "wrong"
    wrong.write_text(str(pyrage.x25519.Identity.generate()))
    settings = kept.where.settings
    uploads = settings.volume(kept.name, "local", "uploads", "./uploads")
    sell(kept, "a chair")
    (uploads / "a.txt").write_text("before")
    made = [back_up(kept), back_up(kept)][-1]
    (uploads / "a.txt").write_text("after")
    for name in ("volume.shop", "volume.uploads"):
        shutil.rmtree(settings.data / kept.name / "local" / name)

    restore = ("restore", "uploads", made, "--yes")
    assert "Add `--identity FILE`" in kept.where.run(*restore, status=1).stderr
    refused = kept.where.run(*restore, "--identity", str(wrong), status=1).stderr
    assert "cannot be decrypted" in refused
    assert not uploads.exists()
    kept.where.run(*restore, "--identity", str(file))
    kept.where.run("restore", "shop", "--yes", "--identity", str(file))
    assert (uploads / "a.txt").read_text() == "before"
    assert sell(kept) == ["a chair"]
    assert "ok" in kept.where.run("backup", "verify", "--identity", str(file)).stdout

    assert scheduled(kept)["outcome"] == "succeeded"
    listed = json.loads(kept.where.run("backup", "list", "--output", "json").stdout)
    assert [each["scheduled"] for each in listed] == [True, False, False]
    assert kept.status()["backup"]["newest"] == listed[0]["id"]
    names = {f"{p}.tar.gz.age" for p in ("volume.shop", "volume.uploads")} | {"manifest.json"}
    expected = {f"of/{kept.name}/local/{each['id']}/{n}" for each in listed for n in names}
    assert set(server.objects()) == expected
    texts = [p.read_bytes() for p in kept.where.home.rglob("*") if p.is_file()]
    assert not any(SECRET_KEY.encode() in t or str(IDENTITY).encode() in t for t in texts)
    assert all(SECRET_KEY not in os.fsdecode(line) for line in command_lines())


def test_backups_are_listed_by_status_without_their_server(kept: Yard, server: Bucket) -> None:
    newest = back_up(kept)
    gone = f"{server.endpoint.rpartition(':')[0]}:1"
    path = kept.where.folder / "lapwing.yaml"
    path.write_text(path.read_text().replace(server.endpoint, gone))
    kept.where.run("deploy")
    assert kept.status()["backup"]["newest"] == newest
    failed = kept.where.run("backup", "list", status=1).stderr
    assert f"s3://backups/of/{kept.name}/local cannot be used: Could not connect" in failed
    assert SECRET_KEY not in failed
    path.write_text(path.read_text().replace(gone, server.endpoint))
    kept.where.run("deploy")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    found = read({"LAPWING_HOME": str(tmp_path / "home")})
    for name, value in KEYS.items():
        SecretStore(found.secrets).set("shop", "local", name, value)
    for volume in ("a", "b"):
        folder = found.data / "shop" / "local" / f"volume.{volume}"
        folder.mkdir(parents=True)
        (folder / "file").write_text(f"text of {volume}")
    return found


def running(backup: Backup) -> Document:
    api = service("api-1", volumes={"a": "./a", "b": "./b"})
    return msgspec.structs.replace(document(api=api), backup=backup)


def test_failed_and_killed_uploads_are_no_backups(
    server: Bucket, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = Backup(to="s3://backups/broken/", endpoint=server.endpoint, keep=1)
    backups = Backups(settings, running(wanted))
    copy = data_copies.add_files

    def fail_at_b(archive: tarfile.TarFile, source: Path, *rest: object) -> dict[str, int]:
        if source.name == "volume.b":
            assert any("volume.a.tar.gz" in key for key in server.objects())
            raise OSError("the disk has an error")
        return copy(archive, source, *rest)

    monkeypatch.setattr(data_copies, "add_files", fail_at_b)
    with pytest.raises(OSError, match="the disk has an error"):
        backups.create(None, print)
    monkeypatch.undo()
    assert not any(key.startswith("broken/") for key in server.objects())

    parent = server.folder / "broken" / "shop" / "local"
    for age, name in ((2 * 86400, "20200101T000000Z"), (0, "20200102T000000Z")):
        part = parent / name / "volume.a.tar.gz"
        part.parent.mkdir(parents=True)
        part.write_bytes(b"incomplete")
        os.utime(part, (part.stat().st_mtime - age,) * 2)
    assert backups.list() == []
    made = [backups.create(None, print), backups.create(None, print)][-1]
    assert backups.list() == backups.known() == [made]
    left = {key.split("/")[3] for key in server.objects() if key.startswith("broken/")}
    assert left == {made.id, "20200102T000000Z"}


def test_missing_credentials_are_named(server: Bucket, settings: Settings) -> None:
    wanted = Backup(to="s3://backups", endpoint=server.endpoint)
    SecretStore(settings.secrets).remove("shop", "local", "AWS_SECRET_ACCESS_KEY")
    with pytest.raises(BackupError, match="s3://backups/shop/local cannot be used") as caught:
        Backups(settings, running(wanted)).list()
    assert "AWS_SECRET_ACCESS_KEY" in str(caught.value.hint)


def test_folder_gets_no_plain_data(settings: Settings, tmp_path: Path) -> None:
    recipients = (str(IDENTITY.to_public()),)
    wanted = Backup(to=str(tmp_path / "to"), recipients=recipients)
    backups = Backups(settings, running(wanted), str(IDENTITY))
    made = backups.create(None, print)
    place = tmp_path / "to" / "shop" / "local" / made.id
    assert {p.name for p in place.iterdir()} == {
        "manifest.json", "volume.a.tar.gz.age", "volume.b.tar.gz.age",
    }  # fmt: skip
    assert (place / "volume.a.tar.gz.age").read_bytes().startswith(b"age-encryption.org/v1")
    assert all(p.stat().st_mode & 0o077 == 0 for p in place.iterdir())
    assert not list(backups.data.glob(".backup.*"))
