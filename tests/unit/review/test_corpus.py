"""The review of corpus.yaml: how many warnings are right (precision) and found (recall)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from lapwing.cost.book import book
from lapwing.review.finding import Finding, Severity
from lapwing.review.review import review
from lapwing.review.sizing import measurements
from lapwing.stack import source
from lapwing.stack.load import environments

CORPUS = yaml.safe_load((Path(__file__).parent / "corpus.yaml").read_text())
STACKS: list[dict[str, Any]] = CORPUS["stacks"]
TODAY = date(2026, 11, 28)


def findings(case: dict[str, Any], folder: Path) -> Iterator[Finding]:
    """The findings of a stack that are more than information."""
    written = {
        "stack": "shop",
        "services": case["services"],
        "resources": case.get("resources", {}),
        "environments": case.get("environments") or {"production": CORPUS["parts"]["production"]},
    }
    path = folder / "lapwing.yaml"
    path.write_text(yaml.safe_dump(written, sort_keys=False))
    found = review(
        environments(path),
        source.read(path),
        book(),
        measurements({}),
        TODAY,
        case.get("rehearsals"),
    )
    return (f for f in found if f.severity > Severity.INFO)


@pytest.mark.parametrize("case", STACKS, ids=lambda case: case["name"].replace(" ", "-"))
def test_review_gives_the_labelled_warnings(case: dict[str, Any], tmp_path: Path) -> None:
    assert {f.rule for f in findings(case, tmp_path)} == set(case["expect"])


def test_precision_and_recall_of_the_corpus(tmp_path: Path) -> None:
    """Printed with `pytest -s`; a rule that gets worse is visible here."""
    right = given = labelled = 0
    for case in STACKS:
        rules = {f.rule for f in findings(case, tmp_path)}
        expected = set(case["expect"])
        right, given = right + len(rules & expected), given + len(rules)
        labelled += len(expected)
    precision, recall = right / given, right / labelled
    print(
        f"{len(STACKS)} stacks, {labelled} labels: precision {precision:.2f}, recall {recall:.2f}"
    )
    assert len(STACKS) >= 30
    assert precision >= 0.95
    assert recall >= 0.95


def test_backup_by_atlas_is_recognised_in_every_environment(tmp_path: Path) -> None:
    [case] = [c for c in STACKS if c["name"].startswith("backups by Atlas")]
    list(findings(case, tmp_path))
    path = tmp_path / "lapwing.yaml"
    found = review(environments(path), source.read(path), book(), measurements({}), TODAY)
    assert "risk/stated-backup" not in {f.rule for f in found}


def test_no_advice_removes_production(tmp_path: Path) -> None:
    for case in STACKS:
        for finding in findings(case, tmp_path):
            if finding.environment.startswith("production"):
                assert "multi-region" not in finding.rule or "Remove" not in finding.advice
                assert "Remove it" not in finding.advice or "service `" in finding.evidence


def test_missing_requests_are_named(tmp_path: Path) -> None:
    web = CORPUS["parts"]["web"]
    case = {"services": {"api": {**web, "resources": {"memory": "512Mi"}}}}
    [found] = [f for f in findings(case, tmp_path) if f.rule == "risk/no-requests"]
    assert "`api` requests no cpu: Autopilot assigns" in found.evidence
