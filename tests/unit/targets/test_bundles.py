"""What a deployment to a machine needs is found before anything is built."""

from __future__ import annotations

from pathlib import Path

import pytest

from lapwing.desired.repository import DesiredRepository
from lapwing.desired.secrets import SecretStore
from lapwing.errors import RequirementsError, SecretError
from lapwing.settings import Settings
from lapwing.stack.load import LoadedStack, load
from lapwing.targets import bundles

STACK = """
stack: shop
services:
  api:
    build: .
    command: run
    route: /
    needs: [db, cache]
    secrets: [TOKEN, OTHER, {name: SESSION_KEY, generate: 24}]
resources:
  db: {kind: mongodb}
  cache: {kind: redis}
"""
WHERE = ("shop", "local")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(bundles, "build", lambda *_: pytest.fail("nothing may be built"))
    return Settings(home=tmp_path / "home", environ={})


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedStack:
    path = tmp_path / "lapwing.yaml"
    path.write_text(STACK)
    return load(path)


def test_all_missing_requirements_are_reported_at_once(
    loaded: LoadedStack, settings: Settings
) -> None:
    with pytest.raises(RequirementsError, match="4 requirements") as missing:
        bundles.plan(loaded, settings, actor="a")
    lines = str(missing.value.detail).splitlines()
    assert [line.partition(".")[0] for line in lines] == [
        "No mongodb server for resource db was found on this machine",
        "No redis server for resource cache was found on this machine",
        "Secret TOKEN of api is not set",
        "Secret OTHER of api is not set",
    ]
    assert "lapwing secret set TOKEN" in lines[2]
    assert SecretStore(settings.secrets).current(*WHERE) == {}
    assert DesiredRepository(settings.desired).newest(*WHERE) is None


def test_values_are_generated_only_where_the_stack_file_says_so(
    loaded: LoadedStack, settings: Settings
) -> None:
    store = SecretStore(settings.secrets)
    urls = {"LAPWING_RESOURCE_DB_URL": "mongodb://db", "LAPWING_RESOURCE_CACHE_URL": "redis://c"}
    settings = Settings(home=settings.home, environ=urls)
    store.set(*WHERE, "OTHER", "given")
    with pytest.raises(SecretError, match="TOKEN of api is not set"):
        bundles.find_requirements(loaded, settings, None, ["api"])
    assert "SESSION_KEY" not in store.current(*WHERE)
    store.set(*WHERE, "TOKEN", "given")
    found = bundles.find_requirements(loaded, settings, None, ["api"])
    value = store.get(*WHERE, "SESSION_KEY", found.secrets["SESSION_KEY"])
    assert len(value) == 24
    assert found.secrets == bundles.find_requirements(loaded, settings, None, ["api"]).secrets
