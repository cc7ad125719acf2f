"""The architecture document, generated from the stack.

A document is a list of parts, which Markdown and PDF format. On one or two pages it describes the
services, data, delivery, security and cost, and the components that were left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lapwing.design.claims import security
from lapwing.design.diagrams import pictures
from lapwing.design.diagrams.mermaid import mermaid
from lapwing.design.diagrams.model import Amount, Picture
from lapwing.inventory.read import read
from lapwing.stack.cloud import DEFAULT_TIER, is_managed, project_of, shared_project_of
from lapwing.stack.load import LoadedStack
from lapwing.stack.model import Resource, Service
from lapwing.stack.quantities import show_duration, show_fraction

_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Heading:
    """A section title."""

    text: str


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A paragraph of text."""

    text: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table; all rows have the length of the header."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Figure:
    """A picture."""

    picture: Picture


Part = Heading | Paragraph | Table | Figure


@dataclass(frozen=True, slots=True)
class Document:
    """A title and the parts in order."""

    title: str
    parts: tuple[Part, ...]


def document(
    loaded: LoadedStack,
    amounts: Sequence[Amount] = (),
    *,
    unknown: int = 0,
    later: Sequence[tuple[str, str]] = (),
) -> Document:
    """Generate the document of a stack in one environment.

    `amounts` is the monthly cost of each part, `unknown` the number of lines without a price;
    `later` lists components that were left out, and when to add each.
    """
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
    parts += [Paragraph(" ".join(security(read([loaded])))), Heading("Cost")]
    parts += _cost(loaded, amounts, unknown)
    if later:
        parts += [
            Heading("Not included"),
            Table(("Component", "Add it for"), tuple(later)),
        ]
    return Document(f"{loaded.stack.stack}: architecture of {loaded.environment}", tuple(parts))


def _summary(loaded: LoadedStack) -> str:
    services = loaded.stack.services
    count = f"{len(services)} service{'s' if len(services) != 1 else ''}"
    text = f"The stack {loaded.stack.stack} has {count}"
    if loaded.stack.resources:
        text += f" and uses {_and([r.kind for r in loaded.stack.resources.values()])}"
    settings = loaded.settings
    if settings.target == "machine":
        databases = ", and databases run on the same machine" if loaded.stack.resources else ""
        return text + (
            f". In {loaded.environment} it runs on one machine: services are processes behind "
            f"Envoy{databases}. The same stack file can be deployed to Kubernetes."
        )
    text += f". In {loaded.environment} it runs on Kubernetes"
    if settings.cloud is None:
        return text + ", in the cluster of the current kubeconfig context."
    domain = f" Its URL is https://{settings.domain}." if settings.domain else ""
    return text + (
        f": GKE Autopilot in {settings.cloud.region}, project "
        f"{project_of(loaded.stack, loaded.environment)}; the registry, DNS and the CI identity "
        f"are in {shared_project_of(loaded.stack)}.{domain} The cluster is billed per pod, not per "
        "node, and has one NAT gateway."
    )


def _services(loaded: LoadedStack) -> tuple[tuple[str, ...], ...]:
    return tuple(
        (name, s.kind, s.route or "-", _replicas(s), _cpu(s), _memory(s), ", ".join(s.needs) or "-")
        for name, s in loaded.stack.services.items()
    )


def _replicas(service: Service) -> str:
    if service.schedule is not None:
        return f"runs at `{service.schedule.cron}` ({service.schedule.timezone})"
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
        rows.append((name, kind, _where(loaded, resource), storage, _backup(loaded, resource)))
    return tuple(rows)


def _backup(loaded: LoadedStack, resource: Resource) -> str:
    """Atlas backs up by the schedule that is rendered; any other backup is made by the team."""
    if not resource.backup:
        return "none"
    return "daily, by Atlas" if _is_atlas(loaded, resource) else "by the team, outside of Lapwing"


def _is_atlas(loaded: LoadedStack, resource: Resource) -> bool:
    return loaded.settings.cloud is not None and resource.kind == "mongodb"


