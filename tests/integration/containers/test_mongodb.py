"""MongoDB in a container: created with its user and its password, dumped and restored.

The image has FerretDB instead of mongod, and the tools of MongoDB.
"""

from __future__ import annotations

import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from lapwing.agent.processes import Owner
from lapwing.agent.resources import launches
from tests import database_images
from tests.backup_archives import cut_dump
from tests.deployed import Deployed
from tests.installation import installation
from tests.integration.image.docker import Docker

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("containers")]
STACK = """\
stack: shop
services:
  web: {build: ./web, static: ., route: /, rollout: {analysis: false}}
resources:
  db: {kind: mongodb}
"""
NUMBERS = range(1000)


class Shop(Deployed):
    """The stack. `client` uses its database by the URL that services get."""

    def client(self) -> MongoClient[Any]:
        found, settings = self.memory(), self.where.settings
        assert found.document is not None
        resource, owner = found.document.resources["db"], Owner("shop", "local", "db", "resource")
        url = launches.url(owner, resource, found.resources["db"], settings, on_machine=True)
        return MongoClient(url, serverSelectionTimeoutMS=20000)

    def sell(self) -> None:
        with self.client() as client:
            client.shop.sales.insert_many([{"number": n} for n in NUMBERS])
            client.stock.chairs.insert_one({"name": "a chair"})

    def sold(self) -> tuple[int, int]:
        with self.client() as client:
            found = [s["number"] for s in client.shop.sales.find()]
            return sum(found), client.stock.chairs.count_documents({})

    def destroy(self) -> None:
        with self.client() as client:
            client.shop.sales.drop()
            client.stock.chairs.drop()


@pytest.fixture(scope="module")
def shop(docker: Docker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    root = tmp_path_factory.mktemp("mongodb")
    database_images.mongodb(root).load(docker, "mongo:8")
    with installation(root, **docker.environ) as where:
        where.write({"lapwing.yaml": STACK, "web/index.html": "<p>shop</p>"})
        where.run("up")
        made = Shop(where, "shop")
        made.sell()
        yield made


def test_password_is_only_in_a_private_file(shop: Shop, docker: Docker) -> None:
    file = shop.where.home / "data/shop/local/db/secrets/password"
    [container] = docker("ps", "-q").split()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text() not in docker("inspect", container)


def test_destroyed_databases_are_restored_from_a_dump(shop: Shop, docker: Docker) -> None:
    """A second container verifies and restores all databases of the server."""
    shop.where.run("backup")
    assert shop.status()["backup"]["left_out"] == []
    assert "mongo:8 starts" in shop.where.run("backup", "verify").stdout
    assert len(docker("ps", "--all", "-q").split()) == 1
    expected = (sum(NUMBERS), 1)
    shop.destroy()
    shop.where.run("restore", "db", "--yes")
    assert shop.sold() == expected
    shop.where.run("down")
    shutil.rmtree(shop.where.home / "data/shop/local/db")
    shop.where.run("restore", "db", "--yes")
    shop.where.run("up")
    assert shop.sold() == expected


def test_dump_that_cannot_be_loaded_changes_nothing(shop: Shop, tmp_path: Path) -> None:
    made = shop.where.run("backup").stdout.strip()
    folder = shop.where.home / "backups/shop/local" / made
    cut_dump(folder, tmp_path)
    before = shop.sold()
    assert "Failed: " in shop.where.run("restore", "db", "--yes", status=1).stderr
    assert "FAILED" in shop.where.run("backup", "verify", status=1).stdout
    assert shop.sold() == before
    shutil.rmtree(folder)
