"""The inventory contains what is rendered, and nothing else."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from lapwing.inventory.kubernetes import from_kubernetes, quantity
from lapwing.inventory.model import (
    Disk,
    Flow,
    Inventory,
    LoadBalancer,
    ManagedService,
    Nat,
    Peering,
    Requests,
    Rollout,
    Route,
)
from lapwing.inventory.read import read
from lapwing.inventory.terraform import from_terraform
from lapwing.stack.load import environments

GOLDEN = Path(__file__).parents[2] / "golden"
GIB = 2**30


def objects(case: str, environment: str) -> list[dict[str, Any]]:
    folder = GOLDEN / "kubernetes" / case / "expected" / environment
    return [o for f in sorted(folder.glob("*.yaml")) for o in yaml.safe_load_all(f.read_text())]


def terraform(case: str, root: str) -> list[dict[str, Any]]:
    folder = GOLDEN / "infra" / case / "expected" / root
    return [json.loads(file.read_text()) for file in sorted(folder.glob("*.tf.json"))]


@pytest.mark.parametrize(
    ("text", "value"),
    [("250m", "0.25"), ("2", "2"), (1.5, "1.5"), ("512Mi", 2**29), ("1Gi", 2**30), ("5k", "5000")],
)
def test_quantities_are_parsed(text: Any, value: Any) -> None:
    assert quantity(text) == Decimal(value)


def test_pods_have_replicas_requests_and_second_slot() -> None:
    found = {p.name: p for p in from_kubernetes(objects("company-inc", "production")).pods}
    api = found["company-inc-api"]
    assert (api.kind, api.component, api.min, api.max) == ("Rollout", "web", 2, 3)
    assert api.requests.cpu == Decimal("0.25")
    assert api.requests.memory == 512 * 2**20
    assert api.second_slot_s == 600 + 30  # `keep_old` and the window of the analysis
    edge = found["company-inc-edge"]
    assert (edge.kind, edge.min, edge.max, edge.second_slot_s) == ("Deployment", 2, 3, 0)


def test_every_workload_is_in_the_inventory() -> None:
    for folder in sorted((GOLDEN / "kubernetes").glob("*/expected/*")):
        trees = objects(folder.parents[1].name, folder.name)
        kinds = ("Deployment", "Rollout", "StatefulSet", "Job", "CronJob")
        workloads = [t["metadata"]["name"] for t in trees if t["kind"] in kinds]
        found = from_kubernetes(trees)
        assert [p.name for p in found.pods] == workloads
        assert all(p.requests.cpu and p.requests.memory for p in found.pods)
        ports = [p for t in trees if t["kind"] == "Service" for p in t["spec"]["ports"]]
        assert len(found.endpoints) == len(ports)


def test_init_container_counts_if_it_requests_more() -> None:
    def container(cpu: str) -> dict[str, Any]:
        return {"image": "example/app:1", "resources": {"requests": {"cpu": cpu}}}

    pod = {"containers": [container("1"), container("500m")], "initContainers": [container("2")]}
    job = {
        "kind": "Job",
        "metadata": {"name": "j"},
        "spec": {"template": {"spec": pod}},
    }
    [pods] = from_kubernetes([job]).pods
    assert pods.requests == Requests(cpu=Decimal(2))


def test_volume_claims_are_disks() -> None:
    found = from_kubernetes(objects("fleet", "kind"))
    assert found.disks
    assert all(isinstance(disk, Disk) and disk.size >= 2**30 for disk in found.disks)


def test_ingress_and_gateway_are_load_balancers() -> None:
    balancers = {
        environment.name: from_kubernetes(
            objects("ingress-and-gateway", environment.name)
        ).load_balancers
        for environment in (GOLDEN / "kubernetes/ingress-and-gateway/expected").iterdir()
    }
    assert all(len(found) == 1 and found[0].hosts for found in balancers.values())


def test_terraform_root_of_an_environment() -> None:
    found = from_terraform(terraform("company-inc", "production"))
    [cluster] = found.clusters
    assert (cluster.name, cluster.autopilot) == ("company-inc", True)
    assert found.nats == (Nat("main", cluster.region, 1),)
    assert found.load_balancers == (
        LoadBalancer(
            "edge", 2, ("app.company.example",), ("static-production",), Decimal("1.0"), "1.2"
        ),
    )
    [database] = found.databases
    assert (database.name, database.tier, database.max_tier) == ("production-db", "M10", "M30")
    assert database.regions[0][1] == 3
    assert database.backup
    assert [endpoint.name for endpoint in found.endpoints] == ["mongodb-production-db"]
    assert len(found.secrets) == 2


def test_databases_of_google_cloud_are_those_that_terraform_creates() -> None:
    path = GOLDEN / "infra/managed/lapwing.yaml"
    found = {e.name: e.facts.managed for e in read(environments(path, folders=False)).environments}
    managed = {m.part: m for m in found["production"]}
    assert managed["db"] == ManagedService(
        "db", "postgres", 4, 10 * GIB, 50 * GIB, True, "Cloud SQL", True, 7, "17", True
    )
    assert managed["sessions"].backup, "the standby of MySQL needs the binary log"
    assert managed["cache"] == ManagedService(
        "cache", "redis", 0, 2 * GIB, 0, False, "Memorystore", True, 0, "7.2", True
    )
    [sessions] = found["staging"]
    assert (sessions.part, sessions.standby, sessions.backup) == ("sessions", False, False)


def test_service_uses_the_databases_whose_url_its_pods_get() -> None:
    """Also where two databases are of one kind, and so have the same ports and the same range."""
    path = GOLDEN / "infra/managed/lapwing.yaml"
    found = {e.name: e for e in read(environments(path, folders=False)).environments}
    uses = {p.part: p.uses for p in found["production"].facts.pods}
    assert uses["api"] == ("db", "sessions", "cache")
    assert uses["report"] == ("archive", "notes")
    flows = set(found["production"].facts.flows)
    assert Flow("report", "10.40.0.0/20", "5432") in flows
    assert Flow("report", "internet", "27015-27017") in flows
    assert {p.part: p.uses for p in found["staging"].facts.pods}["report"] == ("notes",)


def test_range_of_databases_is_a_fact_of_the_project() -> None:
    path = GOLDEN / "infra/managed/lapwing.yaml"
    for project in read(environments(path, folders=False)).projects:
        assert project.facts.peerings == (Peering("services", "10.40.0.0/20"),)


def test_terraform_root_of_shared_resources() -> None:
    found = from_terraform(terraform("company-inc", "shared"))
    registry = "us-central1-docker.pkg.dev/company-inc-shared/images"
    assert (found.registries, found.zones) == ((registry,), ("app.company.example",))
    stacks = environments(GOLDEN / "infra/company-inc/lapwing.yaml", folders=False)
    assert {each.registry for each in stacks} == {registry}
    assert not found.clusters


def test_inventories_are_added() -> None:
    one = from_terraform(terraform("company-inc", "shared"))
    other = from_kubernetes(objects("company-inc", "production"))
    both = one + other
    assert both.pods == other.pods
    assert both.registries == one.registries
    assert Inventory() + both == both


def test_network_has_ranges_rules_policies_and_routes() -> None:
    project = from_terraform(terraform("company-inc", "production"))
    [subnet] = project.subnets
    assert (subnet.cidr, dict(subnet.secondary)["pods"]) == ("10.10.0.0/20", "10.20.0.0/14")
    assert project.clusters[0].control_plane == "172.16.0.0/28"
    rules = {r.name: r for r in project.firewall}
    assert (rules["deny-in"].allows, rules["deny-in"].ports) == (False, "all")
    assert rules["allow-out-https"].ports == "tcp 443"
    assert "35.191.0.0/16" in rules["allow-in-load-balancer"].ranges
    facts = from_kubernetes(objects("company-inc", "production"))
    assert facts.closed == ("Ingress", "Egress")
    assert facts.pod_security == ("restricted",)
    assert facts.routes == (Route("/api", "api"), Route("/", "web"))
    assert Flow("api", "10.10.0.0/20", "27015-27017") in facts.flows
    assert Flow("35.191.0.0/16", "edge", "web") in facts.flows


def test_rollout_has_the_checks_before_and_after_the_switch() -> None:
    found = {p.part: p.rollout for p in from_kubernetes(objects("company-inc", "production")).pods}
    assert found["api"] == Rollout(
        smoke_tests=3, window_s=30, max_error_rate=Decimal("0.01"), max_p95_s=Decimal("0.5"),
        keep_s=600,
    )  # fmt: skip
    assert found["edge"] is None
