"""Backups of mongod as a program. FerretDB is used instead, without a password like mongod."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from tests.installation import installation
from tests.needs import require

from .conftest import Yard

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("backups")]
MONGOD = """\
#!/bin/sh
for word; do
  case $before in --dbpath) data=$word ;; --port) port=$word ;; esac
  before=$word
done
exec @FERRETDB@ --handler=sqlite --sqlite-url="file:$data/" --state-dir="$data" \
  --listen-addr="127.0.0.1:$port" --telemetry=disable --debug-addr=-
"""
MORE = "resources: {db: {kind: mongodb}}\n"


class Shop(Yard):
    """The stack; its database has sales in one database and chairs in another."""

    def client(self) -> MongoClient[Any]:
        url = self.get("/env?DB_URL").text
        return MongoClient(url, serverSelectionTimeoutMS=20000)

    def counts(self) -> tuple[int, int]:
        with self.client() as client:
            return client.faults.sales.count_documents({}), client.stock.chairs.count_documents({})


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    server = require("mongodb")
    require("mongo-tools")
    if Path(server).name != "ferretdb":
        pytest.skip("needs FerretDB")
    programs = tmp_path_factory.mktemp("programs")
    mongod = programs / "mongod"
    mongod.write_text(MONGOD.replace("@FERRETDB@", server))
    mongod.chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"
    with installation(tmp_path_factory.mktemp("mongod"), PATH=path) as where:
        yard = Shop(where)
        yard.stack(more=MORE)
        file = where.folder / "lapwing.yaml"
        file.write_text(file.read_text().replace("route: /\n", "route: /\n    needs: [db]\n"))
        yard.write("with mongod")
        where.run("up")
        with yard.client() as client:
            client.faults.sales.insert_many([{"number": n} for n in range(500)])
            client.stock.chairs.insert_one({"name": "a chair"})
        yield yard


def test_destroyed_databases_are_restored_from_a_dump(shop: Shop) -> None:
    shop.where.run("backup")
    assert shop.status()["backup"]["left_out"] == []
    assert "mongod starts" in shop.where.run("backup", "verify").stdout
    with shop.client() as client:
        client.drop_database("faults")
        client.stock.chairs.drop()
    shop.where.run("restore", "db", "--yes")
    assert shop.counts() == (500, 1)
    shop.where.run("down")
    shutil.rmtree(shop.where.home / "data/faults/local/db")
    shop.where.run("restore", "db", "--yes")
    shop.where.run("up")
    assert shop.counts() == (500, 1)


def test_dump_that_cannot_be_loaded_changes_nothing(shop: Shop) -> None:
    """The tool fails: a damaged dump would be refused before, by its checksum."""
    broken = shop.where.home.parent / "broken"
    broken.mkdir()
    tool = broken / "mongorestore"
    tool.write_text("#!/bin/sh\necho 'Failed: corrupt' >&2; exit 1\n")
    tool.chmod(0o755)
    made = shop.where.run("backup").stdout.strip()
    path = shop.where.environ["PATH"]
    shop.where.environ["PATH"] = f"{broken}:{path}"
    refused = shop.where.run("restore", "db", made, "--yes", status=1).stderr
    assert "db cannot be restored: Failed: corrupt" in refused
    shop.where.environ["PATH"] = path
    assert shop.counts() == (500, 1)
