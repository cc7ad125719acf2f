"""PostgreSQL in a container: created with its user, its password and its database, and kept.

The image has this machine's server, and an entrypoint that does what that of the official image
does for data that is new.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lapwing.agent.processes import Owner
from lapwing.agent.resources import launches
from tests.backup_archives import cut_dump
from tests.deployed import Deployed
from tests.installation import installation
from tests.integration.image.docker import Docker, write_base
from tests.needs import require

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("containers")]
# Source: docker-entrypoint.sh and Dockerfile in docker-library/postgres.
ENTRYPOINT = """\
#!/bin/sh
set -e
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  mkdir -p "$PGDATA"
  initdb -D "$PGDATA" --username="$POSTGRES_USER" --pwfile="$POSTGRES_PASSWORD_FILE" \
    --auth=scram-sha-256
  echo "CREATE DATABASE \\"$POSTGRES_DB\\"" | postgres --single -D "$PGDATA" postgres
  echo "listen_addresses = '*'" >> "$PGDATA/postgresql.conf"
  echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
fi
exec "$@"
"""
STACK = """\
stack: shop
services:
  web: {build: ./web, static: ., route: /, rollout: {analysis: false}}
resources:
  db: {kind: postgres, image: "@IMAGE@"}
"""


class Shop(Deployed):
    """The stack. `ask` sends SQL to its database by the URL that services get."""

    def write(self, image: str) -> None:
        stack = STACK.replace("@IMAGE@", image)
        self.where.write({"lapwing.yaml": stack, "web/index.html": "<p>shop</p>"})

    def ask(self, sql: str) -> str:
        found, settings = self.memory(), self.where.settings
        assert found.document is not None
        resource, owner = found.document.resources["db"], Owner("shop", "local", "db", "resource")
        url = launches.url(owner, resource, found.resources["db"], settings, on_machine=True)
        psql = Path(require("postgres")).resolve().with_name("psql")
        arguments = [psql, url, "-tA", "-v", "ON_ERROR_STOP=1", "-c", sql]
        return subprocess.run(arguments, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def shop(docker: Docker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    root = tmp_path_factory.mktemp("postgres")
    import_postgres(docker, root)
    with installation(root, **docker.environ) as where:
        made = Shop(where, "shop")
        made.write("postgres:15")
        where.run("up")
        yield made


def import_postgres(docker: Docker, folder: Path) -> None:
    """Make the image `postgres:15`."""
    entrypoint, users = folder / "docker-entrypoint.sh", folder / "passwd"
    entrypoint.write_text(ENTRYPOINT)
    entrypoint.chmod(0o755)
    users.write_text("postgres:x:999:999::/var/lib/postgresql:/bin/sh\n")
    programs = Path(require("postgres")).resolve().parent
    names = ("postgres", "initdb", "pg_dump", "pg_restore")
    places = [*(programs / name for name in names), Path("/usr/share/zoneinfo/UTC")]
    places += [programs.parent / "lib" / f"{n}.so" for n in ("plpgsql", "dict_snowball")]
    share = Path("/usr/share/postgresql", programs.parent.name)
    places += [path for path in share.rglob("*") if path.is_file()]
    files = {str(path).lstrip("/"): path for path in places}
    files |= {"usr/local/bin/docker-entrypoint.sh": entrypoint, "etc/passwd": users}
    write_base(folder / "postgres.tar", files, ("sh", "mkdir", "cat"))
    changes = [f"ENV PATH=/usr/local/bin:{programs}", 'ENTRYPOINT ["docker-entrypoint.sh"]']
    options = [f"--change={change}" for change in [*changes, 'CMD ["postgres"]']]
    docker("import", *options, str(folder / "postgres.tar"), "postgres:15")


def test_database_is_created_with_settings_for_its_memory(shop: Shop) -> None:
    assert shop.ask("SELECT current_user || ' ' || current_database()") == "lapwing shop"
    assert shop.ask("SHOW shared_buffers") == "128MB"


def test_data_is_kept_after_down(shop: Shop) -> None:
    shop.ask("CREATE TABLE orders AS SELECT 42 AS number")
    shop.where.run("down")
    shop.where.run("up")
    assert shop.ask("SELECT number FROM orders") == "42"


def test_destroyed_database_is_restored_from_a_dump(shop: Shop, docker: Docker) -> None:
    """A second container verifies and restores it; the data from before the restore is kept."""
    shop.ask("CREATE TABLE sales AS SELECT generate_series(1, 1000) AS number")
    shop.where.run("backup")
    assert shop.status()["backup"]["left_out"] == []
    assert "postgres:15 starts" in shop.where.run("backup", "verify").stdout
    assert len(docker("ps", "--all", "-q").split()) == 1
    shop.ask("DROP TABLE sales")
    shop.where.run("restore", "db", "--yes")
    assert shop.ask("SELECT sum(number) FROM sales") == "500500"
    shop.where.run("down")
    shutil.rmtree(shop.where.home / "data/shop/local/db")
    shop.where.run("restore", "db", "--yes")
    shop.where.run("up")
    assert shop.ask("SELECT sum(number) FROM sales") == "500500"
    shop.ask("INSERT INTO sales VALUES (0)")


def test_dump_that_cannot_be_loaded_changes_nothing(
    shop: Shop, docker: Docker, tmp_path: Path
) -> None:
    made = shop.where.run("backup").stdout.strip()
    folder = shop.where.home / "backups/shop/local" / made
    cut_dump(folder, tmp_path)
    before = docker("ps", "--all", "-q")
    assert "pg_restore: error" in shop.where.run("restore", "db", "--yes", status=1).stderr
    assert "FAILED" in shop.where.run("backup", "verify", status=1).stdout
    assert docker("ps", "--all", "-q") == before
    assert not [*(shop.where.home / "data/shop/local").glob(".db.restored")]
    shutil.rmtree(folder)


def test_other_major_version_is_refused(shop: Shop) -> None:
    shop.write("postgres:16")
    done = shop.where.run("deploy", status=1)
    assert "was created by postgres:15" in done.stderr
    shop.write("postgres:15")
