"""Read the inventory of Terraform resources, as `lapwing infra` renders them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any

from lapwing.inventory.model import Cluster, Database, Endpoint, Inventory, LoadBalancer, Nat

Body = Mapping[str, Any]
_PROXY = re.compile(r"\$\{google_compute_target_https?_proxy\.")
_GIB = 2**30


def from_terraform(documents: Iterable[Body]) -> Inventory:
    """Read the facts of the files of one Terraform root, each parsed from JSON."""
    found: dict[str, dict[str, Body]] = {}
    for document in documents:
        for kind, bodies in document.get("resource", {}).items():
            found.setdefault(kind, {}).update(bodies)

    def each(kind: str) -> list[Body]:
        return list(found.get(kind, {}).values())

    return Inventory(
        load_balancers=tuple(_load_balancer(each)),
        endpoints=tuple(
            Endpoint(rule["name"], None, "network")
            for rule in each("google_compute_forwarding_rule")
        ),
        databases=tuple(_database(b) for b in each("mongodbatlas_advanced_cluster")),
        clusters=tuple(
            Cluster(c["name"], c["location"], bool(c.get("enable_autopilot")))
            for c in each("google_container_cluster")
        ),
        nats=tuple(
            Nat(n["name"], n["region"], len(n.get("nat_ips", ())))
            for n in each("google_compute_router_nat")
        ),
        secrets=tuple(s["secret_id"] for s in each("google_secret_manager_secret")),
        registries=tuple(r["repository_id"] for r in each("google_artifact_registry_repository")),
        budget=next(map(_budget, each("google_billing_budget")), None),
        zones=tuple(z["dns_name"].rstrip(".") for z in each("google_dns_managed_zone")),
    )


def _load_balancer(each: Any) -> Iterator[LoadBalancer]:
    """Yield the global load balancer of a project, if it has one."""
    rules = [r for r in each("google_compute_global_forwarding_rule") if _PROXY.match(r["target"])]
    if rules:
        hosts = [e["hostname"] for e in each("google_certificate_manager_certificate_map_entry")]
        backends = each("google_compute_backend_service")
        cached = tuple(b["name"] for b in backends if b.get("enable_cdn"))
        logged = [b["log_config"] for b in backends if b.get("log_config", {}).get("enable")]
        sample = max((Decimal(str(c["sample_rate"])) for c in logged), default=Decimal(0))
        yield LoadBalancer("edge", len(rules), tuple(hosts), cached, sample)


def _budget(body: Body) -> Decimal:
    amount = body["amount"]["specified_amount"]
    return Decimal(amount["units"]) + Decimal(amount.get("nanos") or 0) / 10**9


def _database(cluster: Body) -> Database:
    """Read an Atlas cluster: its first region has the tier and the limits of scaling."""
    [replication] = cluster["replication_specs"]
    configs = replication["region_configs"]
    size, scaling = configs[0]["electable_specs"], configs[0]["auto_scaling"]
    regions = tuple((c["region_name"], c["electable_specs"]["node_count"]) for c in configs)
    return Database(
        name=cluster["name"],
        tier=size["instance_size"],
        max_tier=scaling.get("compute_max_instance_size", size["instance_size"]),
        disk=size["disk_size_gb"] * _GIB,
        regions=regions,
        backup=bool(cluster.get("backup_enabled")),
        point_in_time=bool(cluster.get("pit_enabled")),
    )