def _where(loaded: LoadedStack, resource: Resource) -> str:
    if _is_atlas(loaded, resource):
        tier = resource.tier or DEFAULT_TIER
        more = f", a replica in {resource.replica_region}" if resource.replica_region else ""
        return f"MongoDB Atlas {tier}, 3 zones{more}"
    if is_managed(resource, loaded.settings):
        return "outside of the cluster"
    return "in the cluster" if loaded.settings.target == "kubernetes" else "on the machine"


def _delivery(loaded: LoadedStack) -> str:
    settings = loaded.settings
    sentences = ["Each commit to the desired state is one deployment;"]
    if settings.target == "machine":
        sentences.append("the agent deploys it. CI has no access to the machine.")
    elif settings.uses_argo_cd:
        sentences.append("Argo CD deploys it. CI has no access to the cluster.")
    else:
        sentences.append("`lapwing deploy` creates the commit and applies it to the cluster.")
    if settings.target == "kubernetes" and not settings.uses_argo_rollouts:
        sentences.append(
            "Services are Deployments: a rolling update replaces one pod after the other, and old "
            "pods keep serving until new ones are ready."
        )
        return " ".join(sentences)
    sentences.append(
        "A new release starts in the idle slot, must pass its health checks and smoke tests, and "
        "then gets all traffic."
    )
    sentences.append(
        "The services of a commit switch one after the other."
        if settings.target == "kubernetes"
        else "All services of a commit switch in one update of the routes."
    )
    for name, service in loaded.stack.services.items():
        analysis = service.rollout.analysis
        if service.kind != "web" or analysis is None:
            continue
        limits = []
        if analysis.max_error_rate is not None:
            limits.append(f"more than {show_fraction(analysis.max_error_rate)} errors")
        if analysis.max_p95 is not None:
            limits.append(f"a p95 latency above {show_duration(analysis.max_p95)}")
        if limits:
            sentences.append(
                f"{name} rolls back automatically on {' or '.join(limits)} within "
                f"{show_duration(analysis.window)} of the switch; the old slot keeps running for "
                f"{show_duration(service.rollout.keep_old)}."
            )
    return " ".join(sentences)


def _cost(loaded: LoadedStack, amounts: Sequence[Amount], unknown: int) -> list[Part]:
    budget = loaded.settings.budget
    limit = f" The budget is ${budget:,.2f}, with alerts at 50 %, 90 % and 100 %." if budget else ""
    if not amounts:
        return [Paragraph("`lapwing cost` has no price for this environment." + limit)]
    pie = pictures.picture("cost", loaded, amounts, unknown)
    if unknown:
        lines = f"{unknown} lines of" if unknown > 1 else "1 line of"
        limit = f" Not included: {lines} unknown price.{limit}"
    text = (
        f"About ${sum(a for _, a in amounts):,.2f} per month are expected at list prices; `lapwing "
        f"cost` lists every item with its range, its assumption and its source.{limit}"
    )
    return [Paragraph(text), Figure(pie)]


def _size(size: int) -> str:
    if size % _GIB == 0:
        return f"{size // _GIB}Gi"
    return f"{size / 2**20:g}Mi"


def _and(words: Sequence[str]) -> str:
    unique = list(dict.fromkeys(words))
    return " and ".join([", ".join(unique[:-1]), unique[-1]]) if len(unique) > 1 else unique[0]


def markdown(document: Document) -> str:
    """Format the document as Markdown, with its pictures as Mermaid."""
    parts = [f"# {document.title}", *(_markdown_part(part) for part in document.parts)]
    parts.append("*Generated by `lapwing design` from the stack file.*")
    return "\n\n".join(parts) + "\n"


def _markdown_part(part: Part) -> str:
    if isinstance(part, Heading):
        return f"## {part.text}"
    if isinstance(part, Paragraph):
        return part.text
    if isinstance(part, Figure):
        return f"```mermaid\n{mermaid(part.picture)}```"
    rows = [part.header, tuple("---" for _ in part.header), *part.rows]
    return "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in rows)
