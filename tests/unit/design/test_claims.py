"""A sentence, a label or a decision is in a document exactly if the rendered files have it."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterator

import pytest

from lapwing.design.claim import Claim, sentences
from lapwing.design.claims import SECTIONS
from lapwing.design.data_section import data
from lapwing.design.decisions import DECISIONS
from lapwing.design.diagrams.model import Graph, Group, Node
from lapwing.design.diagrams.network import network
from lapwing.design.diagrams.topology import topology
from lapwing.design.labels import LABELS
from lapwing.design.parts import Bullets, Document, Paragraph, Table
from lapwing.design.subject import Subject
from lapwing.stack.load import LoadedStack
from tests.unit.design.evidence import DECISION_EVIDENCE, EVIDENCE, LABEL_EVIDENCE, Rendered
from tests.unit.design.recovery import UNITS, recoveries
from tests.unit.design.subjects import EXAMPLE, FLEETDM, made, subjects

ALL = subjects()
NAMES = [f"{loaded.stack.stack}-{loaded.environment}-{n}" for n, (loaded, _) in enumerate(ALL)]


def words(document: Document) -> str:
    return "\n".join(
        text
        for part in document.parts
        for text in (
            (part.text,)
            if isinstance(part, Paragraph)
            else part.items
            if isinstance(part, Bullets)
            else ()
        )
    )


KINDS_OF_STACKS: dict[str, Callable[[LoadedStack, Subject], bool]] = {
    "company-inc local": lambda x, _: (x.path, x.environment) == (EXAMPLE, "local"),
    "company-inc staging": lambda x, _: (x.path, x.environment) == (EXAMPLE, "staging"),
    "company-inc production": lambda x, _: (x.path, x.environment) == (EXAMPLE, "production"),
    "fleetdm kind": lambda x, _: (x.path, x.environment) == (FLEETDM, "kind"),
    "fleetdm production": lambda x, _: (x.path, x.environment) == (FLEETDM, "production"),
    "direct": lambda _, s: s.environment.deployed_by == "lapwing",
    "argo": lambda _, s: s.environment.deployed_by == "argocd",
    "managed databases": lambda _, s: any(m.product for m in s.facts.managed),
    "spot": lambda _, s: any(p.spot for p in s.services),
    "one service": lambda x, _: len(x.stack.services) == 1,
    "ten services": lambda x, _: len(x.stack.services) >= 10,
    "vps": lambda _, s: s.environment.machine is not None,
}
"""The environments that every sentence has to be evaluated for, at least."""


@pytest.mark.parametrize("kind", KINDS_OF_STACKS)
def test_every_kind_of_stack_is_evaluated(kind: str) -> None:
    assert any(KINDS_OF_STACKS[kind](loaded, subject) for loaded, subject in ALL)


def key_of(claim: Claim) -> str:
    """The words by which the evidence of a claim is found."""
    shown = (claim(subject) for _, subject in ALL if claim.holds(subject))
    text = claim.pattern or min(shown, key=len)
    keys = [key for key in EVIDENCE if key in text]
    assert len(keys) == 1, (text, keys)
    return keys[0]


SENTENCES = [claim for section in SECTIONS.values() for claim in section]
KEYS = [key_of(claim) for claim in SENTENCES]


def test_each_sentence_has_separate_evidence() -> None:
    assert sorted(KEYS) == sorted(EVIDENCE)


@pytest.mark.parametrize(("loaded", "subject"), ALL, ids=NAMES)
def test_each_sentence_is_claimed_exactly_where_the_rendered_files_have_it(
    loaded: LoadedStack, subject: Subject
) -> None:
    rendered = Rendered.of(loaded)
    parts = {*loaded.stack.services, *loaded.stack.resources, *rendered.parts}
    for key, claim in zip(KEYS, SENTENCES, strict=True):
        found = EVIDENCE[key](rendered)
        assert claim.holds(subject) == bool(found), (key, found)
        if isinstance(found, set) and found:
            words = set(re.findall(r"[\w-]+", claim(subject)))
            assert words & parts - set(re.findall(r"[\w-]+", claim.pattern)) == found, key


@pytest.mark.parametrize(("loaded", "subject"), ALL, ids=NAMES)
def test_labels_and_decisions_are_shown_exactly_where_the_rendered_files_have_them(
    loaded: LoadedStack, subject: Subject
) -> None:
    rendered = Rendered.of(loaded)
    assert LABEL_EVIDENCE.keys() == LABELS.keys()
    for name, claim in LABELS.items():
        assert claim.holds(subject) == bool(LABEL_EVIDENCE[name](rendered)), name
    for row, (key, evidence) in zip(DECISIONS, DECISION_EVIDENCE.items(), strict=True):
        assert row.subject == key[0]
        assert row.holds(subject) == bool(evidence(rendered)), key


@pytest.mark.parametrize(("loaded", "subject"), ALL, ids=NAMES)
def test_every_sentence_of_the_document_is_a_claim_that_holds(
    loaded: LoadedStack, subject: Subject
) -> None:
    held = [c(subject) for claims in SECTIONS.values() for c in claims if c.holds(subject)]
    text = words(made(loaded, subject))
    assert all(sentence in text or _is_elsewhere(sentence) for sentence in held)
    for sentence in held:
        text = text.replace(sentence, "")
    rest = [line.strip() for line in text.splitlines() if line.strip()]
    known = ("Date: ", "No price is recorded", "Not in the estimate", "`lapwing cost`")
    cost = [line for line in rest if line.startswith(known) or "US dollars" in line]
    notes = rest[len(cost) :] if not cost else [line for line in rest if line not in cost]
    assert all(_is_assumption(line) for line in notes), notes


def _is_elsewhere(sentence: str) -> bool:
    """A sentence on databases is only written beside the table of databases."""
    return "one pod" in sentence or "Databases run" in sentence


def _is_assumption(line: str) -> bool:
    starts = (
        "Usage per month", "List prices", "The low amount", "The expected amount", "Data ",
        "The budget", "Google's credit",
    )  # fmt: skip
    return (
        line.startswith(starts)
        or "assum" in line
        or "Lapwing has no price" in line
        or "count" in line
    )


def claims() -> Iterator[Claim]:
    for section in SECTIONS.values():
        yield from section
    yield from LABELS.values()


def test_each_claim_holds_somewhere_and_not_everywhere() -> None:
    always = {"Lapwing puts no secret in plain text into git, logs or command lines."}
    faults = []
    for claim in claims():
        held = {claim.holds(subject) for _, subject in ALL}
        text = next((claim(s) for _, s in ALL if claim.holds(s)), str(claim.text))
        if held != {True, False} and text not in always:
            faults.append((text, held))
    assert faults == []


def test_each_decision_holds_somewhere_and_not_everywhere() -> None:
    for row in DECISIONS:
        assert {row.holds(subject) for _, subject in ALL} == {True, False}, row


@pytest.mark.parametrize(("loaded", "subject"), ALL, ids=NAMES)
def test_labels_of_pictures_hold(loaded: LoadedStack, subject: Subject) -> None:
    shown = json.dumps([str(topology(subject)), str(network(subject))])
    made = Rendered.of(loaded)
    text = json.dumps([made.objects, made.own, made.shared])
    for label, evidence in (
        ("Private endpoint", "mongodbatlas_privatelink_endpoint_service"),
        ("Cloud NAT", "google_compute_router_nat"),
        ("Secret Manager", '"refreshPolicy": "Periodic"'),
        ("Artifact Registry", "google_artifact_registry_repository"),
        ("slots=True", '"kind": "Rollout"'),
    ):
        if loaded.settings.target == "kubernetes":
            assert (label in shown) == (evidence in text), label


@pytest.mark.parametrize(("loaded", "subject"), ALL, ids=NAMES)
def test_topology_shows_every_service_and_database(loaded: LoadedStack, subject: Subject) -> None:
    def keys(members: tuple[Node | Group, ...]) -> Iterator[str]:
        for member in members:
            yield member.key
            yield from () if isinstance(member, Node) else keys(member.members)

    for drawn in (topology(subject), network(subject)):
        assert isinstance(drawn, Graph)
        found = list(keys(drawn.members))
        assert len(found) == len(set(found))
        services = set(loaded.stack.services) - Rendered(loaded).migrations
        assert {*services, *loaded.stack.resources} <= set(found)


def test_each_service_uses_only_databases_that_it_needs() -> None:
    for loaded, subject in ALL:
        for name, service in loaded.stack.services.items():
            assert {part for part, _ in subject.uses(name)} == set(service.needs), name


def _with_database(**changes: object) -> Subject:
    """An environment whose Atlas database differs from what `infra` renders."""
    subject = next(s for _, s in ALL for _ in s.databases if len(s.databases) == 1)
    assert subject.cloud is not None
    facts = subject.project
    databases = tuple(dataclasses.replace(d, **changes) for d in facts.databases)  # type: ignore[arg-type]
    project = dataclasses.replace(facts, databases=databases)
    return dataclasses.replace(subject, cloud=dataclasses.replace(subject.cloud, facts=project))


@pytest.mark.parametrize(("nodes", "claimed"), [(3, True), (1, False), (2, False)])
def test_three_nodes_are_stated_only_for_a_database_that_has_them(
    nodes: int, *, claimed: bool
) -> None:
    subject = _with_database(regions=(("CENTRAL_US", nodes),))
    text = "\n".join(sentences(SECTIONS["data"], subject))
    assert ("three nodes" in text) == claimed


def test_database_without_a_chosen_version_has_no_gap_in_its_name() -> None:
    subject = _with_database(version="", regions=(("CENTRAL_US", 1),), backup=False)
    rows = [row for part in data(subject) if isinstance(part, Table) for row in part.rows]
    assert [(row[1][:14], row[-1]) for row in rows] == [("MongoDB, Atlas", "none")]


def test_database_without_an_allowed_connection_is_left_out() -> None:
    subject, part = next((s, p.part) for _, s in ALL for p in s.facts.pods if p.uses)
    assert list(subject.uses(part))
    facts = dataclasses.replace(subject.facts, flows=())
    environment = dataclasses.replace(subject.environment, facts=facts)
    assert list(dataclasses.replace(subject, environment=environment).uses(part)) == []


@pytest.mark.parametrize(("loaded", "subject"), ALL, ids=NAMES)
def test_recovery_of_each_database_is_what_the_rendered_files_have(
    loaded: LoadedStack, subject: Subject
) -> None:
    rows = {r[0]: r[3:] for part in data(subject) if isinstance(part, Table) for r in part.rows}
    expected = recoveries(Rendered.of(loaded))
    assert rows.keys() == expected.keys()
    for name, (storage, backup, point, loses, restore) in rows.items():
        wanted = expected[name]
        size = f"{storage[:-2]} {storage[-2:]}".split() if storage != "-" else None
        mib = None if size is None else float(size[0]) * UNITS[size[1]]
        assert mib == wanted.storage_mib, name
        assert all(word.removeprefix("@") in backup for word in wanted.schedule), name
        assert backup.startswith("none") == (not wanted.schedule), name
        days = wanted.window_days
        window = f"any moment of the last {days} days" if days else "the last backup"
        assert point == (window if wanted.schedule else "none"), name
        is_continuous = bool(wanted.schedule) and days > 0
        assert ("1 minute" in loses or "transactions" in loses) == is_continuous, name
        assert (loses == "all data") == (not wanted.schedule), name
        assert ("failover" in restore) == wanted.standby, name
        assert ("`lapwing restore`" in restore) == wanted.verb, name
        made_outside = bool(wanted.schedule) and rendered_outside(subject, name)
        assert ("a restore" in restore) == made_outside, name


def rendered_outside(subject: Subject, name: str) -> bool:
    """Whether a provider runs the database, not a pod or the machine."""
    return not subject.on_machine and name not in {p.part for p in subject.data}
