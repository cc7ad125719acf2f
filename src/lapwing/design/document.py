"""What the architecture document says, from the stack alone, so that it cannot drift from it. Pure.

A document is a list of parts; Markdown and PDF are two ways to write the same parts. It says what
is there, why, what it costs and what was left out on purpose, on one or two pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lapwing.design.diagrams import pictures
from lapwing.design.diagrams.model import Amount, Picture
from lapwing.render.terraform.cloud import has_routes, secrets
from lapwing.stack.cloud import project_of, shared_project_of
from lapwing.stack.load import LoadedStack
from lapwing.stack.model import Resource, Service
from lapwing.stack.quantities import show_duration, show_fraction

_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Heading:
    """The title of a section."""

    text: str


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Running text."""

    text: str


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a header, all of one length."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Figure:
    """A picture."""

    picture: Picture


Part = Heading | Paragraph | Table | Figure


@dataclass(frozen=True, slots=True)
class Document:
    """The title and the parts in their order."""

    title: str
    parts: tuple[Part, ...]


def document(
    loaded: LoadedStack,
    amounts: Sequence[Amount] = (),
    *,
    unknown: int = 0,
    later: Sequence[tuple[str, str]] = (),
) -> Document:
    """The document of a stack in one environment. `amounts` is what each part costs a month, and
    `unknown` how many lines of the estimate have no price and are not in it; `later` names
    components that were left out, and when to bring each in."""
    parts: list[Part] = [
        Paragraph(_summary(loaded)),
        Figure(pictures.architecture(loaded)),
        Heading("Services"),
        Table(
            ("Service", "Kind", "Route", "Replicas", "CPU", "Memory", "Needs"), _services(loaded)
        ),
    ]
    if loaded.stack.resources:
        parts += [
            Heading("Data"),
            Table(("Resource", "Kind", "Where", "Storage", "Backup"), _data(loaded)),
        ]
    parts += [Heading("Delivery"), Paragraph(_delivery(loaded)), Heading("Security")]
    parts += [Paragraph(_security(loaded)), Heading("Cost")]
    parts += _cost(loaded, amounts, unknown)
    if later:
        parts += [
            Heading("Left out on purpose"),
            Table(("Component", "Bring it in when"), tuple(later)),
        ]
    return Document(f"{loaded.stack.stack}: architecture of {loaded.environment}", tuple(parts))


def _summary(loaded: LoadedStack) -> str:
    services = loaded.stack.services
    count = f"{len(services)} service{'s' if len(services) != 1 else ''}"
    told = f"The stack {loaded.stack.stack} has {count}"
    if loaded.stack.resources:
        told += f" and uses {_and([r.kind for r in loaded.stack.resources.values()])}"
    settings = loaded.settings
    if settings.target == "machine":
        return told + (
            f". In {loaded.environment} it runs on one machine: each service as processes behind "
            "Envoy, with its data beside it. The same file runs on Kubernetes when it has to."
        )
    told += f". In {loaded.environment} it runs on Kubernetes"
    if settings.cloud is None:
        return told + ", in whatever cluster the current context names."
    domain = f" It answers at https://{settings.domain}." if settings.domain else ""
    return told + (
        f": GKE Autopilot in {settings.cloud.region}, project "
        f"{project_of(loaded.stack, loaded.environment)}; registry, DNS and the identity of CI are "
        f"in {shared_project_of(loaded.stack)}.{domain} Pods are paid for, not machines, and one "
        "NAT serves the whole project."
    )


def _services(loaded: LoadedStack) -> tuple[tuple[str, ...], ...]:
    return tuple(
        (name, s.kind, s.route or "-", _replicas(s), _cpu(s), _memory(s), ", ".join(s.needs) or "-")
        for name, s in loaded.stack.services.items()
    )


def _replicas(service: Service) -> str:
    if service.kind == "job":
        return "runs once"
    least, most = service.replicas.min, service.replicas.max
    return f"{least} to {most}" if most and most != least else str(least)


def _cpu(service: Service) -> str:
    return f"{service.resources.cpu * 1000:g}m" if service.resources.cpu else "-"


def _memory(service: Service) -> str:
    return _size(service.resources.memory) if service.resources.memory else "-"


