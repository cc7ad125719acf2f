"""What is too much for now: one row for each component that teams add too early. Pure.

A row is always a finding. Where the stack has the component and no reason for it is visible, it is
a warning with what it costs; where the stack does without, the finding is for information: that
this is right today, and when to bring the component in. Nothing is known of a team beyond its stack
file, so the reasons that lie outside (an SLA, an auditor) are named for people to judge.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal

from lapwing.cost.environments import SHARED, project_of
from lapwing.cost.ledger import Estimate
from lapwing.review.finding import Finding, Severity, Subject

MESH_SERVICES = 10
"""Services from which a mesh that encrypts between them begins to pay."""
FEW_PROJECTS = 3
"""Production, staging and what they share."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A component that a stack has: the environment, the evidence, and the parts it costs."""

    environment: str
    evidence: str
    parts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """A component: why it has to wait, when to bring it in, and how to see it in a stack."""

    rule: str
    name: str
    why: str
    when: str
    find: Callable[[Subject], Iterator[Seen]]
    justified: Callable[[Subject], bool] = lambda _: False


def overkill(subject: Subject, cost: Estimate) -> Iterator[Finding]:
    """The findings of every row."""
    for row in ROWS:
        seen = list(row.find(subject))
        if not seen:
            evidence = _absent(row, subject)
            wait = f"Right for now: {row.why} Bring it in with {row.when}."
            now = f"Consider it: {row.when} is reached."
            advice = now if row.justified(subject) else wait
            yield Finding(row.rule, Severity.INFO, "all", evidence, advice)
            continue
        justified = row.justified(subject)
        for each in seen:
            advice = (
                f"It has its reason: {row.when}."
                if justified
                else f"Take it out for now: {row.why} Bring it in with {row.when}."
            )
            severity = Severity.INFO if justified else Severity.WARNING
            yield Finding(
                row.rule, severity, each.environment, each.evidence, advice, _saves(each, cost)
            )


def _absent(row: Row, subject: Subject) -> str:
    names = ", ".join(s.environment for s in subject.stacks)
    return f"No {row.name} in {names}."


def _saves(seen: Seen, cost: Estimate) -> Decimal | None:
    """What the parts in question cost at the least; None if that is not known."""
    lines = [x for x in cost.lines if x.environment == seen.environment and x.part in seen.parts]
    known = [x.low for x in lines if x.low is not None]
    return sum(known, Decimal(0)) if known and len(known) == len(lines) else None


def _programs(pattern: str) -> Callable[[Subject], Iterator[Seen]]:
    """Services whose name, image or command is one of some programs."""
    compiled = re.compile(rf"(^|[^a-z])({pattern})([^a-z]|$)")

    def find(subject: Subject) -> Iterator[Seen]:
        for loaded in subject.stacks:
            for name, service in loaded.stack.services.items():
                for key, text in (
                    ("", name),
                    ("image", service.image),
                    ("command", service.command),
                ):
                    match = compiled.search((text or "").lower())
                    if match is None:
                        continue
                    path = ("services", name, key) if key else ("services", name)
                    where = subject.at(loaded.environment, path)
                    yield Seen(
                        loaded.environment, f"{where}: service `{name}` is {match[2]}", (name,)
                    )
                    break

    return find


def _regions(subject: Subject) -> Iterator[Seen]:
    clouds = [(s.environment, s.settings.cloud.region) for s in subject.stacks if s.settings.cloud]
    first = clouds[0][1] if clouds else None
    for environment, region in clouds:
        if region != first:
            where = subject.setting(environment, "cloud", "region")
            evidence = f"{where}: `{environment}` is in {region}, others in {first}"
            yield Seen(environment, evidence, ("cluster", "network"))


def _database_copies(subject: Subject) -> Iterator[Seen]:
    for loaded in subject.stacks:
        for name, resource in loaded.stack.resources.items():
            if resource.replica_region is not None:
                path = ("resources", name, "replica_region")
                where = subject.at(loaded.environment, path)
                evidence = f"{where}: `{name}` has a copy in {resource.replica_region}"
                yield Seen(loaded.environment, evidence)


def _projects(subject: Subject) -> Iterator[Seen]:
    clouds = [s for s in subject.stacks if s.settings.cloud]
    projects = dict.fromkeys([*(project_of(s) for s in clouds), SHARED] if clouds else ())
    if len(projects) > FEW_PROJECTS:
        last = clouds[-1].environment
        where = subject.setting(last, "cloud")
        told = ", ".join(projects)
        yield Seen(last, f"{where}: {len(projects)} projects ({told})", ("cluster", "network"))


def _many_services(subject: Subject) -> bool:
    return any(len(s.stack.services) >= MESH_SERVICES for s in subject.stacks)


ROWS = (
    Row(
        "overkill/multi-region",
        "second region",
        "A second region doubles clusters, network and on-call work.",
        "an SLA of 99.99 %, or users on several continents",
        _regions,
    ),
    Row(
        "overkill/service-mesh",
        "service mesh",
        "A mesh adds a proxy to each pod and an upgrade path of its own.",
        f"{MESH_SERVICES} or more services that need mutual TLS",
        _programs("istio|istiod|linkerd|consul|kuma"),
        _many_services,
    ),
    Row(
        "overkill/database-copy",
        "copy of a database in another region",
        "Zones of one region and backups cover the failures that happen.",
        "a recovery point under one hour as a compliance need",
        _database_copies,
    ),
    Row(
        "overkill/observability",
        "observability stack of its own",
        "The cloud's logs and metrics come with the cluster, and nobody has to run them.",
        "more than two engineers who do nothing but reliability",
        _programs("prometheus|grafana|loki|tempo|jaeger|elasticsearch|kibana|thanos|zipkin"),
    ),
    Row(
        "overkill/projects",
        "fourth project",
        "Production, staging and shared are apart already; each project more is a cluster fee, a "
        "load balancer and a NAT.",
        "SOC 2 or HIPAA, which ask for more separation",
        _projects,
    ),
    Row(
        "overkill/api-gateway",
        "API gateway",
        "The load balancer routes by host and path already.",
        "rate limits for customers, API keys or monetisation",
        _programs("kong|tyk|krakend|apigee|apisix|gravitee"),
    ),
    Row(
        "overkill/vault",
        "secret server",
        "The cloud's secret manager (on a machine, `lapwing secret`) keeps static secrets.",
        "dynamic secrets, or secrets of several clouds",
        _programs("vault|openbao|infisical"),
    ),
)
