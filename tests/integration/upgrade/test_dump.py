"""The scripts that back up and restore, against a real MySQL server with its own tools."""

from __future__ import annotations

import gzip
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lapwing.kubernetes.upgrade.backup import KEPT, SCRIPTS
from tests.cluster.control_plane import wait_until
from tests.installation import free_port
from tests.needs import require

PASSWORD = 'not "simple" \\ #at all'
NAME = "20260102-aaaa.sql.gz"
SCHEMA = """
CREATE TABLE hosts (id INT PRIMARY KEY, name VARCHAR(50), raw VARBINARY(40));
CREATE TABLE notes (id INT PRIMARY KEY, host INT, text TEXT,
  FOREIGN KEY (host) REFERENCES hosts (id));
CREATE VIEW named AS SELECT name FROM hosts;
CREATE TRIGGER trimmed BEFORE INSERT ON hosts FOR EACH ROW SET NEW.name = TRIM(NEW.name);
CREATE PROCEDURE counted() SELECT COUNT(*) FROM hosts;
INSERT INTO hosts VALUES (1, ' one ', x'00FF0A27'), (2, 'naïve 🐦', NULL);
INSERT INTO notes VALUES (1, 1, 'first\\nCREATE TABLE `no`');
"""
MIGRATED = "ALTER TABLE hosts DROP COLUMN raw; CREATE TABLE added (id INT); DELETE FROM notes;"


@dataclass(frozen=True)
class Server:
    """A running server with one database, `app`."""

    socket: Path
    port: int
    folder: Path

    def ask(self, text: str, database: str = "app") -> str:
        command = ["mysql", "--no-defaults", f"--socket={self.socket}", "--user=root", "--batch",
                   "--skip-column-names", "--default-character-set=utf8mb4", database]  # fmt: skip
        environ = {**os.environ, "MYSQL_PWD": PASSWORD}
        return subprocess.run(
            command, input=text, env=environ, capture_output=True, text=True, check=True
        ).stdout

    def content(self) -> str:
        tables = self.ask("SHOW FULL TABLES")
        rows = self.ask("SELECT id, name, HEX(raw) FROM hosts; SELECT * FROM notes")
        return tables + rows + self.ask("SHOW PROCEDURE STATUS WHERE db = 'app'").split("\t")[1]

    def run(self, script: str, name: str = NAME) -> subprocess.CompletedProcess[str]:
        scratch, backups = self.folder / "scratch", self.folder / "backups"
        for folder in (scratch, backups):
            folder.mkdir(exist_ok=True)
        environ = {
            "PATH": os.environ["PATH"],
            "HOST": "127.0.0.1",
            "MYSQL_TCP_PORT": str(self.port),
            "MYSQL_ROOT_PASSWORD": PASSWORD,
            "MYSQL_DATABASE": "app",
            "SCRATCH": str(scratch),
            "BACKUPS": str(backups),
            "BACKUP": name,
        }
        return subprocess.run(
            ["/bin/sh", "-c", script], env=environ, capture_output=True, text=True, check=False
        )


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    mysqld = require("mysql-tools")
    data, sock, port = tmp_path / "data", tmp_path / "s.sock", free_port()
    user = ["--user=root"] if os.geteuid() == 0 else []
    subprocess.run(
        [mysqld, "--no-defaults", "--initialize-insecure", f"--datadir={data}", *user],
        check=True,
        capture_output=True,
    )
    log = (tmp_path / "mysqld.log").open("wb")
    process = subprocess.Popen(
        [mysqld, "--no-defaults", f"--datadir={data}", f"--socket={sock}", f"--port={port}",
         "--bind-address=127.0.0.1", "--mysqlx=OFF", "--secure-file-priv=NULL",
         f"--pid-file={tmp_path / 'pid'}", *user],
        stdout=log, stderr=log,
    )  # fmt: skip
    try:
        client = ["mysql", "--no-defaults", f"--socket={sock}", "--user=root"]

        def answers() -> bool:
            assert process.poll() is None, (tmp_path / "mysqld.log").read_text()
            asked = subprocess.run([*client, "-e", "SELECT 1"], capture_output=True, check=False)
            return asked.returncode == 0

        wait_until(answers, "the server answers")
        hidden = PASSWORD.replace("\\", "\\\\").replace("'", "''")
        subprocess.run(
            client, text=True, check=True, capture_output=True,
            input=f"CREATE DATABASE app; CREATE USER root@'%' IDENTIFIED BY '{hidden}';"
            "GRANT ALL ON *.* TO root@'%' WITH GRANT OPTION;"
            f"ALTER USER root@localhost IDENTIFIED BY '{hidden}';",
        )  # fmt: skip
        made = Server(sock, port, tmp_path)
        made.ask(SCHEMA)
        yield made
    finally:
        process.terminate()
        process.wait()
        log.close()


