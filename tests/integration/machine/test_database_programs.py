"""PostgreSQL and MySQL as programs of the machine: created, kept, dumped and restored.

PostgreSQL does not run as root, so it runs in a user namespace with another user. MySQL is that of
`.ci/install-mysql`, with the libraries in that folder.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.installation import installation
from tests.needs import require

from .conftest import Yard

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("database-programs")]
MORE = "resources: {db: {kind: KIND}}\nenvironments: {local: {runtime: process}}\n"
NAMESPACE = "unshare --user --map-user=1000 --map-group=1000"


class Shop(Yard):
    """The stack. `ask` sends SQL to its database, by the URL that services get."""

    programs: Path
    kind: str

    @property
    def url(self) -> str:
        return self.get("/env?DB_URL").text

    def ask(self, sql: str, password: str | None = None) -> str:
        url = urlsplit(self.url)
        port, password = str(url.port), password or url.password or ""
        if url.scheme == "postgres":
            login = f"postgres://{url.username}:{password}@127.0.0.1:{port}{url.path}"
            command = ["psql", login, "-tA", "-v", "ON_ERROR_STOP=1", "-c", sql]
        else:
            login = [f"--user={url.username}", f"--password={password}", "--ssl-mode=PREFERRED"]
            where = ["--host=127.0.0.1", f"--port={port}", url.path.strip("/")]
            command = [
                "mysql",
                *login,
                "--batch",
                "--skip-column-names",
                *where,
                f"--execute={sql}",
            ]
        command[0] = str(self.programs / command[0])
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else done.stderr


def write_postgres(programs: Path) -> None:
    """Write the programs of PostgreSQL that Lapwing and the test run."""
    real = Path(require("postgres")).resolve().parent
    for name in ("postgres", "initdb", "pg_dump", "pg_restore", "psql"):
        prefix = NAMESPACE if name in ("postgres", "initdb") and os.geteuid() == 0 else ""
        (programs / name).write_text(f'#!/bin/sh\nexec {prefix} {real / name} "$@"\n')


def write_mysql(programs: Path) -> None:
    """Write the programs of MySQL; the first argument has to stay the first."""
    root = require("mysql-root")
    libraries = ":".join(f"{root}/usr/lib/{each}" for each in ("x86_64-linux-gnu", "mysql/private"))
    start = f"exec {root}/lib64/ld-linux-x86-64.so.2 --library-path {libraries} {root}/usr"
    server = (
        f"--basedir={root}/usr --secure-file-priv=NULL --plugin-dir={root}/usr/lib/mysql/plugin"
    )
    server += f" --lc-messages-dir={root}/usr/share/mysql"
    (programs / "mysqld").write_text(
        f'#!/bin/sh\nfirst=$1; shift\n{start}/sbin/mysqld "$first" {server} "$@"\n'
    )
    for name in ("mysql", "mysqldump"):
        (programs / name).write_text(f'#!/bin/sh\n{start}/bin/{name} "$@"\n')


@pytest.fixture(scope="module", params=["postgres", "mysql"])
def shop(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shop]:
    kind = request.param
    programs = tmp_path_factory.mktemp("programs")
    (write_postgres if kind == "postgres" else write_mysql)(programs)
    for program in programs.iterdir():
        program.chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"
    with installation(tmp_path_factory.mktemp(kind), PATH=path) as where:
        yard = Shop(where)
        yard.programs, yard.kind = programs, kind
        yard.stack(more=MORE.replace("KIND", kind))
        file = where.folder / "lapwing.yaml"
        file.write_text(file.read_text().replace("route: /\n", "route: /\n    needs: [db]\n"))
        yard.write(f"with {kind}")
        where.run("up")
        yield yard


def test_services_get_a_database_with_a_password(shop: Shop) -> None:
    url = urlsplit(shop.url)
    assert (url.username, url.path) == ("lapwing", "/faults")
    assert shop.ask("SELECT 6 * 7") == "42"
    refused = shop.ask("SELECT 6 * 7", password="wrong")
    assert "password authentication failed" in refused or "Access denied" in refused
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    assert str(url.password) not in listed.stdout
    found = [p for p in shop.where.home.rglob("*") if p.is_file() and p.stat().st_mode & 0o077]
    assert not [p for p in found if str(url.password).encode() in p.read_bytes()]


def test_data_and_password_are_kept_after_down(shop: Shop) -> None:
    shop.ask("CREATE TABLE orders AS SELECT 42 AS number")
    url = shop.url
    with socket.create_connection(("127.0.0.1", urlsplit(url).port)):
        shop.where.run("down")  # A client does not delay it until the server is killed.
    log = shop.where.run("logs", "db", "-n", "200").stdout
    assert ("received fast shutdown request" in log) is (shop.kind == "postgres")
    shop.where.run("up")
    assert shop.url == url
    assert shop.ask("SELECT number FROM orders") == "42"


def test_destroyed_database_is_restored_from_a_dump(shop: Shop) -> None:
    shop.ask("CREATE TABLE sales AS SELECT 500500 AS number")
    if shop.kind == "mysql":
        assert not shop.ask(
            "CREATE TRIGGER t BEFORE INSERT ON sales FOR EACH ROW SET NEW.number = 1"
        )
    shop.where.run("backup")
    assert shop.status()["backup"]["left_out"] == []
    assert " starts" in shop.where.run("backup", "verify").stdout
    shop.ask("DROP TABLE sales")
    shop.where.run("restore", "db", "--yes")
    assert shop.ask("SELECT number FROM sales") == "500500"
    shop.where.run("down")
    shutil.rmtree(shop.where.home / "data/faults/local/db")
    restored = shop.where.run("restore", "db", "--yes").stderr
    assert "is stopped. Start it with `lapwing deploy -e local`" in restored
    shop.where.run("up")
    assert shop.ask("SELECT number FROM sales") == "500500"


def test_creation_that_fails_is_an_error_and_leaves_no_data(shop: Shop) -> None:
    shop.where.run("down")
    data = shop.where.home / "data/faults/local/db"
    shutil.rmtree(data)
    creator = next(shop.programs.glob("initdb"), shop.programs / "mysqld")
    working = creator.read_text()
    creator.write_text("#!/bin/sh\necho no space left; exit 1\n")
    failed = shop.where.run("up", status=1).stderr
    assert "cannot create the data of db" in failed
    assert "no space left" in failed
    assert not (data / "data").exists()
    creator.write_text(working)
    shop.where.run("up")
    assert shop.ask("SELECT 6 * 7") == "42"
