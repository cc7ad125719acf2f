"""Findings of tests/golden/review: a case has `lapwing.yaml`, or is the example of that name, and
perhaps `measured.json`.

`expected.json` is the answer for programs. LAPWING_GOLDEN_WRITE=1 writes it again; read the
difference.
"""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path

import pytest

from lapwing.cost.book import book
from lapwing.review.finding import Finding, Severity
from lapwing.review.overkill import COMPONENTS, NOT_NEEDED_YET
from lapwing.review.review import review
from lapwing.review.sizing import measurements
from lapwing.stack import source
from lapwing.stack.load import environments
from tests.unit.cost.stacks import ROOT, cases, compare, file_of

TODAY = date(2026, 11, 28)
CASES = ROOT / "tests/golden/review"


def findings(case: str) -> list[Finding]:
    """The findings of a case."""
    path, measured = file_of(case, CASES), CASES / case / "measured.json"
    data = json.loads(measured.read_text()) if measured.exists() else {}
    return review(environments(path), source.read(path), book(), measurements(data), TODAY)


@pytest.mark.parametrize("case", cases(CASES))
def test_findings_match_golden_files(case: str) -> None:
    told = json.dumps([f.as_data() for f in findings(case)], indent=2, ensure_ascii=False)
    compare(CASES / case / "expected.json", told + "\n")


@pytest.mark.parametrize("case", cases(CASES))
def test_evidence_names_line_of_file(case: str) -> None:
    lines = file_of(case, CASES).read_text().splitlines()
    for finding in findings(case):
        found = re.match(r"lapwing\.yaml:(\d+): ", finding.evidence)
        if found is None:
            assert finding.rule.startswith("overkill/") or finding.rule == "sizing/not-measured"
            continue
        assert lines[int(found[1]) - 1].strip(), finding


def test_each_rule_is_covered_by_a_case() -> None:
    """A rule that no case breaks could not fail."""
    seen = {f.rule for case in cases(CASES) for f in findings(case) if f.severity > Severity.INFO}
    assert {row.rule for row in COMPONENTS} <= seen
    risks = {rule for rule in seen if rule.startswith("risk/")}
    assert risks == {
        f"risk/{name}"
        for name in (
            "single-replica", "no-health-check", "no-smoke-test", "no-analysis", "no-backup",
            "no-budget", "over-budget", "secret-in-env", "refused-size", "no-requests",
            "spot-in-production", "moving-image", "project-id", "no-warm-slot", "idle-analysis",
            "unpriced-budget", "impossible-backup", "single-pod-database", "end-of-life",
        )
    }  # fmt: skip


def test_each_component_that_an_environment_can_have_has_a_finding() -> None:
    """A component is a finding of its own, or in the one that lists what is not needed yet."""
    for case in cases(CASES):
        stacks = environments(file_of(case, CASES))
        found = [f for f in findings(case) if f.rule.startswith("overkill/")]
        absent = " ".join(f.evidence for f in found if f.rule == NOT_NEEDED_YET)
        for row in COMPONENTS:
            if any(map(row.applies, stacks)):
                assert (row.name in absent) != (row.rule in {f.rule for f in found}), (case, row)


def test_machine_has_no_finding_about_clouds_or_clusters(tmp_path: Path) -> None:
    path = tmp_path / "lapwing.yaml"
    path.write_text(
        "stack: shop\nservices:\n  app: {build: ., command: run, route: /}\n"
        "  charts: {build: ., command: grafana server, route: /grafana}\n"
        "environments: {production: {target: machine}}\n"
    )
    found = review(environments(path), source.read(path), book(), measurements({}))
    rules = {f.rule for f in found if f.rule.startswith("overkill/")}
    assert rules == {"overkill/observability", NOT_NEEDED_YET}
    told = json.dumps([f.as_data() for f in found])
    for word in ("the cloud", "node failure", "load balancer", "pod", "region", "NAT"):
        assert word not in told, told
    assert "Envoy already routes" in told
    assert "`lapwing secret` stores" in told


def test_findings_contain_no_secret() -> None:
    told = json.dumps([[f.as_data() for f in findings(case)] for case in cases(CASES)])
    for value in ("12345", "hunter2", "swordfish", '"abc"'):
        assert value not in told