def test_restore_replaces_the_database_with_the_backup(server: Server) -> None:
    before = server.content()
    assert "naïve" in before
    done = server.run(SCRIPTS["mysql"].back_up)
    assert (done.returncode, done.stdout) == (0, f"{NAME} has 2 tables.\n"), done.stderr
    server.ask(MIGRATED)
    assert "added" in server.ask("SHOW TABLES")
    for _ in range(2):  # An interrupted restore is done again.
        done = server.run(SCRIPTS["mysql"].restore)
        assert (done.returncode, done.stdout) == (0, "Restored 2 tables.\n"), done.stderr
        assert server.content() == before
    server.ask("INSERT INTO hosts VALUES (3, ' three ', NULL)")
    assert server.ask("SELECT name FROM hosts WHERE id = 3") == "three\n", "the trigger is back"


def test_password_is_neither_argument_nor_output(server: Server) -> None:
    for script in (SCRIPTS["mysql"].quiet, SCRIPTS["mysql"].back_up, SCRIPTS["mysql"].restore):
        done = server.run("set -x\n" + script)
        assert done.returncode == 0, done.stderr
        traced = [x for x in done.stderr.splitlines() if x.startswith(("+ mysql", "+ gzip"))]
        assert traced
        assert not [x for x in traced if "simple" in x]
        assert "simple" not in done.stdout
    hidden = server.folder / "scratch" / "client.cnf"
    assert hidden.stat().st_mode & 0o077 == 0


def test_existing_backup_is_kept_and_old_ones_removed(server: Server) -> None:
    script = SCRIPTS["mysql"].back_up
    names = [f"2026010{n}-a.sql.gz" for n in range(5)]
    for number, name in enumerate(names):
        assert server.run(script, name).returncode == 0
        os.utime(server.folder / "backups" / name, (number, number))
    there = sorted(p.name for p in (server.folder / "backups").iterdir())
    assert there == names[-(KEPT + 1) :]
    before = (server.folder / "backups" / names[-1]).read_bytes()
    server.ask("DELETE FROM notes")
    assert server.run(script, names[-1]).returncode == 0  # A Job that is tried again.
    assert (server.folder / "backups" / names[-1]).read_bytes() == before


def test_incomplete_backup_is_removed(server: Server) -> None:
    done = server.run(SCRIPTS["mysql"].back_up.replace("mysqldump --", "false --"))
    assert done.returncode == 1
    assert "mysqldump failed" in done.stdout
    cut = SCRIPTS["mysql"].back_up.replace("| gzip >", "| head -c 700 | gzip >")
    assert server.run(cut).returncode == 1
    assert [p.name for p in (server.folder / "backups").iterdir()] == [f"{NAME}.part"]
    assert server.run(SCRIPTS["mysql"].restore).returncode != 0
    assert server.run(SCRIPTS["mysql"].back_up).returncode == 0
    file = server.folder / "backups" / NAME
    file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes())[:-60]))
    before = server.content()
    done = server.run(SCRIPTS["mysql"].restore)
    assert (done.returncode, done.stdout) == (1, f"{NAME} is incomplete.\n")
    assert server.content() == before, "a restore that cannot succeed must not begin"


def test_open_connection_is_reported(server: Server) -> None:
    quiet = SCRIPTS["mysql"].quiet
    assert "No connection is left." in server.run(quiet).stdout
    environ = {**os.environ, "MYSQL_PWD": PASSWORD}
    command = ["mysql", "--no-defaults", f"--socket={server.socket}", "--user=root", "app",
               "-e", "SELECT SLEEP(600)"]  # fmt: skip
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE) as other:
        try:
            wait_until(
                lambda: "SLEEP(600)" in server.ask("SHOW FULL PROCESSLIST"), "it is connected"
            )
            done = server.run(quiet.replace("+ 120", "+ 2"))
            assert done.returncode == 1
            assert "1 connections that do not end" in done.stdout
            assert "root\tlocalhost" in done.stdout
        finally:
            other.kill()
