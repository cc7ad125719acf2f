"""Stores and clients for the tests: a fresh SQLite file, and a fresh database on a MongoDB server.

The server is the one that LAPWING_RESOURCE_DB_URL or DB_URL names, or else a mongod or FerretDB
from the PATH, started for these tests on a free port. Without any, those tests are skipped.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from api import create_app
from flask import Flask
from flask.testing import FlaskClient
from pymongo import MongoClient
from pymongo.errors import PyMongoError
from store import Store, open_store


@pytest.fixture(scope="session")
def mongo_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a MongoDB server, without a database name."""
    for name in ("LAPWING_RESOURCE_DB_URL", "DB_URL"):
        if os.environ.get(name, "").startswith("mongodb"):
            yield os.environ[name]
            return
    program = shutil.which("mongod") or shutil.which("ferretdb")
    if not program:
        pytest.skip("needs a MongoDB server: set DB_URL, or put mongod or ferretdb on the PATH")
    folder = tmp_path_factory.mktemp("mongo")
    port = free_port()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, *_arguments(program, folder, port)], cwd=folder, stdout=log, stderr=log
        )
    url = f"mongodb://127.0.0.1:{port}"
    try:
        _wait(url, process, folder / "log")
        yield url
    finally:
        process.terminate()
        process.wait(20)


def free_port() -> int:
    """A port that nothing listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _arguments(program: str, folder: Path, port: int) -> list[str]:
    if Path(program).name == "mongod":
        return [f"--dbpath={folder}", f"--port={port}", "--bind_ip=127.0.0.1"]
    return [
        "--handler=sqlite",
        f"--sqlite-url=file:{folder}/",
        f"--state-dir={folder}",
        f"--listen-addr=127.0.0.1:{port}",
        "--debug-addr=-",
        "--telemetry=disable",
    ]


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    with MongoClient[dict[str, object]](url, serverSelectionTimeoutMS=500) as client:
        while True:
            try:
                client.admin.command("ping")
                return
            except PyMongoError:
                if process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"the MongoDB server did not start: {log.read_text()[-2000:]}")


@pytest.fixture(params=["embedded", "mongodb"])
def db_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty store of either kind, not migrated yet."""
    if request.param == "embedded":
        yield f"embedded://{tmp_path}/db"
        return
    server: str = request.getfixturevalue("mongo_server")
    name = f"test-{secrets.token_hex(6)}"
    base, _, options = server.partition("?")
    host = base.split("://", 1)[1].split("/")[0]
    yield f"mongodb://{host}/{name}" + (f"?{options}" if options else "")
    with MongoClient[dict[str, object]](server) as client:
        client.drop_database(name)


@pytest.fixture
def compares(db_url: str) -> bool:
    """Whether the server looks for a document and writes it in one step. FerretDB 1 does so in two
    (internal/handler/msg_update.go, updateDocument of 1.24): of two writers both may win."""
    if not db_url.startswith("mongodb"):
        return True
    with MongoClient[dict[str, object]](db_url) as client:
        return "ferretdbVersion" not in client.server_info()


@pytest.fixture
def store(db_url: str) -> Iterator[Store]:
    """An empty, migrated store of either kind."""
    store = open_store(db_url)
    store.migrate()
    yield store
    store.close()


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Flask]:
    """The application on an empty embedded store."""
    url = f"embedded://{tmp_path}/db"
    prepared = open_store(url)
    prepared.migrate()
    prepared.close()
    app = create_app({"DB_URL": url, "SESSION_KEY": "test", "LAPWING_RELEASE": "api-test"})
    yield app
    app.extensions["store"].close()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A client of the application, without a server."""
    return app.test_client()
