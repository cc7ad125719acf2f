"""Over-engineering: components that teams often add too early.

Each component gives a finding. If the stack has it without a visible reason, it is a warning with
its cost. If the stack does not have it, the finding is informational: when to add it. Reasons
outside of the stack file (an SLA, an auditor) are named, for people to judge. What only exists in a
cloud or a cluster is no finding for environments elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal

from lapwing.cost.estimate import SHARED
from lapwing.cost.ledger import Estimate
from lapwing.review.finding import Finding, Severity, Subject
from lapwing.stack.cloud import project_of
from lapwing.stack.load import LoadedStack

MESH_SERVICES = 10
"""Number of services from which a mesh is justified."""
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

    def reason(self, stacks: Iterable[LoadedStack]) -> str:
        """Return why it is too much in these environments."""
        in_cloud = any(loaded.settings.cloud for loaded in stacks)
        return self.why if in_cloud or not self.elsewhere else self.elsewhere


def overkill(subject: Subject, cost: Estimate) -> Iterator[Finding]:
    """Yield a finding for each component."""
    for row in COMPONENTS:
        seen = list(row.find(subject))
        stacks = [loaded for loaded in subject.stacks if row.applies(loaded)]
        if not seen and not stacks:
            continue
        if not seen:
            names = ", ".join(loaded.environment for loaded in stacks)
            evidence = f"No {row.name} in {names}."
            wait = f"Not needed yet. {row.reason(stacks)} Add it for {row.when}."
            now = f"Consider adding it: {row.when}."
            advice = now if row.justified(subject) else wait
            yield Finding(row.rule, Severity.INFO, "all", evidence, advice)
            continue
        justified = row.justified(subject)
        for each in seen:
            why = row.reason(x for x in subject.stacks if x.environment == each.environment)
            advice = (
                f"Justified: {row.when}."
                if justified
                else f"Remove it. {why} Add it for {row.when}."
            )
            severity = Severity.INFO if justified else Severity.WARNING
            yield Finding(
                row.rule, severity, each.environment, each.evidence, advice, _saves(each, cost)
            )


def _saves(seen: Occurrence, cost: Estimate) -> Decimal | None:
    """Sum the low cost of the parts; None if a price is unknown."""
    lines = [x for x in cost.lines if x.environment == seen.environment and x.part in seen.parts]
    known = [x.low for x in lines if x.low is not None]
    return sum(known, Decimal(0)) if known and len(known) == len(lines) else None


def _programs(pattern: str) -> Callable[[Subject], Iterator[Occurrence]]:
    """Find services whose name, image or command matches a program."""
    compiled = re.compile(rf"(^|[^a-z])({pattern})([^a-z]|$)")

    def find(subject: Subject) -> Iterator[Occurrence]:
        for loaded in subject.stacks:
            for name, service in loaded.stack.services.items():
                texts = (("", name), ("image", service.image), ("command", service.command))
                for key, text in texts:
                    match = compiled.search((text or "").lower())
                    if match is None:
                        continue
                    path = ("services", name, key) if key else ("services", name)
                    where = subject.position(loaded.environment, path)
                    yield Occurrence(
                        loaded.environment, f"{where}: service `{name}` is {match[2]}", (name,)
                    )
                    break

    return find


def _regions(subject: Subject) -> Iterator[Occurrence]:
    clouds = [(s.environment, s.settings.cloud.region) for s in subject.stacks if s.settings.cloud]
    first = clouds[0][1] if clouds else None
    for environment, region in clouds:
        if region != first:
            where = subject.position(environment, ("cloud", "region"))
            evidence = f"{where}: `{environment}` is in {region}, others in {first}"
            yield Occurrence(environment, evidence, ("cluster", "network"))


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
        last = clouds[-1].environment
        where = subject.position(last, ("cloud",))
        listed = ", ".join(projects)
        yield Occurrence(
            last, f"{where}: {len(projects)} projects ({listed})", ("cluster", "network")
        )


def _in_cloud(loaded: LoadedStack) -> bool:
    return loaded.settings.cloud is not None


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
    ),
    Component(
        "overkill/service-mesh",
        "service mesh",
        "A mesh adds a proxy to each pod and needs its own upgrades.",
        f"{MESH_SERVICES} or more services that need mutual TLS",
        _programs("istio|istiod|linkerd|consul|kuma"),
        _many_services,
        _in_cluster,
        elsewhere="A mesh adds a proxy to each replica and needs its own upgrades.",
    ),
    Component(
        "overkill/database-copy",
        "database replica in another region",
        "Several zones of one region and backups cover the common failures.",
        "a compliance requirement of a recovery point below one hour",
        _database_copies,
        applies=_in_cloud,
    ),
    Component(
        "overkill/observability",
        "self-hosted observability stack",
        "The cluster includes the cloud's managed logs and metrics.",
        "more than two full-time reliability engineers",
        _programs("prometheus|grafana|loki|tempo|jaeger|elasticsearch|kibana|thanos|zipkin"),
        elsewhere="`lapwing status` and `lapwing logs` show the state and output of every replica.",
    ),
    Component(
        "overkill/projects",
        "fourth project",
        "Production, staging and shared are already isolated; another project adds a cluster fee, "
        "a load balancer and a NAT.",
        "SOC 2 or HIPAA, which require more isolation",
        _projects,
        applies=_in_cloud,
    ),
    Component(
        "overkill/api-gateway",
        "API gateway",
        "The load balancer already routes by host and path.",
        "rate limits per customer, API keys or API billing",
        _programs("kong|tyk|krakend|apigee|apisix|gravitee"),
        elsewhere="Envoy already routes by host and path.",
    ),
    Component(
        "overkill/vault",
        "secret server",
        "The cloud's secret manager stores static secrets.",
        "dynamic secrets, or secrets in several clouds",
        _programs("vault|openbao|infisical"),
        elsewhere="`lapwing secret` stores static secrets.",
    ),
)
