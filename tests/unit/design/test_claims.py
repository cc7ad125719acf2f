"""A sentence about security is in the document exactly if the rendered files have what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lapwing.design.claims import SECURITY
from lapwing.design.document import Document, Paragraph, document
from lapwing.inventory.model import Inventory
from lapwing.inventory.read import read
from lapwing.render.kubernetes import render
from lapwing.render.terraform.files import files
from lapwing.stack.load import LoadedStack, environments
from tests.unit.cost.stacks import CASES, cases, file_of
from tests.unit.render.stacks import GOLDEN

PATHS = sorted(
    {file_of(case) for case in cases(CASES)} | {*(GOLDEN / "infra").glob("*/lapwing.yaml")}
)


def rendered(loaded: LoadedStack) -> str:
    """All rendered files of an environment as one text."""
    text = ""
    if loaded.settings.cloud is not None:
        text = json.dumps(files([loaded]))
    if loaded.settings.target == "kubernetes":
        images = {n: "a/b:1" for n, s in loaded.stack.services.items() if s.image is None}
        text += json.dumps(render.objects(render.prepare(loaded, images)))
    return text


def words(made: Document) -> str:
    return " ".join(p.text for p in made.parts if isinstance(p, Paragraph))


EVIDENCE = {
    "Ingress is HTTPS only": "google_compute_global_forwarding_rule",
    "The firewall denies": "google_container_cluster",
    "Secrets that are not generated": '"refreshPolicy": "Periodic"',
    "The database has no public endpoint": "mongodbatlas_privatelink_endpoint_service",
}
"""The beginning of a sentence, and what the rendered files have exactly if it is true."""


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.parent.name)
def test_document_claims_what_is_rendered_and_nothing_else(path: Path) -> None:
    for loaded in environments(path, folders=False):
        text, files_text = words(document(loaded)), rendered(loaded)
        for sentence, evidence in EVIDENCE.items():
            assert (sentence in text) == (evidence in files_text), (loaded.environment, sentence)


def test_each_sentence_holds_somewhere_and_not_everywhere() -> None:
    seen: dict[str, set[bool]] = {claim.text: set() for claim in SECURITY}
    for path in PATHS:
        for loaded in environments(path, folders=False):
            found = read([loaded])
            project = found.projects[0].facts if found.projects else Inventory()
            for claim in SECURITY:
                seen[claim.text].add(claim.holds(found.environments[0], project))
    always = "No secret is in plain text in git, logs or command lines."
    rare = "Ingress is the Gateway or Ingress of the cluster, which connects to the edge."
    assert {text for text, held in seen.items() if held != {True, False}} <= {always, rare}
