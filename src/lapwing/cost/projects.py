"""The lines of a cloud project and of what all projects share.

Environments of one project share its cluster, and so the fee, the controllers, the load balancer,
the NAT and the free volume of logs.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from decimal import ROUND_CEILING, Decimal

from lapwing.cost.book import HOURS, included_storage
from lapwing.cost.ledger import Ledger, Quantity, between
from lapwing.inventory import autopilot
from lapwing.inventory.autopilot import GIB
from lapwing.inventory.model import Database, Environment, Project, StackInventory
from lapwing.system.package_data import read

NONE = Decimal(0)
GB = Decimal(10**9)
CPU_PER_NODE = 2
MIN_NODES = 2
RULES_IN_FIRST_PRICE = 5
"""Forwarding rules that are billed together."""
MAX_NAT_VMS = 32
"""VMs by which a NAT gateway is billed; above, it has one price."""
MISSES = Decimal("0.1")
"""The expected share of cached data that the CDN fetches from the cluster."""
CROSSES_ZONES = Decimal(2) / 3
"""The expected share of connections inside the cluster that end in another of three zones."""
LOG_GIB_PER_POD = (Decimal("0.01"), Decimal("0.1"), Decimal(1))
BYTES_PER_LOGGED_REQUEST = 1024
MILLION_QUERIES = (NONE, Decimal("0.1"), Decimal(1))


def add_traffic(ledger: Ledger, environment: Environment, project: Project) -> None:
    """Add data between clients and services, through the load balancer and the CDN."""
    if not any(p.component == "edge" for p in environment.facts.pods):
        return
    usage = environment.usage
    balancers = (*project.facts.load_balancers, *environment.facts.load_balancers)
    cached = any(f"static-{environment.name}" in b.cached for b in balancers)
    static = Decimal(usage.static) / GIB if usage.static is not None else None
    sent = Decimal(usage.sent or 0) / GIB + (static or 0 if not cached else 0)
    received = Decimal(usage.received or 0) / GIB
    if usage.received is not None and balancers:
        ledger.add("traffic", "Load balancer: inbound data", "balancer.received", received)
    if usage.sent is not None or (static is not None and not cached):
        if balancers:
            ledger.add("traffic", "Load balancer: outbound data", "balancer.sent", sent)
        ledger.add("traffic", "Internet egress", "internet.sent", sent)
    fill: Quantity = (NONE, NONE, NONE)
    if static is not None and cached:
        ledger.add("traffic", "CDN: egress", "cdn.sent", static)
        fill = (NONE, static * MISSES, static)
        note = "low assumes no cache fill, expected one request in ten, high all of them"
        ledger.add("traffic", "CDN: cache fill", "cdn.fill", fill, note)
    if usage.requests is not None and cached:
        lookups = Decimal(usage.requests) / 10_000
        ledger.add("traffic", "CDN: cache lookups", "cdn.lookups", lookups)
    if sent or received or static:
        inside = sent + received
        crossing = (NONE, (inside + fill[1]) * CROSSES_ZONES, (inside + fill[2]) * 2)
        note = "edge to services: low in one zone, high twice, to the database as well"
        ledger.add("traffic", "Data between zones", "zone.data", crossing, note)


def add_cluster(
    ledger: Ledger, project: Project, members: Sequence[Environment], *, credited: bool
) -> None:
    """Add the controllers and the fee; the credit of the billing account covers one cluster."""
    _add_controllers(ledger, members)
    for _ in project.facts.clusters:
        ledger.add("cluster", "Cluster fee", "gke.cluster", HOURS)
        fee, credit = ledger.lines[-1].low, ledger.price("gke.credit")
        if credited and credit is not None and fee is not None:
            ledger.add_credit("Credit for one cluster", credit, fee)


def _add_controllers(ledger: Ledger, members: Sequence[Environment]) -> None:
    """Add Argo CD, Argo Rollouts and External Secrets."""
    cpu, memory = controller_requests(members)
    if not cpu[2]:
        return
    count, names = _controllers(members)
    note = f"{count} pods of {names}" if count else ""
    if count and _stated(members):
        note += ", with the requests of `overhead`"
    elif count:
        note += (
            "; `overhead` is not set: low is Autopilot's minimum, expected its default for pods "
            "without requests"
        )
    for what, label, size in (("cpu", "vCPU", cpu), ("memory", "memory", memory)):
        quantity = (size[0] * HOURS, size[1] * HOURS, size[2] * HOURS)
        ledger.add("overhead", f"overhead: {label}", f"autopilot.{what}", quantity, note)


def _stated(members: Sequence[Environment]) -> bool:
    return any((m.overhead.cpu, m.overhead.memory) != (None, None) for m in members)


def controller_requests(members: Sequence[Environment]) -> tuple[Quantity, Quantity]:
    """Return the vCPU and GiB of all controllers of a cluster: stated requests, else bounds.

    Their published manifests request nothing. Autopilot then applies its default to every pod,
    unless the installation states less; no pod is billed below the minimum.
    """
    count, _ = _controllers(members)
    cpu = max((m.overhead.cpu for m in members if m.overhead.cpu is not None), default=None)
    memory = max(
        (m.overhead.memory for m in members if m.overhead.memory is not None), default=None
    )
    least = (autopilot.MIN_CPU * count, autopilot.MIN_MEMORY * count)
    most = (autopilot.DEFAULT_CPU * count, autopilot.DEFAULT_MEMORY * count)
    if _stated(members):
        pod = autopilot.fit(cpu, memory)
        least = most = (max(pod.cpu, least[0]), max(pod.memory, least[1]))
    return (least[0], most[0], most[0]), (least[1], most[1], most[1])


def _controllers(members: Sequence[Environment]) -> tuple[int, str]:
    """Count the pods of all controllers of a cluster, and name the controllers."""
    known = tomllib.loads(read("inventory", "autopilot.toml"))["controllers"]
    names = dict.fromkeys(c for m in members for c in m.facts.controllers)
    return sum(known[name] for name in names), ", ".join(names)


def add_network(ledger: Ledger, project: Project, members: Sequence[Environment]) -> None:
    """Add the load balancers, the NAT and the private endpoints of a project."""
    balancers = [
        *project.facts.load_balancers,
        *(b for m in members for b in m.facts.load_balancers),
    ]
    rules = sum(b.rules for b in balancers)
    if rules:
        note = f"{min(rules, RULES_IN_FIRST_PRICE)} rules"
        item = "Load balancer: forwarding rules"
        ledger.add("network", item, "balancer.first-rules", HOURS, note)
    if rules > RULES_IN_FIRST_PRICE:
        more = (rules - RULES_IN_FIRST_PRICE) * HOURS
        ledger.add("network", "Load balancer: additional rules", "balancer.rule", more)
    for nat in project.facts.nats:
        _add_nat_gateway(ledger, *(_nodes(members, end) for end in ("min", "max")))
        ledger.add("network", "NAT address", "nat.address", nat.addresses * HOURS)
    stated = [m.usage.nat for m in members if m.usage.nat is not None]
    if stated and project.facts.nats:
        ledger.add("network", "NAT: processed data", "nat.data", Decimal(sum(stated)) / GIB)
    private = [e for e in project.facts.endpoints if e.scope == "network"]
    if private:
        item = "Private endpoints of the cloud"
        ledger.add("network", item, "endpoint", len(private) * HOURS)


def _add_nat_gateway(ledger: Ledger, low: int, high: int) -> None:
    """Add the NAT gateway, billed by VM up to 32 VMs, and at one price above.

    That price is slightly below the price of 32 VMs, so a range that includes 32 is highest there.
    """
    gateway, many = ledger.price("nat.gateway"), ledger.price("nat.gateway.many")
    above = many.low / gateway.low if gateway and many else Decimal(MAX_NAT_VMS)
    least = Decimal(low) if low <= MAX_NAT_VMS else above
    most = Decimal(min(high, MAX_NAT_VMS)) if low <= MAX_NAT_VMS else above
    about = f"about {low} nodes" if low == high else f"about {low} to {high} nodes"
    ledger.add("network", "NAT gateway", "nat.gateway", between(least * HOURS, most * HOURS), about)


def _nodes(members: Sequence[Environment], end: str) -> int:
    """Estimate the number of Autopilot nodes for the pods, at one end of the range."""
    pods = [p for m in members for p in m.facts.pods if p.kind != "Job"]
    cpu = sum((p.billed.cpu * getattr(p, end) for p in pods), NONE)
    return max(MIN_NODES, int((cpu / CPU_PER_NODE).to_integral_value(ROUND_CEILING)))


def add_logs(ledger: Ledger, project: Project, members: Sequence[Environment]) -> None:
    """Add the logs of pods, and of requests at the rendered sampling of the load balancer."""
    pods = [p for m in members for p in m.facts.pods if p.kind != "Job"]
    sample = max((b.log_sample for b in project.facts.load_balancers), default=NONE)
    requests = sum(m.usage.requests or 0 for m in members)
    logged = requests * sample * BYTES_PER_LOGGED_REQUEST / GIB
    counts = between(Decimal(sum(p.min for p in pods)), Decimal(sum(p.max for p in pods)))
    sizes = zip(LOG_GIB_PER_POD, counts, strict=True)
    low, expected, high = (size * count + logged for size, count in sizes)
    note = "0.01, 0.1 or 1 GiB of each pod, and 1 KiB of each logged request"
    ledger.add("logs", "Logs", "logs", (low, expected, high), note)


def add_database(ledger: Ledger, name: str, database: Database) -> None:
    """Add a MongoDB of Atlas: its tier, auto-scaling, nodes in other regions, backups."""
    tier, most, disk = database.tier, database.max_tier, Decimal(database.disk) / GIB
    ledger.add(name, f"{name}: Atlas {tier}", f"atlas.{tier}", HOURS)
    if most != tier:
        prices = (f"atlas.{tier}", f"atlas.{most}")
        note = f"high assumes {most} for the whole month; expected no scaling"
        ledger.add_growth(name, f"{name}: auto-scaling to {most}", prices, note)
    for region, nodes in database.regions[1:]:
        item = f"{name}: nodes in another region"
        note = f"{nodes} nodes in {region}, of which three cost as much as the cluster"
        ledger.add(name, item, f"atlas.{tier}", HOURS * nodes / 3, note)
    included = included_storage(tier)
    if included is not None and disk > included:
        note = f"above the {included} GB that {tier} includes; no price is recorded"
        ledger.add_unpriced(name, f"{name}: Atlas storage", "GB-month", note, disk - included)
    if database.backup:
        note = "low is an empty database, expected the disk once, high three times"
        ledger.add(
            name, f"{name}: Atlas snapshots", "atlas.snapshots", (NONE, disk, 3 * disk), note
        )
    if database.point_in_time:
        note = "low is an empty database, expected the disk once, high three times"
        item = f"{name}: Atlas point-in-time backups"
        ledger.add(name, item, "atlas.point-in-time", (NONE, disk, 3 * disk), note)
    if database.private:
        ledger.add(name, f"{name}: private endpoint", "atlas.endpoint", HOURS)


def add_shared(ledger: Ledger, found: StackInventory) -> None:
    """Add what all projects share: secrets, DNS, the registry and its scans."""
    reads = [r for e in found.environments if e.project for r in e.facts.secret_reads]
    if reads:  # A secret that is generated in the cluster has no version in Secret Manager.
        ledger.add("secrets", "Secret versions", "secrets.version", Decimal(len(reads)))
        often = sum((HOURS * 3600 / r.every_s for r in reads), NONE) / 10_000
        every = f"{len(reads)} secrets, each read every {min(r.every_s for r in reads)} s"
        ledger.add("secrets", "Secret access operations", "secrets.access", often, every)
    zones = found.shared.facts.zones if found.shared else ()
    if zones:
        ledger.add("dns", "DNS zones", "dns.zone", Decimal(len(zones)))
        ledger.add("dns", "DNS queries", "dns.queries", MILLION_QUERIES, "at most a million")
    clouds = [e for e in found.environments if e.project]
    stored = [e.usage.images for e in clouds if e.usage.images is not None]
    if stored:
        ledger.add("registry", "Image storage", "registry.storage", Decimal(max(stored)) / GB)
    deployments = max((e.usage.deployments or 0 for e in clouds), default=0)
    built = {image.service for e in clouds for image in e.built}
    if deployments and built:
        note = f"{deployments} deployments of 1 to {len(built)} images"
        quantity = between(Decimal(deployments), Decimal(deployments * len(built)))
        ledger.add("registry", "Image scans", "registry.scan", quantity, note)
