"""What documents and pictures describe: one environment, with its cloud project and the shared one.

Every property is derived from the inventory only, so that sentences and labels state what
is rendered.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from lapwing.inventory.machine import PROCESS
from lapwing.inventory.model import (
    Database,
    Environment,
    Flow,
    Inventory,
    LoadBalancer,
    Pods,
    Project,
    StackInventory,
)
from lapwing.render.addresses import ATLAS_PORTS
from lapwing.stack.load import LOCAL
from lapwing.stack.resource_reference import PORTS

_GIB = 2**30
EDGE = "edge"
SERVICES = ("web", "static", "worker", "job")
KINDS = {"mongodb": "MongoDB", "mysql": "MySQL", "redis": "Redis", "postgres": "PostgreSQL"}
_PORTS = {k: str(p) for k, p in PORTS.items()} | {"mongodb": "-".join(map(str, ATLAS_PORTS))}
"""The ports of a database outside of the cluster, as in a network policy."""
PROVIDERS = {
    "aws": "AWS",
    "azure": "Azure",
    "digitalocean": "DigitalOcean",
    "gcp": "Google Cloud",
    "hetzner": "Hetzner",
}


@dataclass(frozen=True, slots=True)
class Subject:
    """One environment of a stack. `project` is empty outside of a cloud."""

    stack: str
    environment: Environment
    cloud: Project | None = None
    shared_cloud: Project | None = None
    alone: bool = True
    """Whether no other environment of the stack is in a cloud."""

    @property
    def facts(self) -> Inventory:
        """What runs in the environment."""
        return self.environment.facts

    @property
    def project(self) -> Inventory:
        """What is in the cloud project of the environment."""
        return self.cloud.facts if self.cloud else Inventory()

    @property
    def shared(self) -> Inventory:
        """What is in the shared cloud project."""
        return self.shared_cloud.facts if self.shared_cloud else Inventory()

    @property
    def on_machine(self) -> bool:
        """Whether it runs on one machine."""
        return self.environment.target == "machine"

    @property
    def is_local(self) -> bool:
        """Whether it runs on this machine, where Envoy listens on loopback without LAPWING_BIND."""
        return self.on_machine and self.environment.name == LOCAL

    @property
    def services(self) -> tuple[Pods, ...]:
        """The services, jobs included; a migration is not one of them."""
        return tuple(
            p for p in self.facts.pods if p.component in SERVICES and not _is_migration(p, self)
        )

    @property
    def migrations(self) -> tuple[Pods, ...]:
        """The jobs that migrate the database of a service."""
        return tuple(p for p in self.facts.pods if _is_migration(p, self))

    @property
    def data(self) -> tuple[Pods, ...]:
        """The databases beside the services."""
        return tuple(p for p in self.facts.pods if p.component in KINDS)

    @property
    def edge(self) -> Pods | None:
        """The pods of the edge in a cluster."""
        return next((p for p in self.facts.pods if p.component == EDGE), None)

    @property
    def has_ingress(self) -> bool:
        """Whether requests from outside reach a service."""
        return bool(self.facts.routes)

    @property
    def https_balancer(self) -> LoadBalancer | None:
        """The load balancer of the project, if it serves the domain of the environment."""
        domain = self.environment.domain
        return next((b for b in self.project.load_balancers if domain in b.hosts), None)

    @property
    def has_cdn(self) -> bool:
        """Whether static files of the environment are behind a CDN."""
        cached = self.https_balancer.cached if self.https_balancer else ()
        return any(name.endswith(f"-{self.environment.name}") for name in cached)

    @property
    def load_balancer(self) -> LoadBalancer | None:
        """What accepts connections from outside, before the edge."""
        return self.https_balancer or next(iter(self.facts.load_balancers), None)

    @property
    def blue_green(self) -> tuple[Pods, ...]:
        """The services that are released blue-green."""
        return tuple(p for p in self.services if p.rollout is not None)

    @property
    def published(self) -> tuple[str, ...]:
        """The services whose image the stack file names."""
        built = {image.service for image in self.environment.built}
        return tuple(p.part for p in self.services if p.images and p.part not in built)

    @property
    def uses_shared_registry(self) -> bool:
        """Whether built images are pushed to a registry of the shared project."""
        return bool(self.environment.built) and self.environment.registry in self.shared.registries

    @property
    def has_source(self) -> bool:
        """Whether something is built for a release: images, or process bundles of a machine."""
        return bool(self.environment.built) or any(not p.images for p in self.services)

    @property
    def spread(self) -> tuple[str, ...]:
        """The services with more than one pod, whose pods are spread over zones."""
        return tuple(p.part for p in self.services if p.spread and p.max > 1)

    @property
    def databases(self) -> tuple[tuple[str, Database], ...]:
        """The databases that Atlas runs for this environment, with the names of resources."""
        if self.cloud is None:
            return ()
        owned = [(*self.cloud.owner(d.name), d) for d in self.project.databases]
        return tuple((part, d) for owner, part, d in owned if owner == self.environment.name)

    @property
    def has_private_endpoint(self) -> bool:
        """Whether a database has a private endpoint in the network of the project."""
        return any(database.private for _, database in self.databases)

    @property
    def has_private_nodes(self) -> bool:
        """Whether the nodes of the cluster have no public address."""
        return any(c.private_nodes for c in self.project.clusters)

    @property
    def has_closed_firewall(self) -> bool:
        """Whether the firewall denies every connection that no other rule allows."""
        denied = {
            rule.direction
            for rule in self.project.firewall
            if not rule.allows and rule.ranges == ("0.0.0.0/0",) and rule.ports == "all"
        }
        return denied == {"ingress", "egress"}

    @property
    def has_closed_pods(self) -> bool:
        """Whether network policies deny every connection of a pod that no other one allows."""
        return set(self.facts.closed) == {"Ingress", "Egress"}

    @property
    def has_restricted_pods(self) -> bool:
        """Whether the namespace enforces the Pod Security level `restricted`."""
        return "restricted" in self.facts.pod_security

    @property
    def has_egress(self) -> bool:
        """Whether something may connect to the internet."""
        return bool(self.project.nats) or any(self.reaches_internet(p.part) for p in self.services)

    @property
    def is_reachable(self) -> bool:
        """Whether clients outside of the cluster can reach its services."""
        return self.has_ingress and (self.on_machine or self.load_balancer is not None)

    @property
    def host(self) -> str:
        """The machine that the environment runs on, empty if the stack file does not state it."""
        host = self.environment.machine
        return f"{PROVIDERS[host.provider]} {host.type} in {host.location}" if host else ""

    @property
    def tls(self) -> str:
        """The versions of TLS that the load balancer accepts, empty if unknown."""
        oldest = self.https_balancer.min_tls if self.https_balancer else ""
        return f"TLS {oldest} or newer" if oldest else ""

    @property
    def without_backup(self) -> tuple[str, ...]:
        """The databases that no rendered object backs up, without caches."""
        saved = {b.name for b in self.facts.backups}
        inside = (p.part for p in self.data if p.component != "redis" and p.part not in saved)
        outside = (m.part for m in self.facts.managed if m.kind != "redis" and not m.backup)
        return (*inside, *outside, *(name for name, d in self.databases if not d.backup))

    def granted(self, identity: str, role: str) -> bool:
        """Return whether an identity has a role in the registry."""
        grants = (*self.project.grants, *self.shared.grants)
        return any(g.identity == identity and g.role.endswith(f".{role}") for g in grants)

    def routes(self, part: str) -> tuple[str, ...]:
        """Return the prefixes whose requests a service gets."""
        return tuple(r.prefix for r in self.facts.routes if r.part == part)

    def uses(self, part: str) -> Iterator[tuple[str, Flow]]:
        """Yield each database that a part connects to, and the connection that is allowed.

        Outside of the cluster it is the one whose URL its pods get.
        """
        inside = {p.part for p in self.data}
        flows = [f for f in self.facts.flows if f.part == part]
        yield from ((flow.to, flow) for flow in flows if flow.to in inside)
        kinds = {m.part: m.kind for m in self.facts.managed}
        for name in dict.fromkeys(n for p in self.facts.pods if p.part == part for n in p.uses):
            ports = _PORTS[kinds.get(name, "mongodb")]
            flow = next((flow for flow in flows if flow.ports == ports), None)
            if flow is not None:
                yield name, flow

    def limits(self, part: str) -> tuple[str, ...]:
        """Return the limits on the clients of a service."""
        routes = [r for r in self.facts.routes if r.part == part]
        found = [f"from {joined(r.networks)} only" for r in routes if r.networks]
        return (*found, *("with basic authentication only" for r in routes[:1] if r.login))

    def reaches_internet(self, part: str) -> bool:
        """Return whether a part may connect to the internet."""
        return any(f.part == part and f.to == "internet" for f in self.facts.flows)


def _is_migration(pods: Pods, subject: Subject) -> bool:
    served = {p.part for p in subject.facts.pods if p.component != "job"}
    return pods.component == "job" and pods.part.removesuffix("-migrate") in served


def subject_of(found: StackInventory, environment: str) -> Subject:
    """Select an environment of a stack."""
    [chosen] = [e for e in found.environments if e.name == environment]
    cloud = next((p for p in found.projects if environment in p.environments), None)
    others = sum(len(p.environments) for p in found.projects)
    shared = found.shared if cloud else None
    return Subject(found.stack, chosen, cloud, shared, others <= 1)


def joined(words: Iterable[str]) -> str:
    """Join words as in `a, b and c`, each once."""
    unique = list(dict.fromkeys(words))
    return (
        " and ".join([", ".join(unique[:-1]), unique[-1]]) if len(unique) > 1 else "".join(unique)
    )


def span(least: int, most: int) -> str:
    """Format a range as `2` or `2-3`."""
    return str(least) if least == most else f"{least}-{most}"


def addresses(count: int) -> str:
    """Format a number of addresses: `1 address`, `2 addresses`."""
    return f"{count} address" + ("es" if count != 1 else "")


def product(database: Database) -> str:
    """Return what Atlas runs, with its version if one is chosen."""
    return f"{KINDS['mongodb']} {database.version}".rstrip()


def size(amount: int) -> str:
    """Format bytes as `10Gi`, or as `512Mi` if they are no whole GiB."""
    return f"{amount // _GIB}Gi" if amount % _GIB == 0 else f"{amount / 2**20:g}Mi"


def is_process(pods: Pods) -> bool:
    """Return whether replicas are processes or containers of a machine."""
    return pods.kind == PROCESS
