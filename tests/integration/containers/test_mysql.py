"""MySQL in a container: created with its user, password and database, dumped and restored."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from lapwing.agent.processes import Owner
from lapwing.agent.resources import launches
from tests import database_images
from tests.deployed import Deployed
from tests.installation import Installation, installation
from tests.integration.image.docker import Docker

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("containers")]
STACK = """\
stack: shop
services:
  web: {build: ./web, static: ., route: /, rollout: {analysis: false}}
resources:
  db: {kind: mysql, image: "mysql:9", resources: {memory: 512Mi}}
"""


class Shop(Deployed):
    """The stack. `ask` sends SQL to its database with the login that services get."""

    def __init__(self, where: Installation, docker: Docker) -> None:
        super().__init__(where, "shop")
        self.docker = docker

    @property
    def container(self) -> str:
        return self.docker("ps", "-q", "--filter", "name=lapwing-shop-local-db")

    def ask(self, sql: str) -> str:
        found, settings = self.memory(), self.where.settings
        assert found.document is not None
        resource, owner = found.document.resources["db"], Owner("shop", "local", "db", "resource")
        url = urlsplit(
            launches.url(owner, resource, found.resources["db"], settings, on_machine=True)
        )
        login = ["-e", f"MYSQL_PWD={url.password}", self.container, "mysql", f"-u{url.username}"]
        options = ["--host=127.0.0.1", "--batch", "--skip-column-names", url.path.strip("/")]
        return self.docker("exec", *login, *options, "-e", sql)


@pytest.fixture(scope="module")
def shop(docker: Docker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    root = tmp_path_factory.mktemp("mysql")
    database_images.mysql(root).load(docker, "mysql:9")
    with installation(root, **docker.environ) as where:
        where.write({"lapwing.yaml": STACK, "web/index.html": "<p>shop</p>"})
        where.run("up")
        yield Shop(where, docker)


def test_database_is_created_with_settings_for_its_memory(shop: Shop) -> None:
    assert shop.ask("SELECT USER(), DATABASE()").startswith("lapwing@")
    assert shop.ask("SELECT @@innodb_buffer_pool_size, @@max_connections") == f"{256 * 2**20}\t64"


def test_files_of_large_sorts_are_on_the_disk(shop: Shop, docker: Docker) -> None:
    """ALTER TABLE fails if they do not fit in /tmp, which has 256 MiB of memory."""
    folder = shop.ask("SELECT @@tmpdir")
    shown = docker("exec", shop.container, "/bin/busybox", "df", "-P", "/tmp", folder)
    systems = [line.split()[0] for line in shown.splitlines()[1:]]
    assert [system == "tmpfs" for system in systems] == [True, False]


def test_passwords_are_only_in_private_files(shop: Shop, docker: Docker) -> None:
    secrets = shop.where.home / "data/shop/local/db/secrets"
    inspected = docker("inspect", shop.container)
    for name in ("password", "root-password"):
        assert stat.S_IMODE((secrets / name).stat().st_mode) == 0o600
        assert (secrets / name).read_text() not in inspected
    assert json.loads(inspected)[0]["HostConfig"]["Memory"] == 512 * 2**20


def test_destroyed_database_is_restored_from_a_dump(shop: Shop) -> None:
    shop.ask("CREATE TABLE sales (number INT); INSERT INTO sales VALUES (40), (2)")
    shop.ask("CREATE VIEW totals AS SELECT SUM(number) AS total FROM sales")
    shop.where.run("backup")
    assert shop.status()["backup"]["left_out"] == []
    assert "mysql:9 starts" in shop.where.run("backup", "verify").stdout
    shop.ask("DROP TABLE sales")
    shop.where.run("restore", "db", "--yes")
    assert shop.ask("SELECT total FROM totals") == "42"


def test_data_is_kept_after_down(shop: Shop) -> None:
    shop.ask("CREATE TABLE kept (number INT); INSERT INTO kept VALUES (7)")
    shop.where.run("down")
    shop.where.run("up")
    assert shop.ask("SELECT number FROM kept") == "7"
