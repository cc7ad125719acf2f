"""The environments of every golden stack, as the documents and pictures see them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from lapwing.cost.book import book
from lapwing.cost.estimate import estimate
from lapwing.design.cost_section import Costs
from lapwing.design.document import Sources, document
from lapwing.design.parts import Document
from lapwing.design.subject import Subject, subject_of
from lapwing.inventory.read import read
from lapwing.stack.load import LOCAL, LoadedStack, environments, load
from tests.unit.cost.stacks import CASES, ROOT, cases, file_of
from tests.unit.render.stacks import GOLDEN

EXAMPLE = ROOT / "examples/company-inc/lapwing.yaml"
FLEETDM = ROOT / "stacks/fleetdm/lapwing.yaml"
PATHS = sorted(
    {EXAMPLE}
    | {file_of(case) for case in cases(CASES)}
    | {*(GOLDEN / "infra").glob("*/lapwing.yaml")}
    | {*(GOLDEN / "kubernetes").glob("*/lapwing.yaml")}
    | {GOLDEN / "review/many-services/lapwing.yaml"}
)
WORKFLOW = "jobs: {check: {runs-on: ubuntu-latest, steps: [{name: Check, run: lapwing check}]}}"


@cache
def subjects() -> tuple[tuple[LoadedStack, Subject], ...]:
    """Every environment of every golden stack."""
    return tuple(_subjects())


def _subjects() -> Iterator[tuple[LoadedStack, Subject]]:
    for path in PATHS:
        stacks = environments(path, folders=False)
        if path in (EXAMPLE, FLEETDM):
            stacks.append(load(path, LOCAL))
        found = read(stacks)
        yield from ((loaded, subject_of(found, loaded.environment)) for loaded in stacks)


def made(loaded: LoadedStack, subject: Subject, *, brief: bool = False) -> Document:
    """The document of an environment, with a small workflow."""
    clouds = [s for s in environments(loaded.path, folders=False) if s.settings.cloud]
    sources = Sources(Costs(estimate(read([loaded]), book())), WORKFLOW, read(clouds))
    return document(subject, sources, brief=brief)
