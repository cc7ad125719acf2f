"""A rollback restores what the earlier deployment was: settings, secrets, code and services."""

from __future__ import annotations

import pytest

from lapwing.desired.secrets import SecretStore

from .conftest import NAME, Yard

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("rollback")]
OTHER = """
  other: {build: ./app, command: python app.py, route: /other, health: /health}
"""


def write(yard: Yard, version: str, setting: str, more: str) -> None:
    """Write a version with a setting and a secret."""
    yard.stack(more=more)
    path = yard.where.folder / "lapwing.yaml"
    extra = f"route: /\n    env: {{SETTING: {setting}}}\n    secrets: [TOKEN]\n"
    path.write_text(path.read_text().replace("route: /\n", extra, 1))
    yard.write(version)


def test_rollback_restores_settings_secrets_and_removed_services(yard: Yard) -> None:
    secrets = SecretStore(yard.where.home / "secrets")
    secrets.set(NAME, "local", "TOKEN", "token-one")
    write(yard, "one", "first", OTHER)
    yard.where.run("deploy")
    secrets.set(NAME, "local", "TOKEN", "token-two")
    write(yard, "two", "second", "")
    yard.where.run("deploy")
    seen = [yard.get(path).text for path in ("/", "/env?SETTING", "/env?TOKEN", "/other")]
    assert seen == ["two", "second", "token-two", "two"]
    yard.where.run("rollback")
    seen = [yard.get(path).text for path in ("/", "/env?SETTING", "/env?TOKEN", "/other")]
    assert seen == ["one", "first", "token-one", "one"]
    assert {s["name"] for s in yard.where.json("status")["services"]} == {"app", "other"}
