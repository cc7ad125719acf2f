"""stacks/fleetdm as its README says: it comes up, keeps its passwords, is upgraded with care."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.control_plane import Cluster
from tests.cluster.shop import Shop, volumes

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

FLEETDM = Path(__file__).parents[2] / "stacks" / "fleetdm"


def images(tag: str) -> list[str]:
    """The options that ask for a version of Fleet."""
    services = ("fleet", "vulnerabilities")
    return [part for s in services for part in ("--image", f"{s}=fleetdm/fleet:{tag}")]


def test_fleet_is_deployed_and_upgraded(cluster: Cluster, tmp_path: Path) -> None:
    volumes(cluster)
    fleet = Shop(cluster, tmp_path, "fleetdm-stack")
    fleet.folder = FLEETDM
    assert fleet.json("up")["outcome"] == "succeeded"
    made = fleet.secrets()
    assert {"mysql", "redis-master", "secret-fleet-server-private-key", "edge-tls"} <= set(made)
    assert {"secret-fleet-admin-password", "secret-fleet-enroll-secret"} <= set(made)
    found = fleet.json("status")
    assert {s["name"] for s in found["services"]} >= {"fleet", "vulnerabilities", "edge", "setup"}
    assert {r["name"] for r in found["resources"]} == {"mysql", "redis-master"}
    assert fleet.json("up")["outcome"] == "unchanged"

    refused = fleet.json("deploy", *images("pending-2"), status=1)["error"]
    assert "--allow-downtime" in refused["message"]
    assert "Nothing was changed" in refused["message"]
    assert fleet.outcomes() == [("deploy", "succeeded")]
    said = fleet.run("deploy", *images("pending-2"), "--allow-downtime")
    steps = ["stopping fleet, vulnerabilities", "backing up the database", "migrating with"]
    assert sorted(steps, key=said.index) == steps
    assert fleet.deployment("fleet")["status"]["readyReplicas"] >= 1
    back = fleet.json("rollback", status=2)["error"]
    assert "must not run with a newer schema" in back["message"]

    assert fleet.secrets() == made
    assert fleet.get("persistentvolumeclaims/fleetdm-stack-mysql-backups") is not None
    fleet.run("down", "--volumes", "--yes")
    assert fleet.json("status")["services"] == []
