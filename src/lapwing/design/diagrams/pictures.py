"""The pictures of a stack in one environment."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lapwing.design.diagrams.model import Amount, Band, Box, Flow, Picture, pie
from lapwing.stack.cloud import DEFAULT_TIER, is_managed, shared_project_of
from lapwing.stack.load import LoadedStack
from lapwing.stack.model import Resource, Service
from lapwing.stack.quantities import show_duration

NAMES = ("architecture", "bluegreen", "pipeline", "network", "cost")
_KINDS = {"mongodb": "MongoDB", "mysql": "MySQL", "redis": "Redis", "postgres": "PostgreSQL"}


def picture(
    name: str, loaded: LoadedStack, amounts: Sequence[Amount] = (), unknown: int = 0
) -> Picture:
    """Draw the picture of that name (one of NAMES).

    `amounts` are for `cost`; `unknown` is how many lines of the estimate have no price and are not
    in them.
    """
    if name == "cost":
        lines = f"{unknown} line{'s' if unknown > 1 else ''}"
        without = f", without {lines} of unknown price" if unknown else ""
        return pie("cost", f"{_title(loaded)}: US dollars per month{without}", amounts)
    return _FLOWS[name](loaded)


def _title(loaded: LoadedStack) -> str:
    return f"{loaded.stack.stack}, {loaded.environment}"


def _is_cluster(loaded: LoadedStack) -> bool:
    return loaded.settings.target == "kubernetes"


def architecture(loaded: LoadedStack) -> Flow:
    """Draw clients, ingress, services, data, and the platform."""
    services = loaded.stack.services
    bands = []
    if any(s.route for s in services.values()):
        domain = loaded.settings.domain or f"{loaded.stack.stack}.localhost"
        bands.append(Band("Clients", (Box("Browsers and programs", (domain,)),), to_next="HTTPS"))
        bands.append(
            Band("Ingress", _ingress(loaded), chained=True, to_next="routes", tint="violet")
        )
    boxes = tuple(Box(name, _service_lines(loaded, s)) for name, s in services.items())
    data = tuple(Box(n, _data_lines(loaded, r)) for n, r in loaded.stack.resources.items())
    where = "Cluster (private nodes)" if loaded.settings.cloud else "Cluster"
    title = where if _is_cluster(loaded) else "Machine (processes)"
    bands.append(Band(title, boxes, to_next="private" if data else None, tint="green"))
    if data:
        bands.append(Band("Data", data, tint="orange"))
    bands.append(Band("Platform", _platform(loaded), tint="grey"))
    return Flow("architecture", f"{_title(loaded)}: architecture", tuple(bands))


def _ingress(loaded: LoadedStack) -> tuple[Box, ...]:
    edge = Box("Envoy", (_switch_order(loaded),))
    if loaded.settings.cloud is None:
        return (edge,)
    statics = [n for n, s in loaded.stack.services.items() if s.kind == "static"]
    cdn = loaded.settings.cdn and bool(statics)
    about = "Cloud CDN for " + ", ".join(statics) if cdn else "terminates TLS"
    return (Box("HTTPS load balancer", (about,)), edge)


def _switch_order(loaded: LoadedStack) -> str:
    if not _is_cluster(loaded):
        return "switches all services at once"
    if loaded.settings.uses_argo_rollouts:
        return "services switch one by one"
    return "rolling updates of services"


def _service_lines(loaded: LoadedStack, service: Service) -> tuple[str, ...]:
    lines = [service.kind + (f" {service.route}" if service.route else "")]
    if service.kind in ("web", "worker", "static"):
        least, most = service.replicas.min, service.replicas.max
        span = f"{least}-{most}" if most and _is_cluster(loaded) and most != least else f"{least}"
        lines.append(f"{span} replica{'' if span == '1' else 's'}")
    if service.needs:
        lines.append("needs " + ", ".join(service.needs))
    return tuple(lines)


def _data_lines(loaded: LoadedStack, resource: Resource) -> tuple[str, ...]:
    kind = _KINDS[resource.kind] + (f" {resource.version}" if resource.version else "")
    if loaded.settings.cloud is None or resource.kind != "mongodb":
        if is_managed(resource, loaded.settings):
            return (kind, "outside of the cluster")
        return (kind, "in the cluster" if _is_cluster(loaded) else "on the machine")
    tier = resource.tier or DEFAULT_TIER
    scale = f"{tier} to {resource.max_tier}" if resource.max_tier else f"{tier}, auto-scaling"
    backup = "daily backups" if resource.backup else "no backups"
    replica = (f"replica in {resource.replica_region}",) if resource.replica_region else ()
    return (f"{kind}, Atlas", scale, f"3 zones, {backup}", *replica)


def _platform(loaded: LoadedStack) -> tuple[Box, ...]:
    git = Box("Git", ("desired state", "one commit per deployment"))
    if not _is_cluster(loaded):
        agent = Box("Agent", ("deploys each commit", "no open port"))
        return (git, agent, Box("Secrets", ("encrypted at rest",)))
    if loaded.settings.cloud is None:
        return (git, _deployer(loaded))
    shared = shared_project_of(loaded.stack)
    return (
        git,
        _deployer(loaded),
        Box("Artifact Registry", (shared, "scanned, cleaned up")),
        Box("Secret Manager", ("read by Workload Identity",)),
    )


def _deployer(loaded: LoadedStack) -> Box:
    if not _is_cluster(loaded):
        return Box("Agent", ("detects the commit",))
    if loaded.settings.uses_argo_cd:
        return Box("Argo CD", ("syncs each commit",))
    return Box("lapwing deploy", ("applies each commit",))


def bluegreen(loaded: LoadedStack) -> Flow:
    """Draw the steps of one deployment."""
    if _is_cluster(loaded) and not loaded.settings.uses_argo_rollouts:
        return _rolling_update(loaded)
    services = [s for s in loaded.stack.services.values() if s.kind != "job"]
    jobs, late = _jobs(loaded)
    tests = sum(len(s.rollout.smoke) for s in loaded.stack.services.values())
    smoke = f"{tests} through the preview host" if tests else "none"
    before = [
        *jobs,
        Box("Idle slot", ("starts the new release",)),
        Box("Health checks", ("of every replica",)),
        Box("Smoke tests", (smoke,)),
    ]
    if any(s.rollout.hold for s in services):
        before.append(Box("Pause", ("until `lapwing promote`",)))
    windows = [s.rollout.analysis.window for s in services if s.rollout.analysis]
    analysis = f"errors and p95 for {show_duration(max(windows))}" if windows else "off"
    keep = show_duration(max((s.rollout.keep_old for s in services), default=0.0))
    switch, after, failures = _blue_green_steps(loaded, keep)
    bands = (
        Band("Before the switch", tuple(before), chained=True, to_next="all passed"),
        Band(
            "Switch",
            (*switch, Box("Analysis", (analysis,))),
            chained=True,
            to_next="healthy",
            tint="violet",
        ),
        Band("After the switch", (*late, *after), chained=True, tint="green"),
        Band("On failure", failures, tint="orange"),
    )
    return Flow("bluegreen", f"{_title(loaded)}: blue-green rollout", bands)


Boxes = tuple[Box, ...]


def _blue_green_steps(loaded: LoadedStack, keep: str) -> tuple[Boxes, Boxes, Boxes]:
    """Return the boxes of the switch, of the steps after it, and of failures."""
    before = Box("Before the switch", ("new replicas stop", "clients are not affected"))
    if _is_cluster(loaded):
        return (
            (Box("Service selectors", ("one service after the other",)),),
            (
                Box("Old slot keeps running", (f"{keep}: instant rollback",)),
                Box("Retire", ("old pods end",)),
            ),
            (before, Box("After the switch", ("each service switches back",))),
        )
    return (
        (
            Box("Routes", ("all services in one update",)),
            Box("Confirmed", ("by Envoy, then reported",)),
        ),
        (
            Box("Old slot keeps running", (f"{keep}: rollback changes routes",)),
            Box("Drain", ("until the last connection ends",)),
            Box("Retire", ("the slot is idle",)),
        ),
        (
            before,
            Box("After the switch", ("routes return to the old slot",)),
            Box("In both cases", ("a revert is committed",)),
        ),
    )


def _jobs(loaded: LoadedStack) -> tuple[list[Box], list[Box]]:
    """Return the boxes of jobs before and after the services; empty without jobs."""
    services = loaded.stack.services.items()
    jobs = {n: s for n, s in services if s.kind == "job" and s.schedule is None}
    early = tuple(n for n, s in jobs.items() if not s.after)
    late = tuple(n for n, s in jobs.items() if s.after)
    return [Box("Jobs", early)] if early else [], [Box("Jobs", late)] if late else []


def _rolling_update(loaded: LoadedStack) -> Flow:
    """Draw a deployment without Argo Rollouts: Deployments with rolling updates."""
    jobs, late = _jobs(loaded)
    steps = (
        *jobs,
        Box("New pod", ("starts beside the old ones",)),
        Box("Readiness", ("the health check passes",)),
        Box("Old pod", ("ends within its grace period",)),
        *late,
    )
    failures = (
        Box("New pods not ready", ("old pods keep serving",)),
        Box("lapwing abort", ("restores the last successful deployment",)),
    )
    bands = (
        Band("Update, one pod after the other", steps, chained=True, tint="green"),
        Band("On failure", failures, tint="orange"),
    )
    return Flow("bluegreen", f"{_title(loaded)}: rolling update", bands)


def pipeline(loaded: LoadedStack) -> Flow:
    """Draw the way from a push to live traffic."""
    on_cluster = _is_cluster(loaded)
    rollout = Box("Blue-green rollout", ("smoke tests, switch, analysis",))
    if on_cluster and not loaded.settings.uses_argo_rollouts:
        rollout = Box("Rolling update", ("one pod after the other",))
    ci = f"CI: builds {'images' if on_cluster else 'bundles'}"
    if loaded.settings.uses_argo_cd or not on_cluster:
        ci += f", has no access to {loaded.environment}"
    bands = (
        Band("Developer", (Box("git push"),), to_next="triggers"),
        Band(
            ci,
            _ci_steps(loaded),
            chained=True,
            to_next="commits",
        ),
        Band(
            "Desired state (git)",
            (
                Box("Commit", ("releases and settings",)),
                Box("History", ("rollback is a new commit",)),
            ),
            to_next="deployed by",
            tint="violet",
        ),
        Band(
            f"Deployment to {loaded.environment}",
            (_deployer(loaded), rollout, Box("Live")),
            chained=True,
            tint="green",
        ),
    )
    return Flow("pipeline", f"{_title(loaded)}: pipeline", bands)


def _ci_steps(loaded: LoadedStack) -> tuple[Box, ...]:
    """Return the steps of CI, for sources or for prebuilt images."""
    if not _is_cluster(loaded):
        return (Box("Lint and test"), Box("Build", ("one bundle per service",)))
    scan = Box("Scan", ("critical findings fail",))
    if all(s.image is not None for s in loaded.stack.services.values()):
        return (Box("Mirror", ("published images, by digest",)), scan)
    build = Box("Build", ("one image per source",))
    return (Box("Lint and test"), build, scan, Box("Push", ("tagged with the revision",)))


def network(loaded: LoadedStack) -> Flow:
    """Draw the layers of network security between the internet and the data."""
    routed = any(s.route for s in loaded.stack.services.values())
    if loaded.settings.cloud is None:
        bands = _network_without_cloud(loaded, routed)
    else:
        bands = _network_in_cloud(loaded, routed)
    return Flow("network", f"{_title(loaded)}: network security", bands)


def _network_in_cloud(loaded: LoadedStack, routed: bool) -> tuple[Band, ...]:
    data = any(r.kind == "mongodb" for r in loaded.stack.resources.values())
    edge = Band(
        "Edge",
        (
            Box("HTTPS load balancer", ("TLS 1.2 or newer", "managed certificates")),
            Box("Cloud Armor", ("off by default",)),
        ),
        to_next="one port, from the load balancer only",
        tint="violet",
    )
    outside = (*((Box("Clients"),) if routed else ()), Box("CI", ("short-lived token",)))
    vpc = (
        Box("Private subnet", ("nodes without public address",)),
        Box("Control plane", ("authorized networks only",)),
        Box("Cloud NAT", ("the only egress, HTTPS",)),
    )
    cluster = (
        Box("Pods", ("restricted, no API token", "only required connections")),
        Box("Workload Identity", ("no keys",)),
        Box("Secret Manager", ("access per secret",)),
    )
    private = "private endpoint" if data else None
    to_edge = "HTTPS only" if routed else "no ingress"
    database = Band("Data", (Box("MongoDB Atlas", ("no public endpoint",)),), tint="orange")
    return (
        Band("Internet", outside, to_next=to_edge),
        *((edge,) if routed else ()),
        Band("VPC: firewall denies by default", vpc, to_next="NetworkPolicies", tint="green"),
        Band("Cluster", cluster, to_next=private),
        *((database,) if data else ()),
    )


def _network_without_cloud(loaded: LoadedStack, routed: bool) -> tuple[Band, ...]:
    replicas = Box("Replicas", ("reachable through Envoy only",))
    if _is_cluster(loaded):
        inside = Band(
            "Cluster",
            (
                replicas,
                Box("NetworkPolicies", ("only required connections",)),
                Box("Secrets", ("Kubernetes Secrets",)),
            ),
            tint="green",
        )
    else:
        agent = Box("Agent", ("no open port",))
        secrets = Box("Secrets", ("encrypted at rest",))
        inside = Band("Machine", (replicas, agent, secrets), tint="green")
    if not routed:
        return (inside,)
    link = "NetworkPolicies" if _is_cluster(loaded) else "loopback"
    return (
        Band("Clients", (Box("Browsers and programs"),), to_next="HTTPS only"),
        Band("Edge", (Box("Envoy", ("the only listener",)),), to_next=link, tint="violet"),
        inside,
    )


_FLOWS: dict[str, Callable[[LoadedStack], Flow]] = {
    "architecture": architecture,
    "bluegreen": bluegreen,
    "pipeline": pipeline,
    "network": network,
}
