"""Right-sizing from measurements of another environment: evidence, with what it was seen under."""

from __future__ import annotations

from pathlib import Path

import pytest

from lapwing.cost.book import book
from lapwing.review.finding import Finding
from lapwing.review.review import review
from lapwing.review.sizing import Measured
from lapwing.stack import source
from lapwing.stack.load import environments

MIB = 2**20
STACK = """\
stack: shop
services:
  api:
    build: .
    command: run
    route: /
    resources: {cpu: 500m, memory: 1Gi}
environments:
  production: {target: kubernetes, cloud: {provider: gcp, region: us-central1}}
"""


def sizes(tmp_path: Path, seen: Measured, text: str = STACK) -> Finding:
    """The one finding about size."""
    path = tmp_path / "lapwing.yaml"
    path.write_text(text)
    found = review(environments(path), source.read(path), book(), {"production": {"api": seen}})
    (finding,) = (f for f in found if f.rule.startswith("sizing/"))
    return finding


@pytest.mark.parametrize(
    ("cpu", "memory", "rule", "here", "elsewhere"),
    [
        (0.1, 200, "sizing/too-large", "warning", "info"),
        (0.4, 1000, "sizing/too-small", "critical", "warning"),
        (0.49, 600, "sizing/too-small", "warning", "warning"),
    ],
)
def test_measurements_of_other_environment_lower_severity(
    cpu: float, memory: int, rule: str, here: str, elsewhere: str, tmp_path: Path
) -> None:
    own = sizes(tmp_path, Measured(cpu, memory * MIB, 48, 12.0))
    other = sizes(tmp_path, Measured(cpu, memory * MIB, 48, 12.0, "local"))
    assert (own.rule, other.rule) == (rule, rule)
    assert (str(own.severity), str(other.severity)) == (here, elsewhere)
    assert "`local`" not in own.evidence
    assert "at 12 requests per second in `local` of 500m and 1024Mi" in other.evidence
    assert own.saves == other.saves


def test_advice_for_other_environment_states_condition(tmp_path: Path) -> None:
    found = sizes(tmp_path, Measured(0.1, 200 * MIB, 48, 0.25, "local"))
    assert found.advice == (
        "If `production` has no more traffic than `local`, request 140m and 272Mi."
    )
    assert found.saves is not None
    assert found.saves > 0


def test_service_without_requests(tmp_path: Path) -> None:
    text = STACK.replace("    resources: {cpu: 500m, memory: 1Gi}\n", "")
    found = sizes(tmp_path, Measured(0.1, 200 * MIB, 48, None, "local"), text)
    assert (found.rule, str(found.severity)) == ("sizing/state-it", "info")
    assert "cpu: 140m, memory: 272Mi" in found.advice


def test_short_measurement_is_shown_in_minutes(tmp_path: Path) -> None:
    found = sizes(tmp_path, Measured(0.1, 200 * MIB, 0.25, 3.0, "local"))
    assert found.rule == "sizing/too-early"
    assert "used 100m and 200Mi at 3 requests per second in `local`, measured for 15 minutes" in (
        found.evidence
    )
