"""The cloud infrastructure of a stack: its projects, and the contents of each.

Every project becomes one Terraform root, a folder with its own state: `shared` (registry, DNS, CI,
the bucket of all states), and one for each project that environments run in, named after the first
of them. So a mistake in staging cannot affect production, and no root reads another's state: names
follow from the stack file. Environments with the same project share its network and cluster.

Google Cloud: https://cloud.google.com/docs/enterprise/best-practices-for-enterprise-organizations
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lapwing.stack.cloud import is_managed, project_of, shared_project_of
from lapwing.stack.environment import Cloud
from lapwing.stack.load import LoadedStack
from lapwing.stack.model import Resource
from lapwing.stack.resource_reference import variable_of

GOOGLE_STORAGE = "gs://"
SHARED = "shared"


@dataclass(frozen=True, slots=True)
class Project:
    """One Terraform root. `environments` is empty for the shared project."""

    folder: str
    identity: str
    """The project id: 6 to 30 characters."""
    region: str
    stack: str
    shared: str
    """The project id of the shared project."""
    environments: tuple[LoadedStack, ...] = ()

    @property
    def domains(self) -> tuple[tuple[str, str], ...]:
        """Environment and host name of each environment behind the load balancer of this root."""
        return _domains(e for e in self.environments if e.settings.gateway is None)

    @property
    def gke_domains(self) -> tuple[tuple[str, str], ...]:
        """Environment and host name of each environment whose load balancer GKE makes."""
        return _domains(e for e in self.environments if e.settings.uses_gke_gateway)

    @property
    def all_domains(self) -> tuple[tuple[str, str], ...]:
        """Environment and host name of each environment with a load balancer of either kind."""
        return (*self.domains, *self.gke_domains)

    @property
    def certified_domains(self) -> tuple[tuple[str, str], ...]:
        """Environment and host name of each certificate of Certificate Manager."""
        gateways = {
            e.environment
            for e in self.environments
            if (g := e.settings.gateway) and g.kind == "gateway" and not g.issuer
        }
        return (*self.domains, *(d for d in self.gke_domains if d[0] in gateways))

    @property
    def budget(self) -> float | None:
        """US dollars a month for the whole project, or None if no environment has a budget."""
        stated = [e.settings.budget for e in self.environments if e.settings.budget]
        return sum(stated) if stated else None


@dataclass(frozen=True, slots=True)
class Zone:
    """A DNS zone of the shared project. `name` is its name in Terraform and in Google Cloud."""

    name: str
    domain: str


def _domains(environments: Iterable[LoadedStack]) -> tuple[tuple[str, str], ...]:
    return tuple(
        (e.environment, e.settings.domain)
        for e in environments
        if e.settings.domain and has_routes(e)
    )


def clouds(stacks: Iterable[LoadedStack]) -> tuple[Project, ...]:
    """List the shared project and then the projects of these environments, in the file's order.

    All environments are of one stack and have a cloud. Without environments the result is empty.
    """
    groups: dict[str, list[LoadedStack]] = {}
    for loaded in stacks:
        groups.setdefault(project_of(loaded.stack, loaded.environment), []).append(loaded)
    if not groups:
        return ()
    first = next(iter(groups.values()))[0]
    shared, name = shared_project_of(first.stack), first.stack.stack
    everywhere = tuple(loaded for group in groups.values() for loaded in group)
    projects = [Project(SHARED, shared, cloud_of(first).region, name, shared, everywhere)]
    for identity, group in groups.items():
        folder, region = group[0].environment, cloud_of(group[0]).region
        projects.append(Project(folder, identity, region, name, shared, tuple(group)))
    return tuple(projects)


def cloud_of(loaded: LoadedStack) -> Cloud:
    """Return the cloud of an environment that has one."""
    assert loaded.settings.cloud is not None
    return loaded.settings.cloud


def internet_ports(project: Project) -> list[str]:
    """List the TCP ports of connections to the internet: 443, `internet`, and of backups."""
    services = [s for e in project.environments for s in e.stack.services.values()]
    stated = {p for s in services if not isinstance(s.internet, bool) for p in s.internet}
    backups = [e.settings.backup for e in project.environments]
    stated |= {b.port for b in backups if b is not None and b.port is not None}
    return [str(port) for port in sorted({443, *stated})]


def has_routes(loaded: LoadedStack) -> bool:
    """Report whether an environment has a route, and so needs a load balancer."""
    return any(s.route for s in loaded.stack.services.values())


def static_routes(loaded: LoadedStack) -> tuple[str, ...]:
    """List the routes of static services behind the CDN; none if the environment disables it."""
    if not loaded.settings.cdn:
        return ()
    services = loaded.stack.services.values()
    return tuple(s.route for s in services if s.kind == "static" and s.route)


def buckets(project: Project) -> dict[str, str]:
    """Return the bucket in Cloud Storage that the backups of each environment go to."""
    wanted = {e.environment: e.settings.backup for e in project.environments}
    found = {name: backup.to for name, backup in wanted.items() if backup and backup.to}
    return {
        name: to.removeprefix(GOOGLE_STORAGE).partition("/")[0]
        for name, to in found.items()
        if to.startswith(GOOGLE_STORAGE)
    }


def databases(loaded: LoadedStack) -> dict[str, Resource]:
    """Select the resources that Atlas runs: MongoDB. Others run in the cluster or elsewhere."""
    return {n: r for n, r in loaded.stack.resources.items() if r.kind == "mongodb"}


def managed(loaded: LoadedStack) -> dict[str, Resource]:
    """Select the resources that Google Cloud runs: Cloud SQL and Memorystore."""
    resources = loaded.stack.resources.items()
    return {n: r for n, r in resources if r.managed and r.kind != "mongodb"}


def secret_name(loaded: LoadedStack, resource: str) -> str:
    """Return the name of the secret with the URL of a managed resource."""
    variable = loaded.stack.resources[resource].variable or variable_of(resource)
    return f"{loaded.stack.stack}-{loaded.environment}-{variable}"


def secrets(loaded: LoadedStack) -> tuple[str, ...]:
    """List the names of the secrets of an environment: of services, backups, and database URLs.

    The URL of a managed database contains a password.
    """
    names = {secret for s in loaded.stack.services.values() for secret in s.secret_names}
    names.update(loaded.settings.backup.secrets if loaded.settings.backup else ())
    for name, resource in loaded.stack.resources.items():
        if not is_managed(resource, loaded.settings):
            continue
        names.add(resource.variable or variable_of(name))
    return tuple(sorted(names))


def zones(domains: Sequence[str]) -> tuple[Zone, ...]:
    """List a zone for each domain that is not a subdomain of another of them."""
    tops = [d for d in domains if not any(d != o and d.endswith("." + o) for o in domains)]
    return tuple(
        Zone(f"zone-{d.replace('.', '-')}"[:63].rstrip("-"), d) for d in dict.fromkeys(tops)
    )


def zone_of(domain: str, all_zones: Sequence[Zone]) -> Zone:
    """Return the zone that a domain belongs to."""
    return next(z for z in all_zones if domain == z.domain or domain.endswith("." + z.domain))
