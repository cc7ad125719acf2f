"""FleetDM on a real node, as the stack of this repository has it: MySQL and Redis are real servers.

Their backups are in a volume of the cluster. A script takes the place of Fleet
(`tests.fleet_program`).
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from lapwing.plan import server_images
from lapwing.render.kubernetes import backup
from lapwing.render.kubernetes.analysis import CURL
from tests import database_images, fleet_program
from tests.cluster import node_images, node_volumes
from tests.cluster.node import Node
from tests.cluster.node_cache import redis
from tests.cluster.node_stack import NodeStack
from tests.needs import require
from tests.registries import Server

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800), pytest.mark.xdist_group("node")]

STACK = Path(__file__).parents[2] / "stacks" / "fleetdm"
MYSQL, REDIS = "fleetdm-stack-mysql", "fleetdm-stack-redis-master"
MIB = 2**20


class Fleet(NodeStack):
    """The stack in its environment `kind`."""

    environment = "kind"

    def __init__(self, root: Path, node: Node, registry: Server, environ: dict[str, str]) -> None:
        super().__init__(root, node, registry, environ, "fleetdm-stack")
        self.host = "localhost"
        text = (STACK / "lapwing.yaml").read_text()
        backed_up = "  kind:\n    backup: {every: daily, to: pvc://backups}\n"
        (self.folder / "lapwing.yaml").write_text(text.replace("  kind:\n", backed_up))

    def ask(self, sql: str) -> str:
        """Send SQL with the login that Fleet gets, when MySQL is ready."""
        login = ["-h", self.address_of(f"{MYSQL}-0"), "-u", "app", "-BN", "app"]
        environ = {"MYSQL_PWD": self.secret(MYSQL, "password"), "PATH": os.environ["PATH"]}
        call = ["chroot", require("mysql-root"), "mysql", *login, "-e", sql]
        return subprocess.run(
            call, env=environ, check=True, capture_output=True, text=True
        ).stdout.strip()

    def version(self) -> str:
        """What Fleet responds at `/version`, through the edge."""
        target = self.edge()
        client = httpx.Client(verify=False, trust_env=False, timeout=30)
        with client:
            response = client.get(
                f"https://{target.address}/version",
                headers={"host": self.host},
                extensions={"sni_hostname": self.host},
            )
        assert response.status_code == 200
        return response.text.strip()

    def add_claim(self) -> None:
        """Add the volume claim of the backups."""
        spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        claim = {"kind": "PersistentVolumeClaim", "metadata": {"name": "backups"}, "spec": spec}
        path = f"/api/v1/namespaces/{self.namespace}/persistentvolumeclaims"
        self.node.cluster.call("POST", path, {"apiVersion": "v1", **claim})

    def restarts(self) -> dict[str, int]:
        """How often containers of the databases were started again."""
        found = {}
        for name in (MYSQL, REDIS):
            [container] = self.get(f"pods/{name}-0")["status"]["containerStatuses"]
            found[name] = container["restartCount"]
        return found


@pytest.fixture
def fleet(
    node: Node, registry: Server, tmp_path: Path, packages: dict[str, str]
) -> Iterator[Fleet]:
    mysql = server_images.reference("mysql", None, "8.4")
    node_images.push_database(registry, database_images.mysql(tmp_path), mysql)
    image = server_images.reference("redis", None, "7")
    node_images.push_database(registry, database_images.redis(tmp_path), image)
    push_fleet(registry, tmp_path, "v4.93.0", 1)
    push_fleet(registry, tmp_path, "v4.94.0", 2)
    node_images.push_curl(registry, tmp_path, CURL)
    node_images.push_rclone(registry, tmp_path, backup.IMAGE)
    # Two databases, the backups, the backup of an upgrade, and one for each Job.
    node_volumes.add(node, "fleet", 24)
    made = Fleet(tmp_path, node, registry, packages)
    yield made
    made.call("down", "-e", "kind", "--volumes", "--yes")


def push_fleet(registry: Server, folder: Path, version: str, needed: int) -> None:
    """Push a version of Fleet that needs a version of the schema."""
    archive = fleet_program.archive(folder, version, needed)
    settings = {"Env": [f"PATH={fleet_program.PATH}"]}
    node_images.push_archive(registry, archive, f"fleetdm/fleet:{version}", settings)


def test_databases_of_fleet_start_keep_their_data_and_are_upgraded(fleet: Fleet) -> None:
    fleet.run("up", "-e", "kind", "--yes")
    assert fleet.version() == "v4.93.0 schema 1"
    settings = fleet.ask("SELECT @@innodb_buffer_pool_size, @@max_connections, @@tmpdir")
    assert settings == f"{640 * MIB}\t151\t/var/lib/mysql/.tmp"
    assert redis(fleet, "CONFIG", "GET", "maxmemory", pod=f"{REDIS}-0").split() == [
        "maxmemory", str(192 * MIB)
    ]  # fmt: skip
    fleet.ask("CREATE TABLE hosts (name TEXT); INSERT INTO hosts VALUES ('laptop')")
    fleet.ask("ALTER TABLE hosts ADD INDEX (name(9)), ALGORITHM=INPLACE")
    assert redis(fleet, "SET", "query", "17", pod=f"{REDIS}-0") == "OK"
    assert fleet.restarts() == {MYSQL: 0, REDIS: 0}

    for database in (MYSQL, REDIS):
        fleet.replace(f"{database}-0")
    assert fleet.ask("SELECT name FROM hosts") == "laptop"
    assert redis(fleet, "GET", "query", pod=f"{REDIS}-0") == "17"

    images = [f"--image={s}=fleetdm/fleet:v4.94.0" for s in ("fleet", "vulnerabilities")]
    said = fleet.run("deploy", "-e", "kind", "--yes", "--allow-downtime", *images).stderr
    assert "backing up the database" in said
    assert fleet.version() == "v4.94.0 schema 2"
    assert fleet.ask("SELECT name FROM hosts") == "laptop"
    assert fleet.restarts() == {MYSQL: 0, REDIS: 0}

    fleet.add_claim()
    made = fleet.run("backup", "-e", "kind", "--yes").stdout.strip()
    fleet.run("backup", "verify", "-e", "kind", "--yes")
    fleet.ask("DROP TABLE hosts; CREATE TABLE later (name TEXT)")
    assert redis(fleet, "FLUSHALL", pod=f"{REDIS}-0") == "OK"
    for database in ("mysql", "redis-master"):
        fleet.run("restore", database, made, "-e", "kind", "--yes")
    assert fleet.ask("SHOW TABLES LIKE 'later'") == ""
    assert fleet.ask("SELECT name FROM hosts") == "laptop"
    assert redis(fleet, "GET", "query", pod=f"{REDIS}-0") == "17"
    assert fleet.version() == "v4.94.0 schema 2"
    assert fleet.restarts() == {MYSQL: 0, REDIS: 0}