def _data(loaded: LoadedStack) -> tuple[tuple[str, ...], ...]:
    rows = []
    for name, resource in loaded.stack.resources.items():
        kind = f"{resource.kind} {resource.version}" if resource.version else resource.kind
        storage = _size(resource.storage) if resource.storage else "-"
        backup = "daily" if resource.backup else "none"
        rows.append((name, kind, _where(loaded, resource), storage, backup))
    return tuple(rows)


def _where(loaded: LoadedStack, resource: Resource) -> str:
    if loaded.settings.cloud is not None and resource.kind == "mongodb":
        tier = resource.tier or "M10"
        more = f", a copy in {resource.replica_region}" if resource.replica_region else ""
        return f"MongoDB Atlas {tier}, 3 zones{more}"
    return "in the cluster" if loaded.settings.target == "kubernetes" else "on the machine"


def _delivery(loaded: LoadedStack) -> str:
    is_cluster = loaded.settings.target == "kubernetes"
    deployer = "Argo CD" if is_cluster else "the agent"
    together = (
        "Services of one commit switch one after the other, within seconds."
        if is_cluster
        else "All services of one commit switch in one update of the routes."
    )
    told = [
        f"One commit in the desired state is one deployment; {deployer} is the only one that acts "
        "on it, and CI never touches what runs. A new release starts in the idle slot, has to be "
        f"healthy and to pass its smoke tests, and then gets all traffic at once. {together}"
    ]
    for name, service in loaded.stack.services.items():
        analysis = service.rollout.analysis
        if service.kind != "web" or analysis is None:
            continue
        limits = []
        if analysis.max_error_rate is not None:
            limits.append(f"more than {show_fraction(analysis.max_error_rate)} errors")
        if analysis.max_p95 is not None:
            limits.append(f"a p95 above {show_duration(analysis.max_p95)}")
        if limits:
            told.append(
                f"{name}: {' or '.join(limits)} within {show_duration(analysis.window)} takes it "
                f"back; the old slot stays warm for {show_duration(service.rollout.keep_old)}."
            )
    return " ".join(told)


def _security(loaded: LoadedStack) -> str:
    count = len(secrets(loaded))
    kept = f"{count} secret{'s' if count != 1 else ''}" if count else "Secrets, when there are any,"
    verb = "is" if count == 1 else "are"
    if loaded.settings.cloud is None:
        where = (
            "in Kubernetes Secrets"
            if loaded.settings.target == "kubernetes"
            else "encrypted at rest"
        )
        return (
            f"HTTPS is the only way in, and Envoy the only listener. {kept} {verb} kept {where}, "
            "never in git in clear, in a log or on a command line."
        )
    way_in = (
        "HTTPS is the only way in: the load balancer speaks TLS 1.2 or newer and reaches one port "
        "of the edge."
        if has_routes(loaded)
        else "There is no way in: no service has a route, so there is no load balancer."
    )
    told = (
        f"{way_in} The firewall denies by default, both ways; nodes have no public address, and "
        "the control plane answers listed networks only. Nodes may read images and nothing else; "
        "CI may push images from one branch, by a token that is exchanged, without a key. "
        f"{kept} {verb} in Secret Manager, in one region, readable by name only."
    )
    if any(r.kind == "mongodb" for r in loaded.stack.resources.values()):
        told += " The database has no public way in: it is reached by a private endpoint."
    return told


def _cost(loaded: LoadedStack, amounts: Sequence[Amount], unknown: int) -> list[Part]:
    budget = loaded.settings.budget
    limit = (
        f" The budget is ${budget:,.2f}; alerts come at half, nine tenths and all of it."
        if budget
        else ""
    )
    if not amounts:
        return [Paragraph("Nothing here has a price that `lapwing cost` knows." + limit)]
    pie = pictures.picture("cost", loaded, amounts, unknown)
    if unknown:
        lines = f"{unknown} lines have" if unknown > 1 else "1 line has"
        limit = f" {lines} no known price and no part in that.{limit}"
    told = (
        f"About ${sum(a for _, a in amounts):,.2f} a month at list prices, halfway between the "
        f"least and the most replicas; `lapwing cost` shows every line with its source.{limit}"
    )
    return [Paragraph(told), Figure(pie)]


def _size(size: int) -> str:
    if size % _GIB == 0:
        return f"{size // _GIB}Gi"
    return f"{size / 2**20:g}Mi"


def _and(words: Sequence[str]) -> str:
    unique = list(dict.fromkeys(words))
    return " and ".join([", ".join(unique[:-1]), unique[-1]]) if len(unique) > 1 else unique[0]
