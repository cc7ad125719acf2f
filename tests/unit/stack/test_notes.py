"""`lapwing check` reports settings without effect in an environment."""

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
    ("rollout", "reported"),
    [("drain: 2h", True), ("drain: 2h, keep_old: 2h", False), ("keep_old: 10m", False)],
)
def test_check_reports_drain_without_effect_on_kubernetes(
    rollout: str, reported: bool, tmp_path: Path
) -> None:
    (tmp_path / "lapwing.yaml").write_text(STACK % rollout)
    result = CliRunner().invoke(cli, ["-C", str(tmp_path), "check", "--output", "json"])
    assert result.exit_code == 0, result.output
    notes = json.loads(result.stdout)["notes"]
    note = (
        "In `production`: `drain: 2h` of api has no effect on Kubernetes. Its old pods and their "
        "connections end after `keep_old: 10m`."
    )
    pin = (
        "In `production`: images without a digest: envoyproxy/envoy:distroless-v1.36.2. Their "
        "publishers may move the tags. `lapwing image pin -e production` writes the digests to "
        "lapwing.lock."
    )
    assert notes == ([note, pin] if reported else [pin])
