"""The scripts of backups on a cluster, as they are rendered, with real servers and a real bucket.

Each container of the rendered pod is run as a process with its variables, as the same user. Only
the folder, the port of the server and the address of the bucket differ. Not run here: mongod.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import socket
import subprocess
import tarfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from lapwing.kubernetes.backups import script
from tests.buckets import Bucket
from tests.cluster.control_plane import wait_until
from tests.installation import Installation, free_port
from tests.needs import require

from . import api_server
from .pods import PASSWORD, USER, Pods, as_user, serve


def test_redis_is_backed_up_to_a_bucket_and_rehearsed(
    folder: Path, objects: Bucket, redis: tuple[int, list[str]]
) -> None:
    port, client = redis
    subprocess.run([*client, "mset", "a", "1", "b", "2"], check=True, capture_output=True)
    pods = Pods(folder, "redis", "s3://backups/nightly", objects.endpoint, port)
    assert pods.list() == []
    made = pods.back_up()
    assert (made.stack, made.environment, made.scheduled) == ("shop", "production", True)
    prefix = f"nightly/shop/production/{made.id}"
    assert objects.objects() == [f"{prefix}/manifest.json", f"{prefix}/store.tar.gz"]
    assert pods.list() == [made]
    assert pods.rehearse(made) == "redis-server starts with 2 keys"


def test_redis_is_restored_exactly(
    folder: Path, objects: Bucket, redis: tuple[int, list[str]]
) -> None:
    port, client = redis

    def ask(*words: str) -> str:
        return subprocess.check_output([*client, *words], text=True).strip()

    for words in (
        ["set", "with space\nand line", 'a "value"', "EX", "1000"],
        ["rpush", "list", *map(str, range(1000))],
        ["eval", "for i = 1, 1000 do redis.call('set', 'key' .. i, i) end", "0"],
        ["-n", "3", "xadd", "stream", "1-1", "field", "value"],
    ):
        ask(*words)
    pods = Pods(folder, "redis", "s3://backups", objects.endpoint, port)
    made = pods.back_up()
    ask("set", "later", "1")
    ask("-n", "3", "del", "stream")
    ask("-n", "5", "set", "other", "1")
    ask("lpop", "list")
    for _ in range(2):  # It can be repeated.
        assert pods.load(made) == "1003 keys"
    assert ask("dbsize") == "1002"
    assert ask("get", "with space\nand line") == 'a "value"'
    assert 900 < int(ask("ttl", "with space\nand line")) <= 1000
    assert ask("llen", "list") == "1000"
    assert ask("get", "later") == ""
    assert ask("-n", "3", "xlen", "stream") == "1"
    assert ask("-n", "5", "dbsize") == "0"
    with pytest.raises(RuntimeError):
        pods.load(made, REDISCLI_AUTH="another")


def test_old_backups_and_leftovers_are_removed(
    folder: Path, objects: Bucket, redis: tuple[int, list[str]]
) -> None:
    port, _ = redis
    pods = Pods(folder, "redis", "s3://backups", objects.endpoint, port)
    made = pods.back_up()
    place = objects.folder / "shop/production"
    manifest = json.loads((place / made.id / "manifest.json").read_text())
    for day, scheduled in ((1, True), (2, True), (3, False), (4, False), (5, False)):
        old = place / f"2026010{day}T000000Z"
        shutil.copytree(place / made.id, old)
        text = json.dumps({**manifest, "id": old.name, "scheduled": scheduled}, indent=2)
        (old / "manifest.json").write_text(text)  # As a machine writes it.
    (place / "20260106T000000Z").mkdir()
    (place / "20260106T000000Z" / "store.tar.gz").write_text("of an interrupted upload")
    (place / "20260106T000000Z" / "manifest.json.1b2c.partial").write_text("of rclone")
    (place / "other").mkdir()
    (place / "other" / "file").write_text("not ours")
    wait_until(lambda: pods.back_up().id != made.id, "another second")
    kept = sorted(p.name for p in place.iterdir())
    assert made.id in kept
    assert [n for n in kept if n.startswith("2026010")] == [
        "20260103T000000Z", "20260104T000000Z", "20260105T000000Z"
    ]  # fmt: skip
    assert "other" in kept
    manual = pods.back_up(SCHEDULED="false")
    assert not manual.scheduled
    names = sorted(p.name for p in place.iterdir())
    assert [n for n in names if n.startswith("2026010")] == ["20260105T000000Z"]


def test_failed_upload_leaves_no_manifest_and_keeps_old_backups(
    folder: Path, objects: Bucket, redis: tuple[int, list[str]]
) -> None:
    port, _ = redis
    pods = Pods(folder, "redis", "s3://backups", objects.endpoint, port)
    made = pods.back_up()
    with pytest.raises(RuntimeError):
        pods.back_up(AWS_SECRET_ACCESS_KEY="another")
    with pytest.raises(RuntimeError):
        Pods(folder, "redis", "s3://backups", objects.endpoint, free_port()).back_up()
    assert pods.list() == [made]


def test_dump_is_repeated_if_its_first_connection_is_refused(
    folder: Path, redis: tuple[int, list[str]]
) -> None:
    """As in a new pod, until network policies know its address."""
    _, client = redis
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]

    def refuse_once() -> None:
        server.accept()[0].close()
        server.close()
        subprocess.run([*client, "config", "set", "port", str(port)], check=True)

    refuser = threading.Thread(target=refuse_once)
    refuser.start()
    assert Pods(folder, "redis", "pvc://nas", "", port).back_up().stack == "shop"
    refuser.join()


def test_cut_dump_is_no_backup(folder: Path, redis: tuple[int, list[str]]) -> None:
    """The connection is lost each time; what was received begins like a whole dump."""
    port, client = redis
    fill = "for i = 1, 20000 do redis.call('set', 'key' .. i, i) end"
    subprocess.run([*client, "eval", fill, "0"], check=True, capture_output=True)
    server = socket.create_server(("127.0.0.1", 0))

    def cut(one: socket.socket) -> None:
        with one, socket.create_connection(("127.0.0.1", port)) as other:
            ends, left = {one: other, other: one}, 2**16
            while left > 0:
                for source in select.select(list(ends), [], [])[0]:
                    data = source.recv(2**12)
                    left -= len(data) if source is other else 0
                    ends[source].sendall(data)

    def cut_all() -> None:
        with contextlib.suppress(OSError):  # The server is closed.
            while True:
                cut(server.accept()[0])

    threading.Thread(target=cut_all, daemon=True).start()
    with pytest.raises(RuntimeError):
        Pods(folder, "redis", "pvc://nas", "", server.getsockname()[1]).back_up()
    server.close()


def test_backups_on_a_volume(folder: Path, redis: tuple[int, list[str]]) -> None:
    port, client = redis
    subprocess.run([*client, "set", "a", "1"], check=True, capture_output=True)
    pods = Pods(folder, "redis", "pvc://nas", "", port)
    assert pods.list() == []
    made = pods.back_up()
    place = folder / "claim/shop/production" / made.id
    assert sorted(p.name for p in place.iterdir()) == ["manifest.json", "store.tar.gz"]
    assert {p.stat().st_mode & 0o777 for p in place.iterdir()} == {0o600}
    assert pods.list() == [made]
    assert pods.rehearse(made) == "redis-server starts with 1 keys"
    archive = place / "store.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-1] + b"?")
    with pytest.raises(RuntimeError, match="its SHA-256 is not that of the manifest"):
        pods.fetch(made)


def test_postgres_is_backed_up_and_rehearsed(folder: Path, objects: Bucket) -> None:
    tools = Path(require("postgres-tools"))
    port, data = free_port(), folder / "postgres"
    data.mkdir()
    shutil.chown(data, USER, USER)
    (folder / "password").write_text(PASSWORD)
    (folder / "password").chmod(0o644)
    with pytest.MonkeyPatch.context() as changed:
        changed.setenv("PATH", f"{tools}:{os.environ['PATH']}")
        changed.setenv("PGPASSWORD", PASSWORD)
        subprocess.run(
            as_user("initdb", "-D", str(data), "-U", "app", "--auth=scram-sha-256",
                    f"--pwfile={folder / 'password'}"),
            check=True, capture_output=True,
        )  # fmt: skip
        server = as_user("postgres", "-D", str(data), "-p", str(port), "-k", str(data))
        client = ["psql", "-h", "127.0.0.1", "-p", str(port), "-U", "app"]
        with serve(*server, answers=[*client, "-c", "SELECT 1", "postgres"]):
            subprocess.run([*client, "-c", "CREATE DATABASE app", "postgres"], check=True)
            sql = "CREATE TABLE bird AS SELECT 'kiwi' AS name; CREATE TABLE nest (id int)"
            subprocess.run([*client, "-c", sql, "app"], check=True)
            pods = Pods(folder, "postgres", "s3://backups", objects.endpoint, port)
            made = pods.back_up()
            sql = (
                "CREATE SCHEMA later; CREATE TABLE later.egg (id int); DROP TABLE nest; UPDATE bird"
            )
            subprocess.run([*client, "-c", f"{sql} SET name = 'emu'", "app"], check=True)
            for _ in range(2):  # It can be repeated.
                assert pods.load(made) == "2 tables"
            found = [*client, "-AtXc", "SELECT name FROM bird", "app"]
            assert subprocess.check_output(found, text=True) == "kiwi\n"
            assert "later" not in subprocess.check_output([*client, "-c", r"\dn", "app"], text=True)
            found = [*client, "-AtXc", "SELECT datname FROM pg_database ORDER BY 1", "app"]
            names = subprocess.check_output(found, text=True).split()
            assert names == ["app", "postgres", "template0", "template1"]
            pods.fetch(made)
            dump = pods.scratch / "store/dump"
            dump.write_bytes(dump.read_bytes()[:-200])
            with pytest.raises(RuntimeError):  # The present data stays if the dump is damaged.
                pods.run(pods.spec["initContainers"][0], script("load-postgres"))
            found = [*client, "-AtXc", "SELECT name FROM bird", "app"]
            assert subprocess.check_output(found, text=True) == "kiwi\n"
        [part] = made.parts
        assert (part.name, part.kind, part.image) == ("store", "postgres", "postgres:17")
        assert pods.rehearse(made) == "postgres starts with 2 tables"


def test_mysql_is_backed_up_and_rehearsed(folder: Path, objects: Bucket) -> None:
    root = Path(require("mysql-root"))
    port, data, sock = free_port(), folder / "mysql", folder / "mysql.sock"
    (folder / "run").mkdir()
    shutil.chown(folder / "run", USER, USER)
    programs = folder / "bin"
    programs.mkdir()
    loader = next(root.glob("usr/lib*/**/ld-linux-*.so*"))
    libraries = ":".join(str(p) for p in (root / "usr/lib").glob("*-linux-gnu"))
    for name in ("mysqld", "mysql", "mysqldump"):
        program = next(p for p in (root / f"usr/{d}/{name}" for d in ("bin", "sbin")) if p.exists())
        share = f"--lc-messages-dir={root}/usr/share/mysql" if name == "mysqld" else ""
        # `--no-defaults` and the like have to be the first option.
        (programs / name).write_text(
            f"#!/bin/sh\nfirst=$1; shift\nexec {loader} --library-path {libraries} {program} "
            f'"$first" {share} "$@"\n'
        )
        (programs / name).chmod(0o755)
    with pytest.MonkeyPatch.context() as changed:
        changed.setenv("PATH", f"{programs}:{os.environ['PATH']}")
        data.mkdir()
        shutil.chown(data, USER, USER)
        shared = ["--no-defaults", f"--datadir={data}", "--mysqlx=OFF"]
        subprocess.run(
            as_user("mysqld", *shared, "--initialize-insecure"), check=True, capture_output=True
        )
        sock = folder / "run" / "socket"
        server = as_user("mysqld", *shared, f"--socket={sock}", f"--port={port}",
                         "--bind-address=127.0.0.1", f"--pid-file={folder / 'run' / 'pid'}",
                         "--secure-file-priv=NULL")  # fmt: skip
        client = ["mysql", "--no-defaults", f"--socket={sock}", "--user=root"]
        with serve(*server, answers=[*client, "-e", "SELECT 1"]):
            hidden = PASSWORD.replace("\\", "\\\\").replace("'", "''")
            subprocess.run(
                client, text=True, check=True,
                input=f"CREATE DATABASE app; CREATE USER root@'%' IDENTIFIED BY '{hidden}';"
                "GRANT ALL ON *.* TO root@'%' WITH GRANT OPTION; USE app;"
                "CREATE TABLE bird (name VARCHAR(9)); INSERT INTO bird VALUES ('kiwi');"
                "CREATE VIEW named AS SELECT name FROM bird;"
                "CREATE PROCEDURE counted() SELECT COUNT(*) FROM bird;"
                "CREATE TRIGGER trimmed BEFORE INSERT ON bird FOR EACH ROW SET NEW.name = 'x';"
                f"ALTER USER root@localhost IDENTIFIED BY '{hidden}';",
            )  # fmt: skip
            pods = Pods(folder, "mysql", "s3://backups", objects.endpoint, port)
            made = pods.back_up()
            login = ["mysql", "--no-defaults", f"--socket={sock}", "--user=root", "--batch",
                     "--skip-column-names", f"--password={PASSWORD}"]  # fmt: skip
            subprocess.run(
                [*login, "app"], text=True, check=True,
                input="UPDATE bird SET name = 'emu'; DROP VIEW named; CREATE TABLE nest (id INT,"
                "PRIMARY KEY (id)); CREATE TABLE `odd ``name` (nest INT, FOREIGN KEY (nest)"
                "REFERENCES nest (id)); ALTER DATABASE app CHARACTER SET latin1;"
                "CREATE FUNCTION one() RETURNS INT DETERMINISTIC RETURN 1;",
            )  # fmt: skip
            for _ in range(2):  # It can be repeated.
                assert pods.load(made) == "1 tables"
            sql = ("SELECT * FROM named; CALL counted(); SELECT table_name FROM "
                   "information_schema.tables WHERE table_schema = 'app' ORDER BY 1; SELECT "
                   "routine_name FROM information_schema.routines WHERE routine_schema = 'app';"
                   "SELECT @@character_set_database")  # fmt: skip
            found = subprocess.check_output([*login, "app", "-e", sql], text=True)
            assert found.split() == ["kiwi", "1", "bird", "named", "counted", "latin1"]
        assert pods.rehearse(made) == "mysqld starts with 1 tables"


def test_mongodb_is_dumped_completely(folder: Path, objects: Bucket) -> None:
    """By mongodump from FerretDB, and restored by mongorestore into another."""
    program, tools = require("mongodb"), Path(require("mongo-tools"))
    if "ferretdb" not in program:
        pytest.skip("needs FerretDB, which starts without a user")
    from pymongo import MongoClient

    def server(name: str, port: int) -> contextlib.AbstractContextManager[None]:
        (folder / name).mkdir()
        ready = ["sh", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{port}"]
        return serve(
            "env", "FERRETDB_TEST_ENABLE_NEW_AUTH=true", "FERRETDB_SETUP_USERNAME=app",
            f"FERRETDB_SETUP_PASSWORD={PASSWORD}", "FERRETDB_SETUP_DATABASE=admin",
            program, "--handler=sqlite", f"--listen-addr=127.0.0.1:{port}", "--telemetry=disable",
            f"--sqlite-url=file:{folder / name}/", f"--state-dir={folder / name}", "--debug-addr=-",
            answers=["bash", *ready[1:]],
        )  # fmt: skip

    port, other = free_port(), free_port()
    login: dict[str, Any] = {"username": "app", "password": PASSWORD, "authSource": "admin"}
    with pytest.MonkeyPatch.context() as changed:
        changed.setenv("PATH", f"{tools.parent}:{os.environ['PATH']}")
        with server("one", port), server("two", other):
            with MongoClient[Any](port=port, **login) as client:
                client.app.bird.insert_many([{"n": n} for n in range(25)])
            pods = Pods(folder, "mongodb", "s3://backups", objects.endpoint, port)
            made = pods.back_up()
            pods.port = other
            with MongoClient[Any](port=other, **login) as client:
                client.app.bird.insert_many([{"n": n} for n in range(3)])
            for _ in range(2):  # It can be repeated.
                assert "25 document(s) restored successfully" in pods.load(made)
            with MongoClient[Any](port=other, **login) as client:
                assert client.app.bird.count_documents({}) == 25


def test_archive_has_one_file(folder: Path, objects: Bucket, redis: tuple[int, list[str]]) -> None:
    port, _ = redis
    pods = Pods(folder, "redis", "s3://backups", objects.endpoint, port)
    made = pods.back_up()
    with tarfile.open(objects.folder / f"shop/production/{made.id}/store.tar.gz") as archive:
        assert archive.getnames() == ["dump"]


def test_commands_make_list_and_verify_backups(
    folder: Path, objects: Bucket, redis: tuple[int, list[str]], tmp_path: Path
) -> None:
    port, client = redis
    subprocess.run([*client, "mset", "a", "1", "b", "2"], check=True, capture_output=True)
    pods = Pods(folder, "redis", "s3://backups", objects.endpoint, port)
    config = tmp_path / "kubeconfig"
    with api_server.serve(pods.process, config) as cluster:
        where = Installation(tmp_path / "here", KUBECONFIG=str(config))
        shutil.copy(folder / "lapwing.yaml", where.folder)
        missing = where.run("backup", "-e", "production", status=1)
        assert "shop/production has no backups in the cluster" in missing.stderr
        for thing in pods.objects:
            if thing["kind"] in ("CronJob", "StatefulSet"):
                cluster.add(thing)
        none = where.run("backup", "verify", "-e", "production", status=1)
        assert "There is no backup of shop/production." in none.stderr
        made = where.run("backup", "-e", "production")
        name = made.stdout.strip()
        assert f"Backed up store to s3://backups/shop/production/{name}." in made.stderr
        [listed] = where.json("backup", "list", "-e", "production", "--output", "json")
        assert (listed["id"], listed["scheduled"]) == (name, False)
        verified = where.run("backup", "verify", "-e", "production")
        assert "store (redis)" in verified.stdout
        assert "redis-server starts with 2 keys" in verified.stdout
        (objects.folder / f"shop/production/{name}/store.tar.gz").unlink()
        damaged = where.run("backup", "verify", name, "-e", "production", status=1)
        assert "store (redis)" in damaged.stdout
        left = [path for path in cluster.objects if "/jobs/" in path]
        assert left == []
        [server] = cluster.jobs[-1]["spec"]["template"]["spec"]["containers"]
        assert not [e for e in server["env"] if "valueFrom" in e]
        listing, running, *others = cluster.jobs
        for job in (listing, *others):  # Lists and restore tests, as of a colleague.
            cluster.add({**job, "status": {"active": 1}})
        where.run("backup", "-e", "production")
        cluster.add({**running, "status": {"active": 1}})
        busy = where.run("backup", "-e", "production", status=1)
        assert "Another backup of this environment is in progress." in busy.stderr


@pytest.mark.parametrize("name", ["store", "fetch", "server", "dump", "a" * 40])
def test_database_may_have_the_name_of_a_container(
    folder: Path, redis: tuple[int, list[str]], tmp_path: Path, name: str
) -> None:
    """The API server refuses a pod with two containers of one name, or a name that is too long."""
    port, _ = redis
    pods = Pods(folder, "redis", "pvc://nas", "", port, name)
    config = tmp_path / "kubeconfig"
    with api_server.serve(pods.process, config) as cluster:
        for thing in pods.objects:
            if thing["kind"] in ("CronJob", "StatefulSet"):
                cluster.add(thing)
        where = Installation(tmp_path / "here", KUBECONFIG=str(config))
        shutil.copy(folder / "lapwing.yaml", where.folder)
        where.run("backup", "-e", "production")
        verified = where.run("backup", "verify", "-e", "production")
        assert f"{name} (redis)" in verified.stdout
        assert "redis-server starts with 0 keys" in verified.stdout


def test_backup_has_the_time_before_its_first_dump(
    folder: Path, objects: Bucket, redis: tuple[int, list[str]]
) -> None:
    """Not the time of a later dump or of the upload: data written since then may be missing."""
    port, _ = redis
    pods = Pods(folder, "redis", "s3://backups", objects.endpoint, port)
    [dump] = pods.spec["initContainers"]
    pods.run(dump)
    dumped = int(time.time())
    wait_until(lambda: int(time.time()) > dumped, "another second")
    pods.run(dump)
    made = pods.store()
    assert made.created <= dumped
    assert made.id == time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(made.created))


def test_backup_succeeds_if_old_ones_cannot_be_removed(
    folder: Path, redis: tuple[int, list[str]], tmp_path: Path
) -> None:
    """As with credentials that may write, but not delete. Those that can be removed are."""
    port, _ = redis
    pods = Pods(folder, "redis", "pvc://nas", "", port)
    made = pods.back_up()
    place = folder / "claim/shop/production"
    manifest = json.loads((place / made.id / "manifest.json").read_text())
    for day in range(1, 5):
        old = place / f"2026010{day}T000000Z"
        old.mkdir()
        (old / "manifest.json").write_text(json.dumps({**manifest, "scheduled": False}))
        if day != 2:
            for path in (old, old / "manifest.json"):
                shutil.chown(path, USER, USER)
    config = tmp_path / "kubeconfig"
    with api_server.serve(pods.process, config) as cluster:
        for thing in pods.objects:
            if thing["kind"] == "CronJob":
                cluster.add(thing)
        where = Installation(tmp_path / "here", KUBECONFIG=str(config))
        shutil.copy(folder / "lapwing.yaml", where.folder)
        printed = where.run("backup", "-e", "production")
    name = printed.stdout.strip()
    assert f"/shop/production/{name}." in printed.stderr
    [warning] = [w for w in printed.stderr.splitlines() if w.startswith("Old backups")]
    assert warning.startswith("Old backups could not be removed: ")
    assert "permission denied" in warning
    kept = {p.name for p in place.iterdir()}
    assert kept == {made.id, name, "20260102T000000Z", "20260104T000000Z"}


def test_backup_without_a_readable_manifest_is_reported(
    folder: Path, redis: tuple[int, list[str]], tmp_path: Path
) -> None:
    """The log of a container may be lost, for example when its node is removed."""
    port, _ = redis
    pods = Pods(folder, "redis", "pvc://nas", "", port)
    config, lost = tmp_path / "kubeconfig", "store"

    def run(container: dict[str, Any], pod: str) -> tuple[int, str]:
        status, log = pods.process(container, pod)
        return status, "" if container["name"] == lost else f"{log}a line after it\n"

    with api_server.serve(run, config) as cluster:
        for thing in pods.objects:
            if thing["kind"] in ("CronJob", "StatefulSet"):
                cluster.add(thing)
        where = Installation(tmp_path / "here", KUBECONFIG=str(config))
        shutil.copy(folder / "lapwing.yaml", where.folder)
        failed = where.run("backup", "-e", "production", status=1)
        assert "The backup has ended, but its manifest cannot be read." in failed.stderr
        assert "Run `lapwing backup list -e production`." in failed.stderr
        lost = "server"
        made = where.run("backup", "-e", "production")
        assert (folder / "claim/shop/production" / made.stdout.strip()).is_dir()
        verified = where.run("backup", "verify", "-e", "production")
        assert "store (redis)" in verified.stdout
