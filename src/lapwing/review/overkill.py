"""Over-engineering: components that teams often add too early.

A component that the stack has without a visible reason is a warning with its cost. All that it does
not have are one informational finding: when to add each. Reasons outside of the stack file (an SLA,
an auditor) are named, for people to judge. What only exists in a cloud or a cluster is no finding
for environments elsewhere.

A program is recognised by the image of a service, or by the first word of its command; its name is
no evidence: `vault` may be for photos. No advice removes a production environment.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal

from lapwing.cost.alternatives import is_production
from lapwing.cost.estimate import SHARED
from lapwing.cost.ledger import Estimate
from lapwing.review.finding import Finding, Severity, Subject
from lapwing.stack.cloud import project_of
from lapwing.stack.load import LoadedStack

MESH_SERVICES = 10
"""Number of services from which a mesh is justified."""
NOT_NEEDED_YET = "overkill/not-needed-yet"
FEW_PROJECTS = 3
"""Production, staging and what they share."""


@dataclass(frozen=True, slots=True)
class Occurrence:
    """A component in a stack: the environment, the evidence, and its parts of the cost."""

    environment: str
    evidence: str
    parts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Component:
    """A component: why it is too much, when to add it, and how to find it in a stack.

    `applies` selects the environments that can have it; `elsewhere` is the reason outside of a
    cloud, if it is another one.
    """

    rule: str
    name: str
    why: str
    when: str
    find: Callable[[Subject], Iterator[Occurrence]]
    justified: Callable[[Subject], bool] = lambda _: False
    applies: Callable[[LoadedStack], bool] = lambda _: True
    elsewhere: str = ""
    instead: str = "Remove it."

    def reason(self, stacks: Iterable[LoadedStack]) -> str:
        """Return why it is too much in these environments."""
        in_cloud = any(loaded.settings.cloud for loaded in stacks)
        return self.why if in_cloud or not self.elsewhere else self.elsewhere


def overkill(subject: Subject, cost: Estimate) -> Iterator[Finding]:
    """Yield a finding for each component that is there, and one for all others."""
    absent: list[tuple[Component, list[LoadedStack]]] = []
    for row in COMPONENTS:
        seen = list(row.find(subject))
        stacks = [loaded for loaded in subject.stacks if row.applies(loaded)]
        justified = row.justified(subject)
        if not seen and stacks:
            absent.append((row, stacks))
        for each in seen:
            why = row.reason(x for x in subject.stacks if x.environment == each.environment)
            advice = (
                f"Justified: {row.when}."
                if justified
                else f"{row.instead} {why} Add it for {row.when}."
            )
            severity = Severity.INFO if justified else Severity.WARNING
            yield Finding(
                row.rule, severity, each.environment, each.evidence, advice, _saves(each, cost)
            )
    if absent:
        evidence = f"Not used, and not needed yet: {', '.join(r.name for r, _ in absent)}."
        advice = " ".join(
            f"{row.name[:1].upper()}{row.name[1:]}: {row.reason(stacks)} Add it for {row.when}."
            for row, stacks in absent
        )
        yield Finding(NOT_NEEDED_YET, Severity.INFO, "all", evidence, advice)


def _saves(seen: Occurrence, cost: Estimate) -> Decimal | None:
    """Sum the low cost of the parts; None if a price is unknown."""
    lines = [x for x in cost.lines if x.environment == seen.environment and x.part in seen.parts]
    known = [x.low for x in lines if x.low is not None]
    return sum(known, Decimal(0)) if known and len(known) == len(lines) else None


def _programs(images: str, commands: str) -> Callable[[Subject], Iterator[Occurrence]]:
    """Find services by the repository of their image, or by the program that they start."""
    repository = re.compile(rf"(^|/)({images})$")
    program = re.compile(rf"(\S*/)?({commands})")

    def find(subject: Subject) -> Iterator[Occurrence]:
        for loaded in subject.stacks:
            for name, service in loaded.stack.services.items():
                image = (service.image or "").partition("@")[0]
                last = image.rpartition("/")[2]
                image = image.removesuffix(":" + last.partition(":")[2]).removeprefix("docker.io/")
                words = (service.command or "").split()
                found = repository.search(image.removeprefix("library/"))
                key = "image" if found else "command"
                found = found or (program.fullmatch(words[0]) if words else None)
                if found is not None:
                    where = subject.position(loaded.environment, ("services", name, key))
                    evidence = f"{where}: service `{name}` is {found[2].rpartition('/')[2]}"
                    yield Occurrence(loaded.environment, evidence, (name,))

    return find


def _regions(subject: Subject) -> Iterator[Occurrence]:
    """Find a second production environment in another region; staging may be anywhere."""
    clouds = [
        (s.environment, s.settings.cloud.region)
        for s in subject.stacks
        if s.settings.cloud and is_production(s.environment)
    ]
    for environment, region in clouds[1:]:
        first, other = clouds[0]
        if region != other:
            where = subject.position(environment, ("cloud", "region"))
            evidence = f"{where}: production runs in {other} (`{first}`) and {region}"
            yield Occurrence(environment, evidence)


def _database_copies(subject: Subject) -> Iterator[Occurrence]:
    for loaded in subject.stacks:
        for name, resource in loaded.stack.resources.items():
            if resource.replica_region is not None:
                path = ("resources", name, "replica_region")
                where = subject.position(loaded.environment, path)
                evidence = f"{where}: `{name}` has a replica in {resource.replica_region}"
                yield Occurrence(loaded.environment, evidence)


def _projects(subject: Subject) -> Iterator[Occurrence]:
    clouds = [s for s in subject.stacks if s.settings.cloud]
    projects = dict.fromkeys(
        [*(project_of(s.stack, s.environment) for s in clouds), SHARED] if clouds else ()
    )
    if len(projects) > FEW_PROJECTS:
        others = [s.environment for s in clouds if not is_production(s.environment)]
        last = others[-1] if others else clouds[-1].environment
        where = subject.position(last, ("cloud",))
        listed = ", ".join(projects)
        parts = ("cluster", "network", "overhead") if others else ()
        yield Occurrence(last, f"{where}: {len(projects)} projects ({listed})", parts)


def _in_cloud(loaded: LoadedStack) -> bool:
    return loaded.settings.cloud is not None


def _has_managed_backups(loaded: LoadedStack) -> bool:
    """Return whether a database in several zones is backed up: MongoDB in Atlas."""
    resources = loaded.stack.resources.values()
    return _in_cloud(loaded) and any(r.kind == "mongodb" and r.backup for r in resources)


def _in_cluster(loaded: LoadedStack) -> bool:
    return loaded.settings.target == "kubernetes"


def _many_services(subject: Subject) -> bool:
    return any(len(s.stack.services) >= MESH_SERVICES for s in subject.stacks)


COMPONENTS = (
    Component(
        "overkill/multi-region",
        "second region",
        "A second region doubles the clusters, the network and the on-call work.",
        "an SLA of 99.99 %, or users on several continents",
        _regions,
        applies=_in_cloud,
        instead="Serve all users from one region.",
    ),
    Component(
        "overkill/service-mesh",
        "service mesh",
        "A mesh adds a proxy to each pod, and has to be upgraded separately.",
        f"{MESH_SERVICES} or more services that need mutual TLS",
        _programs(
            "istio/[a-z0-9-]+|linkerd/[a-z0-9-]+|(hashicorp/)?consul|kumahq/[a-z0-9-]+|kong/kuma-[a-z]+",
            "istiod|pilot-discovery|linkerd|consul|kuma-cp",
        ),
        _many_services,
        _in_cluster,
        elsewhere="A mesh adds a proxy to each replica, and has to be upgraded separately.",
    ),
    Component(
        "overkill/database-copy",
        "database replica in another region",
        "Several zones of one region and backups cover the common failures.",
        "a compliance requirement of a recovery point below one hour",
        _database_copies,
        applies=_has_managed_backups,
        instead="Remove `replica_region`.",
    ),
    Component(
        "overkill/observability",
        "self-hosted observability stack",
        "The cluster includes the cloud's managed logs and metrics.",
        "more than two full-time reliability engineers",
        _programs(
            "prom/(prometheus|alertmanager)|grafana/[a-z0-9-]+|jaegertracing/[a-z0-9-]+"
            "|openzipkin/zipkin(-slim)?|(elasticsearch/)?elasticsearch|(kibana/)?kibana"
            "|thanosio/thanos|signoz/[a-z0-9-]+|victoriametrics/[a-z0-9-]+",
            "prometheus|grafana(-server)?|loki|tempo|jaeger-[a-z-]+|elasticsearch|kibana|thanos",
        ),
        elsewhere="`lapwing status` and `lapwing logs` show the state and output of every replica.",
    ),
    Component(
        "overkill/projects",
        "fourth project",
        "The projects of the environments and the shared project already isolate them from each "
        "other; another one adds a cluster fee, a load balancer and a NAT gateway.",
        "SOC 2 or HIPAA, which require more isolation",
        _projects,
        applies=_in_cloud,
        instead="Give environments other than production the same `cloud.project`.",
    ),
    Component(
        "overkill/api-gateway",
        "API gateway",
        "The load balancer already routes by host and path.",
        "rate limits per customer, API keys or API billing",
        _programs(
            "kong|kong/kong(-gateway)?|tykio/[a-z0-9-]+|krakend|(devopsfaith|krakend)/krakend"
            "|apache/apisix|graviteeio/[a-z0-9-]+",
            "kong|tyk|krakend|apisix",
        ),
        elsewhere="Envoy already routes by host and path.",
    ),
    Component(
        "overkill/vault",
        "secret server",
        "The cloud's secret manager stores static secrets.",
        "dynamic secrets, or secrets in several clouds",
        _programs(
            "vault|hashicorp/vault|openbao/openbao|infisical/infisical", "vault|bao|infisical"
        ),
        elsewhere="`lapwing secret` stores static secrets.",
    ),
)
