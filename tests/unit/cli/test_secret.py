"""What `lapwing secret set` prints."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from lapwing.cli.main import cli

STACK = """
stack: shop
services:
  api: {build: ., command: run, route: /, secrets: [SESSION_KEY]}
environments:
  vps:
    logs:
      to: https://otlp.example.com/v1/logs
      headers: {Authorization: OTLP, X-Key: SESSION_KEY}
    backup: {to: "s3://bucket"}
  pulled: {desired: "https://git.example.com/desired.git"}
  kind: {target: kubernetes, backup: {to: "s3://bucket"}}
"""
AT_ONCE = "No deployment is needed if the `logs` or `backup` that uses it is deployed."


@pytest.mark.parametrize(
    ("name", "environment", "then"),
    [
        ("SESSION_KEY", "vps", "Run `lapwing deploy -e vps` to use it."),
        ("OTLP", "vps", AT_ONCE),
        ("AWS_ACCESS_KEY_ID", "vps", AT_ONCE),
        ("SESSION_KEY", "pulled", "The next pull uses it."),
        ("LAPWING_DESIRED_TOKEN", "pulled", "The next pull uses it."),
        ("AWS_ACCESS_KEY_ID", "kind", "Run `lapwing deploy -e kind` to use it."),
    ],
)
def test_secret_that_is_set_states_when_it_is_used(
    name: str, environment: str, then: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAPWING_HOME", str(tmp_path / "home"))
    if environment == "pulled":  # Elsewhere, its secrets cannot be set.
        monkeypatch.setenv("LAPWING_SERVER", "yes")
    (tmp_path / "lapwing.yaml").write_text(STACK)
    arguments = ["-C", str(tmp_path), "secret", "set", name, "-e", environment]
    done = CliRunner().invoke(cli, arguments, input="value")
    assert done.exit_code == 0, done.output
    assert " ".join(done.stderr.split()).endswith(f"). {then}")
    again = CliRunner().invoke(cli, arguments, input="value")
    assert "The value is unchanged." in again.stderr
