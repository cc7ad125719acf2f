"""The estimate: from environments of a stack to the lines of a monthly bill. Pure.

Each function here adds the lines of one thing that is billed; `estimate` calls them in the order of
the report. What belongs to a billing account (the credit for one cluster, free tiers of registry
and secrets) is counted once, for all environments together.

Assumed, and said in the notes: Autopilot puts pods on nodes of about two vCPU, at least two of
them; External Secrets looks at each secret once an hour; jobs run for moments and are not counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import ROUND_CEILING, Decimal

from lapwing.cost.autopilot import GIB, show
from lapwing.cost.book import HOURS, Book
from lapwing.cost.facts import included_storage
from lapwing.cost.lines import Estimate, Ledger, Place
from lapwing.cost.sites import DEFAULT_TIER, Pods, Site, homeless, machines, sites
from lapwing.stack.load import LoadedStack
from lapwing.stack.model import Resource

GB = Decimal(10**9)
CPU_OF_A_NODE = 2
FEWEST_NODES = 2
FREE_RULES = 5
"""Forwarding rules that are paid together."""
MOST_VMS = 32
"""VMs that a NAT gateway is paid by; above, it has one price."""


def estimate(stacks: Sequence[LoadedStack], book: Book, name: str | None = None) -> Estimate:
    """What environments of one stack cost a month together; `name` is what to call them."""
    ledger = Ledger(book)
    found = sites(stacks)
    clusters: dict[tuple[str, str], list[Site]] = {}
    for site in found:
        clusters.setdefault((site.place.project, site.place.region), []).append(site)
    for site in found:
        for pods in site.pods:
            _pods(ledger, site, pods)
        _without_requests(ledger, site)
        _slots(ledger, site)
        for resource_name, resource in site.loaded.stack.resources.items():
            _resource(ledger, site, resource_name, resource)
        _traffic(ledger, site)
    for number, members in enumerate(clusters.values()):
        _cluster(ledger, members, credited=number == 0)
        _network(ledger, members)
    if found:
        _account(ledger, found)
    for loaded in machines(stacks):
        _elsewhere(ledger, loaded, "machine", "Lapwing does not know what your machine costs")
    for loaded in homeless(stacks):
        why = "it is in no `cloud`; kind or minikube on a machine of your own cost nothing more"
        _elsewhere(ledger, loaded, "cluster", why)
    label = name or (stacks[0].environment if len(stacks) == 1 else "all")
    return Estimate(label, tuple(ledger.lines), tuple(_unstated(found)), tuple(_notes(found)))


def _pods(ledger: Ledger, site: Site, pods: Pods) -> None:
    """What pods request, for every hour of the month."""
    kind = "autopilot.spot" if pods.spot else "autopilot"
    about = ("spot; " if pods.spot else "") + f"{_count(pods)} of {_size(pods)}"
    note = "; ".join(n for n in (about, pods.pod.note) if n)
    for what, label, size in (
        ("cpu", "vCPU", pods.pod.cpu),
        ("memory", "memory", pods.pod.memory),
    ):
        quantity = (size * pods.low * HOURS, size * pods.high * HOURS)
        ledger.add(site.place, pods.name, f"{pods.name}: {label}", f"{kind}.{what}", quantity, note)


def _without_requests(ledger: Ledger, site: Site) -> None:
    """Scratch space of pods, and what runs beside the services where nobody said how large."""
    low, high = (Decimal(sum(getattr(p, e) for p in site.pods)) * HOURS for e in ("low", "high"))
    ledger.add(
        site.place, "pods", "Scratch space of pods", "autopilot.storage", (low, high), "1 GiB a pod"
    )
    if not any(p.name == "overhead" for p in site.pods):
        ledger.unpriced(
            site.place,
            "overhead",
            "Argo CD, Argo Rollouts, External Secrets",
            "pods",
            "their requests are not stated; set `overhead` of the environment",
        )


def _slots(ledger: Ledger, site: Site) -> None:
    """The second slot of a rollout: at the least one service a deployment, at the most all."""
    deployments = site.usage.deployments
    released = [p for p in site.pods if p.warm > 0]
    if not deployments or not released:
        return
    for what, label in (("cpu", "vCPU"), ("memory", "memory")):
        each = [(p, getattr(p.pod, what) * p.warm * deployments) for p in released]
        kind = "autopilot.spot" if released[0].spot else "autopilot"
        quantity = (min(h * p.low for p, h in each), sum((h * p.high for p, h in each), Decimal(0)))
        ledger.add(
            site.place,
            "rollouts",
            f"Second slot in rollouts: {label}",
            f"{kind}.{what}",
            quantity,
            f"{deployments} deployments, both slots for `keep_old` and the analysis",
        )


def _resource(ledger: Ledger, site: Site, name: str, resource: Resource) -> None:
    if resource.kind == "mongodb":
        _atlas(ledger, site, name, resource)
    elif resource.storage is not None:
        size = Decimal(resource.storage) / GIB
        ledger.add(site.place, name, f"{name}: disk", "disk.balanced", (size, size))


def _atlas(ledger: Ledger, site: Site, name: str, resource: Resource) -> None:
    """A managed MongoDB: three nodes of a tier, at the most of the largest that it may grow to."""
    tier = resource.tier or DEFAULT_TIER
    note = "" if resource.tier else f"no `tier` is stated; {DEFAULT_TIER} is assumed"
    most = resource.max_tier
    ledger.add(site.place, name, f"{name}: Atlas {tier}", f"atlas.{tier}", (HOURS, HOURS), note)
    if most is not None and most != tier:
        ledger.growth(
            site.place,
            name,
            f"{name}: growing to {most}",
            (f"atlas.{tier}", f"atlas.{most}"),
            f"if auto-scaling chooses {most} for the whole month",
        )
    free = included_storage(tier)
    if resource.storage is not None and free is not None and resource.storage > free * GIB:
        note = f"more than the {free} GB of {tier}; no price is recorded"
        more = Decimal(resource.storage) / GB - free
        ledger.unpriced(site.place, name, f"{name}: Atlas storage", "GB-month", note, more)
    if resource.backup:
        ledger.unpriced(
            site.place, name, f"{name}: Atlas backups", "GB-month", "no price is recorded"
        )
    if resource.replica_region is not None:
        note = f"a copy in {resource.replica_region}; no price is recorded"
        ledger.unpriced(
            site.place, name, f"{name}: copy in another region", "cluster-hour", note, HOURS
        )
    if tier != "M0":
        ledger.unpriced(
            site.place, name, f"{name}: private endpoint", "endpoint-hour", "no price is recorded",
            HOURS,
        )  # fmt: skip


def _traffic(ledger: Ledger, site: Site) -> None:
    """Data between clients and services, through the load balancer and the CDN."""
    if not site.routed:
        return
    usage, place = site.usage, site.place
    static = Decimal(usage.static) / GIB if usage.static is not None else None
    cached = site.loaded.settings.cdn
    sent = Decimal(usage.sent or 0) / GIB + (static or 0 if not cached else 0)
    stated = usage.sent is not None or (static is not None and not cached)
    if usage.received is not None:
        size = Decimal(usage.received) / GIB
        ledger.add(place, "traffic", "Load balancer: received", "balancer.received", (size, size))
    if stated:
        ledger.add(place, "traffic", "Load balancer: sent", "balancer.sent", (sent, sent))
        ledger.add(place, "traffic", "Data to the internet", "internet.sent", (sent, sent))
    if static is not None and cached:
        ledger.add(place, "traffic", "CDN: sent", "cdn.sent", (static, static))
        note = "nothing is filled at the least, everything at the most"
        ledger.add(place, "traffic", "CDN: cache fill", "cdn.fill", (Decimal(0), static), note)
    if usage.requests is not None and cached:
        count = Decimal(usage.requests) / 10_000
        ledger.add(place, "traffic", "CDN: lookups", "cdn.lookups", (count, count))


def _cluster(ledger: Ledger, members: Sequence[Site], *, credited: bool) -> None:
    """The fee of a cluster. The credit of the billing account pays that of the first one."""
    place = members[0].place
    ledger.add(place, "cluster", "Cluster fee", "gke.cluster", (HOURS, HOURS))
    fee, credit = ledger.lines[-1].low, ledger.book.find("gke.credit", place.region)
    if credited and credit is not None and fee is not None:
        ledger.credit(place, "Credit for one cluster", credit, fee)


def _network(ledger: Ledger, members: Sequence[Site]) -> None:
    """The load balancer and the NAT of a cluster."""
    place = members[0].place
    rules = sum(1 for site in members if site.routed)
    if rules:
        hours = (HOURS, HOURS)
        note = "" if rules == 1 else f"{min(rules, FREE_RULES)} rules"
        ledger.add(place, "network", "Load balancer: rules", "balancer.first-rules", hours, note)
    if rules > FREE_RULES:
        more = (rules - FREE_RULES) * HOURS
        ledger.add(place, "network", "Load balancer: more rules", "balancer.rule", (more, more))
    _gateway(ledger, place, *(_nodes(members, end) for end in ("low", "high")))
    ledger.add(place, "network", "NAT address", "nat.address", (HOURS, HOURS))
    stated = [site.usage.nat for site in members if site.usage.nat is not None]
    if stated:
        size = Decimal(sum(stated)) / GIB
        ledger.add(place, "network", "NAT: data", "nat.data", (size, size))


def _gateway(ledger: Ledger, place: Place, low: int, high: int) -> None:
    """The NAT gateway, paid by its VMs up to 32 of them and at one price above; that price is a
    little below that of 32, so a range that crosses the border is dearest there."""
    gateway, many = (ledger.book.find(k, place.region) for k in ("nat.gateway", "nat.gateway.many"))
    above = many.price / gateway.price if gateway and many else Decimal(MOST_VMS)
    least = Decimal(low) if low <= MOST_VMS else above
    most = Decimal(min(high, MOST_VMS)) if low <= MOST_VMS else above
    about = f"about {low} nodes" if low == high else f"about {low} to {high} nodes"
    quantity = (least * HOURS, most * HOURS)
    ledger.add(place, "network", "NAT gateway", "nat.gateway", quantity, about)


def _nodes(members: Sequence[Site], end: str) -> int:
    """About how many nodes Autopilot keeps for the pods, at one end of the range."""
    cpu = sum((p.pod.cpu * getattr(p, end) for s in members for p in s.pods), Decimal(0))
    return max(FEWEST_NODES, int((cpu / CPU_OF_A_NODE).to_integral_value(ROUND_CEILING)))


def _account(ledger: Ledger, found: Sequence[Site]) -> None:
    """What all environments share: secrets, the registry and its scans."""
    place = found[0].shared
    versions = Decimal(sum(len(site.secrets) for site in found))
    if versions:
        ledger.add(place, "secrets", "Secret versions", "secrets.version", (versions, versions))
        looks = versions * HOURS / 10_000
        note = "each secret once an hour"
        ledger.add(place, "secrets", "Secret accesses", "secrets.access", (looks, looks), note)
    stored = [site.usage.images for site in found if site.usage.images is not None]
    if stored:
        size = Decimal(max(stored)) / GB
        ledger.add(place, "registry", "Images stored", "registry.storage", (size, size))
    deployments = max((site.usage.deployments or 0 for site in found), default=0)
    if deployments:
        built = {
            s.build.path for s in found[0].loaded.stack.services.values() if s.build is not None
        } | {s.dockerfile for s in found[0].loaded.stack.services.values() if s.dockerfile}
        if built:
            most = Decimal(deployments * len(built))
            note = f"{deployments} deployments, 1 to {len(built)} images each"
            ledger.add(
                place, "registry", "Images scanned", "registry.scan", (Decimal(deployments), most),
                note,
            )  # fmt: skip


def _elsewhere(ledger: Ledger, loaded: LoadedStack, what: str, why: str) -> None:
    place = Place(loaded.environment, f"{loaded.stack.stack}-{loaded.environment}", "")
    ledger.unpriced(place, what, f"The {what} itself", "month", why, Decimal(1))


def _unstated(found: Iterable[Site]) -> Iterable[str]:
    """What an environment does not state, so that it is not counted."""
    for site in found:
        keys = ["nat", "images", "deployments"]
        if site.routed:
            keys += ["sent", "received"]
        if any(s.kind == "static" for s in site.routed):
            keys += ["static"] + (["requests"] if site.loaded.settings.cdn else [])
        for key in keys:
            if getattr(site.usage, key) is None:
                yield f"{site.name}: usage.{key}"
        for name, resource in site.loaded.stack.resources.items():
            if resource.kind in ("mysql", "postgres") and resource.storage is None:
                yield f"{site.name}: resources.{name}.storage"


def _notes(found: Sequence[Site]) -> Iterable[str]:
    if not found:
        return
    yield "List prices without tax, for a month of 730 hours. An estimate, not an offer."
    yield "Low is every service at its fewest replicas, high at its most."
    jobs = sorted({n for x in found for n, s in x.loaded.stack.services.items() if s.kind == "job"})
    if jobs:
        yield f"Jobs run for moments and are not counted: {', '.join(jobs)}."
    tib = 1024 * GIB
    if any((site.usage.sent or 0) + (site.usage.static or 0) > tib for site in found):
        yield "More than a TiB a month is sent; prices fall above it, and the estimate is too high."


def _count(pods: Pods) -> str:
    if pods.low == pods.high:
        return f"{pods.low} pod{'s' if pods.low > 1 else ''}"
    return f"{pods.low} to {pods.high} pods"


def _size(pods: Pods) -> str:
    return show(pods.pod.cpu, pods.pod.memory)
