"""The architecture document, generated from what is rendered.

A document is a list of parts (`parts.py`), which Markdown, HTML and PDF format. Its sentences are
in `claims.py` and `decisions.py`, each with the facts under which it holds; its tables and pictures
contain values of the inventory and of the estimate. The brief form has one or two pages.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from lapwing.design.claim import sentences
from lapwing.design.claims import SECTIONS, section
from lapwing.design.cost_section import Costs, cost
from lapwing.design.data_section import data
from lapwing.design.decisions import HEADER, decisions
from lapwing.design.diagrams.pictures import picture
from lapwing.design.parts import Bullets, Document, Figure, Heading, Origin, Paragraph, Part, Table
from lapwing.design.subject import Subject, joined, size
from lapwing.design.subject import span as count
from lapwing.inventory.images import ImageLayer, ImageOutline
from lapwing.inventory.model import Environment, Inventory, Pods, StackInventory


@dataclass(frozen=True, slots=True)
class Sources:
    """What a document describes, besides the environment.

    `workflow` is the text of the workflow that `lapwing ci init` writes; `stack` are all
    environments of the stack; `later` lists components that were left out, with why and when;
    `images` describe those that are built.
    """

    costs: Costs
    workflow: str
    stack: StackInventory
    later: Sequence[tuple[str, str, str]] = ()
    images: Sequence[ImageOutline] = ()
    origin: Origin = field(default_factory=Origin)


def document(subject: Subject, sources: Sources, *, brief: bool = False) -> Document:
    """Generate the document of an environment: all sections, or the brief form."""
    parts: list[Part] = [Paragraph(str(sources.origin)), Heading("Summary of decisions")]
    rows = tuple(row.cells(subject) for row in decisions(subject))
    if brief:
        parts.append(Table(HEADER[:3], tuple(row[:3] for row in rows)))
    else:
        parts.append(Table(HEADER, rows))
    parts += section(subject, "cloud", "Architecture")
    parts.append(Figure(picture("architecture", subject, sources.workflow)))
    if not brief:
        parts += _projects(subject, sources.stack)
        parts += _network(subject, sources)
        parts += [*section(subject, "compute", "Compute"), _services(subject)]
        parts += section(subject, "delivery", "Deployment strategy")
        parts.append(Figure(picture("bluegreen", subject, sources.workflow)))
        parts += section(subject, "containers", "Images and pipeline")
        parts += _images(sources.images)
        parts.append(Figure(picture("pipeline", subject, sources.workflow)))
    else:
        parts += section(subject, "delivery", "Deployment strategy")
    parts += data(subject)
    parts += [Heading("Security"), Bullets(tuple(sentences(SECTIONS["security"], subject)))]
    parts += cost(subject, sources.costs, brief=brief)
    if sources.later:
        header = ("Component", "Why not now", "Add it for")
        rows = tuple(sources.later)
        parts.append(Heading("Not included"))
        parts.append(
            Table((header[0], header[2]), tuple((r[0], r[2]) for r in rows))
            if brief
            else Table(header, rows)
        )
    points = tuple(_open(subject, sources))
    if points:
        parts += [Heading("Open points"), Bullets(points)]
    title = f"{subject.stack}: architecture of {subject.environment.name}"
    return Document(title, tuple(parts), sources.origin)


def _projects(subject: Subject, stack: StackInventory) -> Iterator[Part]:
    if stack.shared is None or subject.cloud is None:
        return
    rows = [
        (p.identity, joined(p.environments), p.region, _pods(stack.members(p)), _contents(p.facts))
        for p in stack.projects
    ]
    shared = stack.shared
    rows.append((shared.identity, "all", shared.region, "-", _contents(shared.facts)))
    yield from section(subject, "projects", "Projects")
    yield Table(("Project", "Environments", "Region", "Pods", "Contents"), tuple(rows))


def _pods(environments: Iterable[Environment]) -> str:
    """Count the pods of environments, without jobs and controllers: `3-4, services on spot`."""
    pods = [p for e in environments for p in e.facts.pods if p.component != "job"]
    total = count(sum(p.min for p in pods), sum(p.max for p in pods))
    return total + (", services on spot" if any(p.spot for p in pods) else "")


def _contents(facts: Inventory) -> str:
    found = {
        "cluster": facts.clusters,
        "network": facts.subnets,
        "load balancer": facts.load_balancers,
        "secrets": facts.secrets,
        "MongoDB Atlas": facts.databases,
        "registry": facts.registries,
        "DNS zones": facts.zones,
    }
    return ", ".join(name for name, things in found.items() if things)


def _network(subject: Subject, sources: Sources) -> Iterator[Part]:
    yield from section(subject, "network", "Network")
    facts = subject.project
    rows = [(f"subnet {s.name}", s.cidr, s.region) for s in facts.subnets]
    rows += [(name, cidr, s.region) for s in facts.subnets for name, cidr in s.secondary]
    rows += [("control plane", c.control_plane, c.region) for c in facts.clusters]
    rows += [(f"databases, peered as {p.name}", p.cidr, "all") for p in facts.peerings]
    if rows:
        yield Table(("Range", "Addresses", "Region"), tuple(rows))
    yield Figure(picture("network", subject, sources.workflow))


def _services(subject: Subject) -> Table:
    header = ("Service", "Kind", "Route", "Replicas", "CPU", "Memory", "Uses")
    rows = [_service(subject, p, p.component) for p in subject.services]
    if subject.edge is not None:
        rows.append(_service(subject, subject.edge, "Envoy"))
    return Table(header, tuple(rows))


def _service(subject: Subject, pods: Pods, kind: str) -> tuple[str, ...]:
    cpu, memory = pods.requests.cpu, pods.requests.memory
    return (
        pods.part,
        kind,
        ", ".join(subject.routes(pods.part)) or "-",
        _replicas(pods),
        "-" if cpu is None else f"{cpu * 1000:.0f}m",
        "-" if memory is None else size(memory),
        ", ".join(dict.fromkeys(part for part, _ in subject.uses(pods.part))) or "-",
    )


def _images(images: Sequence[ImageOutline]) -> Iterator[Part]:
    rows = tuple(
        (
            i.service,
            i.base or "none",
            "; ".join(map(_layer, i.layers)),
            f"UID {i.user}" if i.user.isdigit() else i.user or "that of the base image",
        )
        for i in images
    )
    if rows:
        yield Table(("Image", "Base image", "Layers above the base image, in order", "User"), rows)


def _layer(layer: ImageLayer) -> str:
    where = joined(f"`{path}`" for path in layer.paths)
    return f"{layer.content} in {where}" if where else f"`{layer.content}`"


def _replicas(pods: Pods) -> str:
    if pods.schedule is not None:
        return f"on schedule `{pods.schedule}`"
    return "runs once" if pods.component == "job" else count(pods.min, pods.max)


def _open(subject: Subject, sources: Sources) -> Iterable[str]:
    yield from sentences(SECTIONS["open"], subject)
    estimate, budget = sources.costs.estimate, sources.costs.budget
    if budget is not None and budget.remark:
        unused = any(not lever.used for lever in sources.costs.levers)
        advice = "Use a savings option" if unused else "Choose smaller sizes"
        yield f"{budget.remark} {advice}, or raise `budget`."
    if estimate.unknown:
        items = joined(line.item for line in estimate.unknown)
        yield f"No price is recorded for: {items}."
    if estimate.unstated:
        keys = joined(f"`{name.partition(': ')[2]}`" for name in estimate.unstated)
        yield f"Not in the estimate, because it is not set: {keys}."
