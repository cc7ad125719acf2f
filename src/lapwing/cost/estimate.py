"""Estimate the monthly bill of environments of a stack.

Each function adds the lines of one billed item; `estimate` calls them in the order of the report.
What belongs to a billing account (the credit for one cluster, free tiers of registry and secrets)
is counted once, for all environments together.

Assumptions, stated in the notes: Autopilot puts pods on nodes of about two vCPU, at least two of
them; External Secrets reads each secret once an hour; jobs are short and not counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import ROUND_CEILING, Decimal

from lapwing.cost.autopilot import GIB, show
from lapwing.cost.book import HOURS, Book, included_storage
from lapwing.cost.environments import (
    CloudEnvironment,
    Pods,
    cloud_environments,
    clusters_without_cloud,
    machines,
)
from lapwing.cost.ledger import BillingScope, Estimate, Ledger
from lapwing.stack.cloud import DEFAULT_TIER
from lapwing.stack.load import LoadedStack
from lapwing.stack.model import Resource

GB = Decimal(10**9)
CPU_PER_NODE = 2
MIN_NODES = 2
RULES_IN_FIRST_PRICE = 5
"""Forwarding rules that are billed together."""
MAX_NAT_VMS = 32
"""VMs by which a NAT gateway is billed; above, it has one price."""


def estimate(stacks: Sequence[LoadedStack], book: Book, name: str | None = None) -> Estimate:
    """Estimate the monthly cost of environments of one stack together, under a name."""
    ledger = Ledger(book, BillingScope("", "", ""))
    found = cloud_environments(stacks)
    clusters: dict[tuple[str, str], list[CloudEnvironment]] = {}
    for each in found:
        clusters.setdefault((each.scope.project, each.scope.region), []).append(each)
        scoped = ledger.scoped(each.scope)
        for pods in each.pods:
            _add_pods(scoped, pods)
        _add_storage_and_overhead(scoped, each)
        _add_second_slots(scoped, each)
        for resource_name, resource in each.loaded.stack.resources.items():
            _add_resource(scoped, resource_name, resource)
        _add_traffic(scoped, each)
    for number, members in enumerate(clusters.values()):
        scoped = ledger.scoped(members[0].scope)
        _add_cluster_fee(scoped, credited=number == 0)
        _add_network(scoped, members)
    if found:
        _add_shared(ledger.scoped(found[0].shared), found)
    for loaded in machines(stacks):
        _add_without_cloud(ledger, loaded, "machine", "the price of the machine is unknown")
    for loaded in clusters_without_cloud(stacks):
        reason = "`cloud` is not set; a local kind or minikube cluster costs nothing"
        _add_without_cloud(ledger, loaded, "cluster", reason)
    label = name or (stacks[0].environment if len(stacks) == 1 else "all")
    return Estimate(label, tuple(ledger.lines), tuple(_unstated(found)), tuple(_notes(found)))


def _add_pods(ledger: Ledger, pods: Pods) -> None:
    """Add the requests of pods, for every hour of the month."""
    kind = "autopilot.spot" if pods.spot else "autopilot"
    pod = pods.pod
    about = ("spot; " if pods.spot else "") + f"{_count(pods)} of {show(pod.cpu, pod.memory)}"
    note = "; ".join(n for n in (about, pod.note) if n)
    for what, label, size in (("cpu", "vCPU", pod.cpu), ("memory", "memory", pod.memory)):
        quantity = (size * pods.low * HOURS, size * pods.high * HOURS)
        ledger.add(pods.name, f"{pods.name}: {label}", f"{kind}.{what}", quantity, note)


def _add_storage_and_overhead(ledger: Ledger, cloud: CloudEnvironment) -> None:
    """Add ephemeral storage of pods, and the controllers if `overhead` is not set."""
    low, high = (Decimal(sum(getattr(p, e) for p in cloud.pods)) * HOURS for e in ("low", "high"))
    item = "Ephemeral storage of pods"
    ledger.add("pods", item, "autopilot.storage", (low, high), "1 GiB per pod")
    if not any(p.name == "overhead" for p in cloud.pods):
        item = "Argo CD, Argo Rollouts, External Secrets"
        note = "`overhead` of the environment is not set"
        ledger.add_unpriced("overhead", item, "pods", note)


def _add_second_slots(ledger: Ledger, cloud: CloudEnvironment) -> None:
    """Add the second slot of rollouts: for one service per deployment, or for all."""
    deployments = cloud.usage.deployments
    released = [p for p in cloud.pods if p.warm > 0]
    if not deployments or not released:
        return
    kind = "autopilot.spot" if released[0].spot else "autopilot"
    note = f"{deployments} deployments, both slots during `keep_old` and the analysis"
    for what, label in (("cpu", "vCPU"), ("memory", "memory")):
        each = [(p, getattr(p.pod, what) * p.warm * deployments) for p in released]
        quantity = (min(h * p.low for p, h in each), sum((h * p.high for p, h in each), Decimal(0)))
        item = f"Second slot during rollouts: {label}"
        ledger.add("rollouts", item, f"{kind}.{what}", quantity, note)


def _add_resource(ledger: Ledger, name: str, resource: Resource) -> None:
    if resource.kind == "mongodb":
        _add_atlas(ledger, name, resource)
    elif resource.storage is not None:
        ledger.add(name, f"{name}: disk", "disk.balanced", Decimal(resource.storage) / GIB)


def _add_atlas(ledger: Ledger, name: str, resource: Resource) -> None:
    """Add a managed MongoDB: its tier, and auto-scaling to `max_tier`."""
    tier, most = resource.tier or DEFAULT_TIER, resource.max_tier
    note = "" if resource.tier else f"`tier` is not set; {DEFAULT_TIER} is assumed"
    ledger.add(name, f"{name}: Atlas {tier}", f"atlas.{tier}", HOURS, note)
    if most is not None and most != tier:
        prices, note = (
            (f"atlas.{tier}", f"atlas.{most}"),
            f"high assumes {most} for the whole month",
        )
        ledger.add_growth(name, f"{name}: auto-scaling to {most}", prices, note)
    no_price = "no price is recorded"
    free = included_storage(tier)
    if resource.storage is not None and free is not None and resource.storage > free * GIB:
        note = f"above the {free} GB that {tier} includes; {no_price}"
        more = Decimal(resource.storage) / GB - free
        ledger.add_unpriced(name, f"{name}: Atlas storage", "GB-month", note, more)
    if resource.backup:
        ledger.add_unpriced(name, f"{name}: Atlas backups", "GB-month", no_price)
    if resource.replica_region is not None:
        note = f"replica in {resource.replica_region}; {no_price}"
        item = f"{name}: replica in another region"
        ledger.add_unpriced(name, item, "cluster-hour", note, HOURS)
    if tier != "M0":
        item = f"{name}: private endpoint"
        ledger.add_unpriced(name, item, "endpoint-hour", no_price, HOURS)


def _add_traffic(ledger: Ledger, cloud: CloudEnvironment) -> None:
    """Add data between clients and services, through the load balancer and the CDN."""
    if not cloud.routed:
        return
    usage, cached = cloud.usage, cloud.loaded.settings.cdn
    static = Decimal(usage.static) / GIB if usage.static is not None else None
    sent = Decimal(usage.sent or 0) / GIB + (static or 0 if not cached else 0)
    if usage.received is not None:
        size = Decimal(usage.received) / GIB
        ledger.add("traffic", "Load balancer: inbound data", "balancer.received", size)
    if usage.sent is not None or (static is not None and not cached):
        ledger.add("traffic", "Load balancer: outbound data", "balancer.sent", sent)
        ledger.add("traffic", "Internet egress", "internet.sent", sent)
    if static is not None and cached:
        ledger.add("traffic", "CDN: egress", "cdn.sent", static)
        note = "low assumes no cache fill, high all of it"
        ledger.add("traffic", "CDN: cache fill", "cdn.fill", (Decimal(0), static), note)
    if usage.requests is not None and cached:
        lookups = Decimal(usage.requests) / 10_000
        ledger.add("traffic", "CDN: cache lookups", "cdn.lookups", lookups)


def _add_cluster_fee(ledger: Ledger, *, credited: bool) -> None:
    """Add the fee of a cluster; the credit of the billing account covers the first one."""
    ledger.add("cluster", "Cluster fee", "gke.cluster", HOURS)
    fee, credit = ledger.lines[-1].low, ledger.price("gke.credit")
    if credited and credit is not None and fee is not None:
        ledger.add_credit("Credit for one cluster", credit, fee)


def _add_network(ledger: Ledger, members: Sequence[CloudEnvironment]) -> None:
    """Add the load balancer and the NAT of a cluster."""
    rules = sum(1 for each in members if each.routed)
    if rules:
        note = "" if rules == 1 else f"{min(rules, RULES_IN_FIRST_PRICE)} rules"
        item = "Load balancer: forwarding rules"
        ledger.add("network", item, "balancer.first-rules", HOURS, note)
    if rules > RULES_IN_FIRST_PRICE:
        more = (rules - RULES_IN_FIRST_PRICE) * HOURS
        ledger.add("network", "Load balancer: additional rules", "balancer.rule", more)
    _add_nat_gateway(ledger, *(_nodes(members, end) for end in ("low", "high")))
    ledger.add("network", "NAT address", "nat.address", HOURS)
    stated = [each.usage.nat for each in members if each.usage.nat is not None]
    if stated:
        ledger.add("network", "NAT: processed data", "nat.data", Decimal(sum(stated)) / GIB)


def _add_nat_gateway(ledger: Ledger, low: int, high: int) -> None:
    """Add the NAT gateway, billed by VM up to 32 VMs, and at one price above.

    That price is slightly below the price of 32 VMs, so a range that includes 32 is highest there.
    """
    gateway, many = ledger.price("nat.gateway"), ledger.price("nat.gateway.many")
    above = many.price / gateway.price if gateway and many else Decimal(MAX_NAT_VMS)
    least = Decimal(low) if low <= MAX_NAT_VMS else above
    most = Decimal(min(high, MAX_NAT_VMS)) if low <= MAX_NAT_VMS else above
    about = f"about {low} nodes" if low == high else f"about {low} to {high} nodes"
    ledger.add("network", "NAT gateway", "nat.gateway", (least * HOURS, most * HOURS), about)


def _nodes(members: Sequence[CloudEnvironment], end: str) -> int:
    """Estimate the number of Autopilot nodes for the pods, at one end of the range."""
    cpu = sum((p.pod.cpu * getattr(p, end) for m in members for p in m.pods), Decimal(0))
    return max(MIN_NODES, int((cpu / CPU_PER_NODE).to_integral_value(ROUND_CEILING)))


def _add_shared(ledger: Ledger, found: Sequence[CloudEnvironment]) -> None:
    """Add what all environments share: secrets, the registry and its scans."""
    versions = Decimal(sum(len(each.secrets) for each in found))
    if versions:
        ledger.add("secrets", "Secret versions", "secrets.version", versions)
        reads, note = versions * HOURS / 10_000, "each secret is read once an hour"
        ledger.add("secrets", "Secret access operations", "secrets.access", reads, note)
    stored = [each.usage.images for each in found if each.usage.images is not None]
    if stored:
        ledger.add("registry", "Image storage", "registry.storage", Decimal(max(stored)) / GB)
    deployments = max((each.usage.deployments or 0 for each in found), default=0)
    services = found[0].loaded.stack.services.values()
    built = {s.build.path for s in services if s.build} | {
        s.dockerfile for s in services if s.dockerfile
    }
    if deployments and built:
        note = f"{deployments} deployments of 1 to {len(built)} images"
        quantity = (Decimal(deployments), Decimal(deployments * len(built)))
        ledger.add("registry", "Image scans", "registry.scan", quantity, note)


def _add_without_cloud(ledger: Ledger, loaded: LoadedStack, what: str, reason: str) -> None:
    name = loaded.environment
    scoped = ledger.scoped(BillingScope(name, "", ""))
    scoped.add_unpriced(what, f"The {what}", "month", reason, Decimal(1))


def _unstated(found: Iterable[CloudEnvironment]) -> Iterable[str]:
    """Yield settings that are not set, so that they are not counted."""
    for each in found:
        keys = ["nat", "images", "deployments"]
        if each.routed:
            keys += ["sent", "received"]
        if any(s.kind == "static" for s in each.routed):
            keys += ["static"] + (["requests"] if each.loaded.settings.cdn else [])
        for key in keys:
            if getattr(each.usage, key) is None:
                yield f"{each.name}: usage.{key}"
        for name, resource in each.loaded.stack.resources.items():
            if resource.kind in ("mysql", "postgres") and resource.storage is None:
                yield f"{each.name}: resources.{name}.storage"


def _notes(found: Sequence[CloudEnvironment]) -> Iterable[str]:
    if not found:
        return
    yield "List prices without tax, for a month of 730 hours. An estimate, not a quote."
    yield "Low is with the minimum number of replicas, high with the maximum."
    yield "Expected is halfway between low and high; the average load is not measured."
    jobs = sorted({n for x in found for n, s in x.loaded.stack.services.items() if s.kind == "job"})
    if jobs:
        yield f"Jobs are short and not counted: {', '.join(jobs)}."
    if any((x.usage.sent or 0) + (x.usage.static or 0) > 1024 * GIB for x in found):
        yield "More than 1 TiB of egress: prices are lower above it, so the estimate is too high."


def _count(pods: Pods) -> str:
    if pods.low == pods.high:
        return f"{pods.low} pod{'s' if pods.low > 1 else ''}"
    return f"{pods.low} to {pods.high} pods"
