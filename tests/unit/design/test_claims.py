"""A sentence, a label or a decision is in a document exactly if the rendered files have it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator

import pytest

from lapwing.design.claims import SECTIONS, Claim, sentences
from lapwing.design.decisions import DECISIONS
from lapwing.design.diagrams.model import Graph, Group, Node
from lapwing.design.diagrams.network import network
from lapwing.design.diagrams.topology import topology
from lapwing.design.document import Bullets, Document, Paragraph, Table, data_of
from lapwing.design.labels import LABELS
from lapwing.design.subject import Subject
from lapwing.render.kubernetes import render
from lapwing.render.terraform.files import files
from lapwing.stack.load import LoadedStack
from tests.unit.design.subjects import made, subjects

ALL = subjects()
NAMES = [f"{loaded.stack.stack}-{loaded.environment}-{n}" for n, (loaded, _) in enumerate(ALL)]


def rendered(loaded: LoadedStack) -> str:
    """All rendered files of an environment as one text."""
    text = ""
    if loaded.settings.cloud is not None:
        roots = files([loaded]).values()
        text = "".join(json.dumps(json.loads(file)) for root in roots for file in root.values())
    if loaded.settings.target == "kubernetes":
        images = {n: "a/b:1" for n, s in loaded.stack.services.items() if s.image is None}
        text += json.dumps(render.objects(render.prepare(loaded, images)))
    return text


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


EVIDENCE = {
    "Ingress is HTTPS only": "google_compute_global_forwarding_rule",
    "The firewall denies": '"deny-out"',
    "Nodes have no public address": '"enable_private_nodes": true',
    "One NAT gateway": "google_compute_router_nat",
    "NetworkPolicies deny": '"policyTypes": ["Ingress", "Egress"]}',
    "The cluster is GKE Autopilot": '"enable_autopilot": true',
    "by a HorizontalPodAutoscaler": '"kind": "HorizontalPodAutoscaler"',
    "spread over zones": '"topologyKey": "topology.kubernetes.io/zone"',
    "on spot capacity": "cloud.google.com/gke-spot",
    "Argo Rollouts switches": '"kind": "Rollout"',
    "is offline: it stops": "lapwing.dev/offline-migration-of",
    "Nodes can only pull images": "roles/artifactregistry.writer",
    "Pods run without root": '"pod-security.kubernetes.io/enforce": "restricted"',
    "Secrets that are not generated": '"refreshPolicy": "Periodic"',
    "reached by a private endpoint": "mongodbatlas_privatelink_endpoint_service",
    "in a range that is peered": "google_service_networking_connection",
    "reached over the internet": "mongodbatlas_project_ip_access_list",
}
"""Words of a sentence, and what the rendered files have exactly if it is true."""


@pytest.mark.parametrize(("loaded", "subject"), ALL, ids=NAMES)
def test_document_claims_what_is_rendered_and_nothing_else(
    loaded: LoadedStack, subject: Subject
) -> None:
    text, files_text = words(made(loaded, subject)), rendered(loaded)
    for sentence, evidence in EVIDENCE.items():
        if "spread" in sentence and "spread" not in text:
            continue  # The edge and databases are spread, too, but they are no services.
        assert (sentence in text) == (evidence in files_text), sentence
    gateway = '"kind": "Gateway"' in files_text or '"kind": "Ingress"' in files_text
    assert ("Ingress is the Gateway or Ingress" in text) == gateway


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
    starts = ("Usage per month", "List prices", "Low is", "Expected is", "Data ", "The budget")
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
    text = rendered(loaded)
    for label, evidence in (
        ("Cloud CDN", '"enable_cdn": true'),
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
        assert {*loaded.stack.services, *loaded.stack.resources} <= set(found)


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
    rows = [row for part in data_of(subject) if isinstance(part, Table) for row in part.rows]
    assert [(row[1][:14], row[-1]) for row in rows] == [("MongoDB, Atlas", "none")]


def test_database_without_an_allowed_connection_is_left_out() -> None:
    subject, part = next((s, p.part) for _, s in ALL for p in s.facts.pods if p.uses)
    assert list(subject.uses(part))
    facts = dataclasses.replace(subject.facts, flows=())
    environment = dataclasses.replace(subject.environment, facts=facts)
    assert list(dataclasses.replace(subject, environment=environment).uses(part)) == []
