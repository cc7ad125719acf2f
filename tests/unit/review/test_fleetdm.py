"""The FleetDM stack as a reviewer, an accountant and Terraform see it."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from lapwing.cost.book import book
from lapwing.render.terraform.files import files
from lapwing.review.finding import Severity
from lapwing.review.review import review
from lapwing.review.sizing import measurements
from lapwing.stack import source
from lapwing.stack.load import environments

FLEET = Path(__file__).parents[3] / "stacks" / "fleetdm" / "lapwing.yaml"


def test_production_has_known_warnings_only() -> None:
    """MySQL is one pod, and without Argo Rollouts nothing watches the traffic after a switch."""
    stacks = environments(FLEET, "production")
    found = review(stacks, source.read(FLEET), book(), measurements({}), date(2026, 11, 28))
    told = {f.rule for f in found if f.severity > Severity.INFO}
    assert told == {"risk/single-pod-database", "risk/idle-analysis"}
    assert "risk/stated-backup" in {f.rule for f in found}


def test_password_beside_reference_is_reported(tmp_path: Path) -> None:
    text = FLEET.read_text().replace('"${mysql.password}"', '"${mysql.user}hunter2hunter2"')
    (tmp_path / "lapwing.yaml").write_text(text)
    stacks = environments(tmp_path / "lapwing.yaml", "production")
    found = review(stacks, source.read(tmp_path / "lapwing.yaml"), book(), measurements({}))
    told = [f.evidence for f in found if f.rule == "risk/secret-in-env"]
    assert len(told) == 2
    assert not any("hunter2" in evidence for evidence in told)


def test_cloud_matches_file_without_atlas() -> None:
    roots = files(environments(FLEET, "production"))
    assert set(roots) == {"shared", "production"}
    assert "database.tf.json" not in roots["production"]
    assert "fleet.example.com" in "".join(roots["production"].values())
