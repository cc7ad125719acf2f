"""The scripts of backups on a cluster, as they are rendered, with real servers and a real bucket.

Each container of the rendered pod is run as a process with its variables, as the same user. Only
the folder, the port of the server and the address of the bucket differ. Not run here: mongod.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lapwing.agent.backup_manifest import Manifest, Part
from lapwing.kubernetes.backups import changed_container, script
from lapwing.plan.names import secret_part
from lapwing.render.kubernetes import backup, render
from lapwing.stack.load import load
from tests.buckets import ACCESS_KEY, SECRET_KEY, Bucket, bucket
from tests.cluster.control_plane import wait_until
from tests.installation import Installation, free_port
from tests.needs import require

from . import api_server

PASSWORD = 'not "simple" \\ #at all'
STACK = """\
stack: shop
services: {web: {image: "shop/web:v1", route: /, needs: [@NAME@]}}
resources: {@NAME@: {kind: @KIND@}}
environments:
  production:
    target: kubernetes
    backup: {every: daily, keep: 2, to: "@TO@", endpoint: "@ENDPOINT@"}
"""
USER = 65534
"""A user that exists here, as the user of the images exists there: initdb needs its name."""


class Pods:
    """Runs the containers of the pod of backups of a stack with one database."""

    def __init__(
        self, folder: Path, kind: str, to: str, endpoint: str, port: int, name: str = "store"
    ) -> None:
        text = STACK.replace("@KIND@", kind).replace("@TO@", to).replace("@NAME@", name)
        text = text.replace("@ENDPOINT@", endpoint) if endpoint else text.replace(
            ', endpoint: "@ENDPOINT@"', ""
        )  # fmt: skip
        (folder / "lapwing.yaml").write_text(text)
        loaded = load(folder / "lapwing.yaml", "production")
        self.objects = render.objects(render.prepare(loaded))
        [job] = [o for o in self.objects if o["kind"] == "CronJob"]
        self.spec = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        self.folder, self.port = folder, port
        self.scratch = folder / "scratch"

    def process(self, container: dict[str, Any], pod: str = "scratch") -> tuple[int, str]:
        """Run a container of a pod, and return its status and its log."""
        environ = {e["name"]: e.get("value") or self._secret(e) for e in container["env"]}
        environ |= {"SCRATCH": str(self.folder / pod), "HOME": str(self.folder / "tmp")}
        if "HOST" in environ:
            environ |= {"HOST": "127.0.0.1", "PORT": str(self.port)}
        environ["PATH"] = self._busybox() if "TARGET" in environ else os.environ["PATH"]
        environ["TARGET"] = environ.get("TARGET", "").replace(backup.CLAIM, f"{self.folder}/claim")
        for folder in (pod, "tmp", "claim"):
            (self.folder / folder).mkdir(exist_ok=True)
            shutil.chown(self.folder / folder, USER, USER)
        [_, *arguments] = container["command"]
        shell = shutil.which("sh", path=environ["PATH"])
        assert shell is not None
        done = subprocess.run(
            as_user(shell, *arguments), env=environ, text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        return done.returncode, done.stdout

    def run(self, container: dict[str, Any], command: str = "", **changed: str) -> str:
        """Run a container, with other variables or another script, and return its log."""
        status, log = self.process(changed_container(container, command, **changed))
        if status:
            raise RuntimeError(log)
        return log

    def _busybox(self) -> str:
        """A folder with the programs of the image of rclone: those of BusyBox, and rclone."""
        folder = self.folder / "image"
        if not folder.exists():
            folder.mkdir()
            for name in subprocess.check_output([require("busybox"), "--list"], text=True).split():
                (folder / name).symlink_to(require("busybox"))
            (folder / "rclone").symlink_to(require("rclone"))
        return str(folder)

    @staticmethod
    def _secret(variable: dict[str, Any]) -> str:
        name = variable["valueFrom"]["secretKeyRef"]["name"]
        keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
        values = {f"shop-{secret_part(k)}": v for k, v in keys.items()}
        return values.get(name, PASSWORD)

    def back_up(self, **changed: str) -> Manifest:
        shutil.rmtree(self.scratch, ignore_errors=True)
        [dump] = self.spec["initContainers"]
        self.run(dump)
        return self.store(**changed)

    def store(self, **changed: str) -> Manifest:
        [store] = self.spec["containers"]
        return msgspec.json.decode(self.run(store, **changed).splitlines()[-1], type=Manifest)

    def list(self) -> list[Manifest]:
        [store] = self.spec["containers"]
        lines = self.run(store, script("list")).splitlines()
        return [msgspec.json.decode(line, type=Manifest) for line in lines if line[0] == "{"]

    def fetch(self, made: Manifest) -> Part:
        shutil.rmtree(self.scratch, ignore_errors=True)
        [store], [part] = self.spec["containers"], made.parts
        self.run(store, script("fetch"), BACKUP=made.id, NAME=part.name, SHA256=part.sha256)
        return part

    def rehearse(self, made: Manifest) -> str:
        part, [dump] = self.fetch(made), self.spec["initContainers"]
        return self.run(dump, script(part.kind)).splitlines()[-1]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the user of the containers reaches."""
    require("setpriv")
    require("rclone")
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def objects(folder: Path) -> Iterator[Bucket]:
    (folder / "s3").mkdir()
    with bucket(folder / "s3") as found:
        yield found


@contextlib.contextmanager
def serve(*command: str, answers: list[str]) -> Iterator[None]:
    """Run a server until the end of the block; it has started when `answers` succeeds."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(
                lambda: subprocess.run(answers, capture_output=True, check=False).returncode == 0,
                command[0],
            )
            yield
        finally:
            process.terminate()


def as_user(*command: str) -> list[str]:
    return [require("setpriv"), f"--reuid={USER}", f"--regid={USER}", "--clear-groups", *command]


@pytest.fixture
def redis(folder: Path) -> Iterator[tuple[int, list[str]]]:
    require("redis")
    port, data = free_port(), folder / "redis"
    data.mkdir()
    quoted = json.dumps(PASSWORD)
    (data / "conf").write_text(f"port {port}\ndir {data}\nrequirepass {quoted}\n")
    client = ["redis-cli", "-p", str(port), "-a", PASSWORD, "--no-auth-warning"]
    with serve("redis-server", str(data / "conf"), answers=[*client, "ping"]):
        yield port, client


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
    config = folder / "config"
    config.write_text(f"password: {json.dumps(PASSWORD)}\n")
    with pytest.MonkeyPatch.context() as changed:
        changed.setenv("PATH", f"{tools.parent}:{os.environ['PATH']}")
        with server("one", port), server("two", other):
            with MongoClient[Any](port=port, **login) as client:
                client.app.bird.insert_many([{"n": n} for n in range(25)])
            pods = Pods(folder, "mongodb", "s3://backups", objects.endpoint, port)
            made = pods.back_up()
            part = pods.fetch(made)
            dump = pods.scratch / part.name / "dump"
            subprocess.run(
                ["mongorestore", f"--config={config}", "--username=app", f"--port={other}",
                 "--nsExclude=admin.*", f"--archive={dump}"],
                check=True, capture_output=True,
            )  # fmt: skip
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
        refused = where.run("restore", "store", "-e", "production", status=2)
        assert "`lapwing backup verify -e production`" in refused.stderr
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
