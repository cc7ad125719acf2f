"""The pictures of a stack in one environment, from the stack file alone. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lapwing.design.diagrams.model import Amount, Band, Box, Flow, Picture, pie
from lapwing.stack.cloud import shared_project_of
from lapwing.stack.load import LoadedStack
from lapwing.stack.model import Resource, Service
from lapwing.stack.quantities import show_duration

NAMES = ("architecture", "bluegreen", "pipeline", "network", "cost")
_KINDS = {"mongodb": "MongoDB", "mysql": "MySQL", "redis": "Redis", "postgres": "PostgreSQL"}


def picture(
    name: str, loaded: LoadedStack, amounts: Sequence[Amount] = (), unknown: int = 0
) -> Picture:
    """The picture of that name (one of NAMES). `amounts` are for `cost`, and `unknown` is how many
    lines of the estimate have no price and are not in them."""
    if name == "cost":
        lines = f"{unknown} line{'s' if unknown > 1 else ''}"
        without = f", without {lines} of unknown price" if unknown else ""
        return pie("cost", f"{_title(loaded)}: US dollars a month{without}", amounts)
    return _FLOWS[name](loaded)


def _title(loaded: LoadedStack) -> str:
    return f"{loaded.stack.stack}, {loaded.environment}"


def _on_cluster(loaded: LoadedStack) -> bool:
    return loaded.settings.target == "kubernetes"


def architecture(loaded: LoadedStack) -> Flow:
    """Clients, the way in, services, data, and what they stand on."""
    services = loaded.stack.services
    bands = []
    routed = any(s.route for s in services.values())
    if routed:
        domain = loaded.settings.domain or f"{loaded.stack.stack}.localhost"
        bands.append(Band("Clients", (Box("Browsers and programs", (domain,)),), to_next="HTTPS"))
        bands.append(Band("Way in", _way_in(loaded), chained=True, to_next="routes", tint="violet"))
    boxes = tuple(Box(name, _about(loaded, s)) for name, s in services.items())
    data = tuple(Box(n, _data(loaded, r)) for n, r in loaded.stack.resources.items())
    where = "Cluster (private nodes)" if _on_cluster(loaded) else "Machine (processes)"
    bands.append(Band(where, boxes, to_next="private" if data else None, tint="green"))
    if data:
        bands.append(Band("Data", data, tint="orange"))
    bands.append(Band("Stands on", _ground(loaded), tint="grey"))
    return Flow("architecture", f"{_title(loaded)}: architecture", tuple(bands))


def _way_in(loaded: LoadedStack) -> tuple[Box, ...]:
    how = "one service after the other" if _on_cluster(loaded) else "all services at once"
    edge = Box("Envoy", ("switches slots", how))
    if loaded.settings.cloud is None:
        return (edge,)
    statics = [n for n, s in loaded.stack.services.items() if s.kind == "static"]
    cdn = loaded.settings.cdn and bool(statics)
    about = ("Cloud CDN for " + ", ".join(statics),) if cdn else ("TLS ends here",)
    return (Box("HTTPS load balancer", about), edge)


def _about(loaded: LoadedStack, service: Service) -> tuple[str, ...]:
    told = [service.kind + (f" {service.route}" if service.route else "")]
    if service.kind in ("web", "worker", "static"):
        least, most = service.replicas.min, service.replicas.max
        span = f"{least}-{most}" if most and _on_cluster(loaded) and most != least else f"{least}"
        told.append(f"{span} replica{'' if span == '1' else 's'}")
    if service.needs:
        told.append("needs " + ", ".join(service.needs))
    return tuple(told)


def _data(loaded: LoadedStack, resource: Resource) -> tuple[str, ...]:
    kind = _KINDS[resource.kind] + (f" {resource.version}" if resource.version else "")
    if loaded.settings.cloud is None or resource.kind != "mongodb":
        return (kind, "in the cluster" if _on_cluster(loaded) else "on the machine")
    tier = resource.tier or "M10"
    scale = f"{tier} to {resource.max_tier}" if resource.max_tier else f"{tier}, grows by itself"
    backup = "daily backups" if resource.backup else "no backups"
    copy = (f"copy in {resource.replica_region}",) if resource.replica_region else ()
    return (f"{kind}, Atlas", scale, f"3 zones, {backup}", *copy)


def _ground(loaded: LoadedStack) -> tuple[Box, ...]:
    git = Box("Git", ("desired state", "one commit, one deployment"))
    if not _on_cluster(loaded):
        return (git, Box("Agent", ("listens on no port",)), Box("Secrets", ("encrypted at rest",)))
    argo = Box("Argo CD", ("the only deployer",))
    if loaded.settings.cloud is None:
        return (git, argo)
    shared = shared_project_of(loaded.stack)
    return (
        git,
        argo,
        Box("Artifact Registry", (shared, "scanned, cleaned up")),
        Box("Secret Manager", ("read by Workload Identity",)),
    )


def bluegreen(loaded: LoadedStack) -> Flow:
    """The life of one deployment."""
    services = [s for s in loaded.stack.services.values() if s.kind != "job"]
    all_jobs = [(n, s) for n, s in loaded.stack.services.items() if s.kind == "job"]
    jobs = [n for n, s in all_jobs if not s.after]
    late = [n for n, s in all_jobs if s.after]
    tests = sum(len(s.rollout.smoke) for s in loaded.stack.services.values())
    before = [Box("Idle slot", ("start the new release",))]
    if jobs:
        before.insert(0, Box("Jobs", tuple(jobs)))
    before.append(Box("Health", ("every replica answers",)))
    before.append(
        Box("Smoke tests", (f"{tests} through the preview host",) if tests else ("none",))
    )
    if any(s.rollout.hold for s in services):
        before.append(Box("Hold", ("until `lapwing promote`",)))
    windows = [s.rollout.analysis.window for s in services if s.rollout.analysis]
    watched = f"errors and p95 for {show_duration(max(windows))}" if windows else "off"
    keep = max((s.rollout.keep_old for s in services), default=0.0)
    bands = (
        Band("Before any live request", tuple(before), chained=True, to_next="all passed"),
        Band(
            "Switch",
            (
                Box("Routes", ("all services in one update",)),
                Box("Confirmed", ("by Envoy, then reported",)),
                Box("Analysis", (watched,)),
            ),
            chained=True,
            to_next="healthy",
            tint="violet",
        ),
        Band(
            "Afterwards",
            (
                *([Box("Jobs", tuple(late))] if late else []),
                Box(
                    "Old slot stays warm",
                    (f"{show_duration(keep)}: rollback is a change of route",),
                ),
                Box("Drain", ("until the last connection ends",)),
                Box("Retire", ("the slot is idle again",)),
            ),
            chained=True,
            tint="green",
        ),
        Band(
            "If something fails",
            (
                Box("Before the switch", ("new replicas stop", "no client saw them")),
                Box("After the switch", ("routes go back to the warm slot",)),
                Box("Either way", ("a revert is committed",)),
            ),
            tint="orange",
        ),
    )
    return Flow("bluegreen", f"{_title(loaded)}: blue-green rollout", bands)


def pipeline(loaded: LoadedStack) -> Flow:
    """From a push to traffic."""
    cluster = _on_cluster(loaded)
    build = _before_the_commit(loaded)
    deployer = (
        Box("Argo CD", ("syncs the commit",)) if cluster else Box("Agent", ("sees the commit",))
    )
    bands = (
        Band("Developer", (Box("git push"),), to_next="starts"),
        Band(
            "CI: makes images, and never touches what runs"
            if cluster
            else "CI: builds, and never touches what runs",
            build,
            chained=True,
            to_next="commits",
        ),
        Band(
            "Desired state (git)",
            (
                Box("One commit", ("which release runs where",)),
                Box("History", ("rollback is a revert",)),
            ),
            to_next="is read by",
            tint="violet",
        ),
        Band(
            f"Deployer in {loaded.environment}",
            (
                deployer,
                Box("Blue-green rollout", ("smoke tests, switch, analysis",)),
                Box("Promoted"),
            ),
            chained=True,
            tint="green",
        ),
    )
    return Flow("pipeline", f"{_title(loaded)}: pipeline", bands)


def _before_the_commit(loaded: LoadedStack) -> tuple[Box, ...]:
    """What CI does: with sources, and with images that others publish."""
    services = loaded.stack.services.values()
    if not _on_cluster(loaded):
        return (Box("Lint and test"), Box("Build", ("one bundle for each service",)))
    scan = Box("Scan", ("critical findings stop it",))
    if all(s.image is not None for s in services):
        return (Box("Copy", ("published images, by digest",)), scan)
    return (
        Box("Lint and test"),
        Box("Build", ("one image for each source",)),
        scan,
        Box("Push", ("tagged by revision",)),
    )


def network(loaded: LoadedStack) -> Flow:
    """What stands between the internet and the data."""
    if loaded.settings.cloud is None:
        return _network_without_cloud(loaded)
    data = any(r.kind == "mongodb" for r in loaded.stack.resources.values())
    routed = any(s.route for s in loaded.stack.services.values())
    outside = (Box("Clients"),) if routed else ()
    edge = Band(
        "Edge",
        (
            Box("HTTPS load balancer", ("TLS 1.2 or newer", "managed certificates")),
            Box("Cloud Armor", ("off until it is needed",)),
        ),
        to_next="one port, from the load balancer only",
        tint="violet",
    )
    bands = [
        Band("Internet", (*outside, Box("CI", ("a token, and no key",))),
             to_next="HTTPS only" if routed else "no way in"),
        *((edge,) if routed else ()),
        Band(
            "Network: firewall denies by default, both ways",
            (
                Box("Private subnet", ("nodes have no public address",)),
                Box("Control plane", ("authorised networks only",)),
                Box("Cloud NAT", ("the one way out, HTTPS",)),
            ),
            to_next="NetworkPolicies",
            tint="green",
        ),
        Band(
            "Cluster",
            (
                Box("Pods", ("restricted, no token", "only edges that the stack names")),
                Box("Workload Identity", ("no key anywhere",)),
                Box("Secret Manager", ("each secret by name",)),
            ),
            to_next="private endpoint" if data else None,
            tint="blue",
        ),
    ]  # fmt: skip
    if data:
        bands.append(Band("Data", (Box("MongoDB Atlas", ("no public way in",)),), tint="orange"))
    return Flow("network", f"{_title(loaded)}: network security", tuple(bands))


def _network_without_cloud(loaded: LoadedStack) -> Flow:
    bands = (
        Band("Clients", (Box("Browsers and programs"),), to_next="HTTPS only"),
        Band("Edge", (Box("Envoy", ("the only listener",)),), to_next="loopback", tint="violet"),
        Band(
            "Cluster" if _on_cluster(loaded) else "Machine",
            (
                Box("Replicas", ("reached through Envoy only",)),
                Box("Agent", ("listens on no port",)),
                Box("Secrets", ("encrypted at rest",)),
            ),
            tint="green",
        ),
    )
    return Flow("network", f"{_title(loaded)}: network security", bands)


_FLOWS: dict[str, Callable[[LoadedStack], Flow]] = {
    "architecture": architecture,
    "bluegreen": bluegreen,
    "pipeline": pipeline,
    "network": network,
}
