"""Notes of `lapwing check`: what does less in an environment than it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from lapwing.cli.main import cli

STACK = """\
stack: shop
services:
  api: {image: "registry.example/api:1", command: serve, route: /, rollout: {%s}}
environments:
  production: {target: kubernetes, domain: shop.example}
"""


@pytest.mark.parametrize(
    ("rollout", "told"),
    [("drain: 2h", True), ("drain: 2h, keep_old: 2h", False), ("keep_old: 10m", False)],
)
def test_a_drain_that_a_cluster_does_not_know_is_told(
    rollout: str, told: bool, tmp_path: Path
) -> None:
    (tmp_path / "lapwing.yaml").write_text(STACK % rollout)
    result = CliRunner().invoke(cli, ["-C", str(tmp_path), "check", "--output", "json"])
    assert result.exit_code == 0, result.output
    notes = json.loads(result.stdout)["notes"]
    note = (
        "In `production`: `drain: 2h` of api is for machines. On a cluster its old slot, and what "
        "is open to it, stays for `keep_old: 10m`."
    )
    assert notes == ([note] if told else [])
