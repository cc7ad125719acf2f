"""Databases and caches, with the real servers: started, kept, started again, their data kept."""

from __future__ import annotations

import os
import signal
import socket
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest

from lapwing.agent import processes, state
from lapwing.agent.processes import Identity
from tests.command_lines import command_lines
from tests.deployed import until
from tests.installation import installation
from tests.needs import require

from .conftest import Yard

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("resources")]
MORE = """
resources:
  db: {kind: mongodb}
  cache: {kind: redis}
"""
NEEDS = """    needs: [db, cache]
    env: {AT: "${cache.host}:${cache.port}", HERE: "${HOME} of ${db.database}"}
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    """A stack with a MongoDB-protocol server and a Redis."""
    require("mongodb")
    require("redis")
    with installation(tmp_path_factory.mktemp("resources")) as where:
        yard = Yard(where)
        yard.stack(more=MORE)
        path = where.folder / "lapwing.yaml"
        text = path.read_text()
        path.write_text(text.replace("route: /\n", f"route: /\n{NEEDS}"))
        yard.write("with a database")
        where.run("up")
        yield yard


def pid_of(yard: Yard, name: str) -> int:
    """The process of a resource's server; 0 if there is none."""
    memory = state.load(yard.environment)
    record = memory.resources.get(name) if memory else None
    running = record and processes.alive(Identity(record.pid, record.started))
    return record.pid if record and running else 0


def write_and_read(yard: Yard, text: str | None = None) -> tuple[str, str]:
    """What the two servers remember, after they were told a text."""
    import pymongo

    mongo = pymongo.MongoClient(yard.get("/env?DB_URL").text, serverSelectionTimeoutMS=20000)
    documents = mongo.get_default_database("faults").texts
    if text is not None:
        documents.insert_one({"text": text})
        redis(yard, "SET", "text", text)
    newest = documents.find_one(sort=[("_id", -1)])
    mongo.close()
    return str(newest and newest["text"]), redis(yard, "GET", "text")


def redis(yard: Yard, *words: str) -> str:
    """One command to the Redis, by its own protocol."""
    url = urllib.parse.urlsplit(yard.get("/env?CACHE_URL").text)
    with socket.create_connection((url.hostname, url.port), 10) as connection:
        connection.sendall(f"AUTH {url.password}\r\n".encode())
        file = connection.makefile("rb")
        assert file.readline() == b"+OK\r\n"
        connection.sendall(" ".join(words).encode() + b"\r\n")
        first = file.readline().decode().strip()
        return file.readline().decode().strip() if first.startswith("$") else first


def test_service_gets_resource_url_parts(served: Yard) -> None:
    url = served.get("/env?CACHE_URL").text
    assert url.rpartition("@")[2].split("/")[0] == served.get("/env?AT").text
    assert served.get("/env?HERE").text == "${HOME} of faults"


def test_service_gets_resource_urls_and_data_survives_down(served: Yard) -> None:
    assert write_and_read(served, "remember") == ("remember", "remember")
    served.where.run("down")
    assert pid_of(served, "db") == 0
    assert pid_of(served, "cache") == 0
    served.where.run("up")
    assert write_and_read(served) == ("remember", "remember")


def test_server_refuses_users_without_its_password(served: Yard) -> None:
    import pymongo

    url = urllib.parse.urlsplit(served.get("/env?DB_URL").text)
    mongo = pymongo.MongoClient(url.hostname, url.port, serverSelectionTimeoutMS=20000)
    with mongo, pytest.raises(pymongo.errors.OperationFailure, match="requires authentication"):
        mongo.faults.texts.find_one()
    cache = urllib.parse.urlsplit(served.get("/env?CACHE_URL").text)
    with socket.create_connection((cache.hostname, cache.port), 10) as connection:
        connection.sendall(b"GET text\r\n")
        assert connection.recv(100).startswith(b"-NOAUTH")


def test_password_is_readable_by_its_user_only(served: Yard) -> None:
    """It is in no argument, no log and no status, and in files of mode 0600 only."""
    urls = [served.get(f"/env?{name}").text for name in ("DB_URL", "CACHE_URL")]
    passwords = [(urllib.parse.urlsplit(u).password or "").encode() for u in urls]
    assert all(len(p) == 32 for p in passwords)
    lists = command_lines()
    holders = []
    for path in served.where.home.rglob("*"):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            if any(p in content for p in passwords):
                holders.append((path.name, path.stat().st_mode & 0o777))
    assert not any(p in text for p in passwords for text in lists)
    assert holders == [("server.conf", 0o600)]


def test_data_without_a_password_stays_usable(served: Yard) -> None:
    """As an earlier version left it: services keep a URL that has none."""
    write_and_read(served, "old")
    served.where.run("down")
    folders = [f.parent for f in served.where.home.glob("data/*/*/*/login")]
    assert len(folders) == 2
    [cache] = [f for f in folders if f.name == "cache"]
    (cache / "login").rename(cache / "kept")
    served.where.run("up")
    assert "@" not in served.get("/env?CACHE_URL").text
    served.where.run("down")
    (cache / "kept").rename(cache / "login")
    served.where.run("up")
    assert write_and_read(served) == ("old", "old")


@pytest.mark.parametrize("name", ["db", "cache"])
def test_killed_server_is_restarted(served: Yard, name: str) -> None:
    write_and_read(served, "kept")
    victim = pid_of(served, name)
    assert victim
    os.kill(victim, signal.SIGKILL)
    until(lambda: pid_of(served, name) not in (0, victim))
    until(lambda: all(r["running"] for r in served.status()["resources"]))
    assert write_and_read(served) == ("kept", "kept")


def test_servers_survive_the_agent(served: Yard) -> None:
    before = pid_of(served, "db"), pid_of(served, "cache")
    served.where.run("agent", "stop")
    served.where.run("agent", "start")
    assert (pid_of(served, "db"), pid_of(served, "cache")) == before


def test_resource_without_a_server_is_reported(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "git").symlink_to("/usr/bin/git")
    with installation(tmp_path, PATH=str(tools)) as where:
        yard = Yard(where)
        yard.stack(more="resources: {db: {kind: mysql}}")
        path = where.folder / "lapwing.yaml"
        path.write_text(path.read_text().replace("route: /\n", "route: /\n    needs: [db]\n"))
        yard.write("homeless")
        said = where.run("up", status=1).stderr
        assert "No mysql server for resource db was found on this machine" in said
        assert "LAPWING_RESOURCE_DB_URL" in said
