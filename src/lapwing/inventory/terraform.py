"""Read the inventory of Terraform resources, as `lapwing infra` renders them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any, Literal

from lapwing.inventory.model import (
    Cluster,
    Database,
    Endpoint,
    FirewallRule,
    Grant,
    Inventory,
    LoadBalancer,
    ManagedService,
    Nat,
    Peering,
    Subnet,
)

Body = Mapping[str, Any]
_PROXY = re.compile(r"\$\{google_compute_target_https?_proxy\.")
_GIB = 2**30


def from_terraform(documents: Iterable[Body]) -> Inventory:
    """Read the facts of the files of one Terraform root, each parsed from JSON."""
    found: dict[str, dict[str, Body]] = {}
    registries: tuple[str, ...] = ()
    for document in documents:
        resources = document.get("resource", {})
        for kind, bodies in resources.items():
            found.setdefault(kind, {}).update(bodies)
        if "google_artifact_registry_repository" in resources:
            registries += (document["output"]["registry"]["value"],)

    def each(kind: str) -> list[Body]:
        return list(found.get(kind, {}).values())

    return Inventory(
        load_balancers=tuple(_load_balancer(each)),
        endpoints=tuple(
            Endpoint(rule["name"], None, "network")
            for rule in each("google_compute_forwarding_rule")
        ),
        databases=tuple(
            _database(
                body,
                found.get("mongodbatlas_cloud_backup_schedule", {}).get(name, {}),
                private=name in found.get("mongodbatlas_privatelink_endpoint", {}),
            )
            for name, body in found.get("mongodbatlas_advanced_cluster", {}).items()
        ),
        managed=(
            *map(_sql, each("google_sql_database_instance")),
            *map(_redis, each("google_redis_instance")),
        ),
        subnets=tuple(map(_subnet, each("google_compute_subnetwork"))),
        peerings=tuple(
            Peering(address["name"], f"{address['address']}/{address['prefix_length']}")
            for address in each("google_compute_global_address")
            if address.get("purpose") == "VPC_PEERING"
        ),
        firewall=tuple(map(_firewall_rule, each("google_compute_firewall"))),
        grants=tuple(
            Grant(name, body["role"])
            for name, body in found.get(
                "google_artifact_registry_repository_iam_member", {}
            ).items()
        ),
        clusters=tuple(
            Cluster(
                c["name"],
                c["location"],
                bool(c.get("enable_autopilot")),
                bool(c["private_cluster_config"]["enable_private_nodes"]),
                c["private_cluster_config"]["master_ipv4_cidr_block"],
            )
            for c in each("google_container_cluster")
        ),
        nats=tuple(
            Nat(n["name"], n["region"], len(n.get("nat_ips", ())))
            for n in each("google_compute_router_nat")
        ),
        secrets=tuple(s["secret_id"] for s in each("google_secret_manager_secret")),
        registries=registries,
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
        tls = [p["min_tls_version"] for p in each("google_compute_ssl_policy")]
        oldest = min(tls, default="").removeprefix("TLS_").replace("_", ".")
        yield LoadBalancer("edge", len(rules), tuple(hosts), cached, sample, oldest)


def _subnet(body: Body) -> Subnet:
    ranges = body.get("secondary_ip_range", ())
    secondary = tuple((r["range_name"], r["ip_cidr_range"]) for r in ranges)
    return Subnet(body["name"], body["region"], body["ip_cidr_range"], secondary)


def _firewall_rule(body: Body) -> FirewallRule:
    """Read a rule; one without ports is for all ports of its protocols."""
    allowed = "allow" in body
    rules = body["allow" if allowed else "deny"]
    ports = ", ".join(" ".join([r["protocol"], *r.get("ports", ())]) for r in rules)
    ingress = body["direction"] == "INGRESS"
    ranges = body["source_ranges" if ingress else "destination_ranges"]
    direction: Literal["ingress", "egress"] = "ingress" if ingress else "egress"
    return FirewallRule(body["name"], direction, allowed, tuple(ranges), ports)


def _budget(body: Body) -> Decimal:
    amount = body["amount"]["specified_amount"]
    return Decimal(amount["units"]) + Decimal(amount.get("nanos") or 0) / 10**9


def _database(cluster: Body, schedule: Body, *, private: bool) -> Database:
    """Read an Atlas cluster: its first region has the tier and the limits of scaling.

    The free tier states neither nodes nor disk: it has three nodes and 512 MB.
    """
    [replication] = cluster["replication_specs"]
    configs = replication["region_configs"]
    size, scaling = configs[0]["electable_specs"], configs[0].get("auto_scaling", {})
    regions = tuple((c["region_name"], c["electable_specs"].get("node_count", 3)) for c in configs)
    return Database(
        name=cluster["name"],
        tier=size["instance_size"],
        max_tier=scaling.get("compute_max_instance_size", size["instance_size"]),
        disk=int(size.get("disk_size_gb", 0.5) * _GIB),
        regions=regions,
        backup=bool(cluster.get("backup_enabled")),
        point_in_time=bool(cluster.get("pit_enabled")),
        version=cluster.get("mongo_db_major_version", ""),
        kept=tuple(_kept(schedule)),
        restore_days=schedule.get("restore_window_days", 0),
        private=private,
    )


def _kept(schedule: Body) -> Iterator[str]:
    """Yield how long each snapshot of a backup schedule is kept, as in `daily for 7 days`."""
    for frequency in ("daily", "weekly", "monthly"):
        item = schedule.get(f"policy_item_{frequency}")
        if item:
            policy = item[0] if isinstance(item, list) else item
            yield f"{frequency} for {policy['retention_value']} {policy['retention_unit']}"


def _sql(body: Body) -> ManagedService:
    """Read an instance of Cloud SQL. Its tier is `db-custom-<vCPU>-<MiB>`."""
    settings = body["settings"]
    _, _, cpu, memory = settings["tier"].split("-")
    backup = settings["backup_configuration"]
    logged = backup.get("point_in_time_recovery_enabled") or backup.get("binary_log_enabled")
    return ManagedService(
        part=body["name"],
        kind=body["database_version"].partition("_")[0].lower(),
        cpu=int(cpu),
        memory=int(memory) * 2**20,
        storage=settings["disk_size"] * _GIB,
        backup=backup["enabled"],
        product="Cloud SQL",
        standby=settings["availability_type"] == "REGIONAL",
        restore_days=backup["transaction_log_retention_days"] if logged else 0,
        version=_version(body["database_version"]),
        private=not settings["ip_configuration"]["ipv4_enabled"],
    )


def _version(name: str) -> str:
    """Read the version in Google's name: `8.0` in `MYSQL_8_0`."""
    return name.partition("_")[2].replace("_", ".").lower()


def _redis(body: Body) -> ManagedService:
    """Read a Redis of Memorystore.

    Its snapshots are no backups: only Google can load them, after a failure. Source: Google Cloud,
    Memorystore for Redis, About RDB snapshots.
    """
    return ManagedService(
        part=body["name"],
        kind="redis",
        memory=body["memory_size_gb"] * _GIB,
        product="Memorystore",
        standby=body["tier"] == "STANDARD_HA",
        version=_version(body["redis_version"]),
        private=body["connect_mode"] == "PRIVATE_SERVICE_ACCESS",
    )
