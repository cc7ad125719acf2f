"""From a stack file to the document: every default filled in, nothing added."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from lapwing.plan import make
from lapwing.plan.make import Built
from lapwing.plan.model import Deployment, Document, Resource
from lapwing.stack.load import LoadedStack, load

STACK = """
stack: shop
services:
  api:
    build: ./api
    command: gunicorn app:app
    route: /api
    health: /healthz
    replicas: {min: 2, max: 4}
    resources: {cpu: 250m, memory: 512Mi}
    env: {MODE: fast}
    needs: [db]
    secrets: [KEY]
    timeout: 30s
    rollout:
      smoke: [{get: /healthz, expect: 204}, {run: pytest}]
      analysis: {window: 30s, max_error_rate: 1%, max_p95: 500ms}
      keep_old: 10m
  web: {build: ./web, static: dist, route: /}
  mailer: {kind: worker, build: ./api, command: python mail.py}
resources:
  db: {kind: mongodb, version: "8", storage: 10Gi}
environments:
  staging: {}
  production: {domain: shop.example}
"""
RELEASES = {n: Built(f"{n}-1", "r1") for n in ("api", "web", "mailer")}
ACT = Deployment(actor="ada")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("api", "web"):
        (tmp_path / name).mkdir()
    (tmp_path / "lapwing.yaml").write_text(STACK)
    return tmp_path


def made(
    loaded: LoadedStack,
    releases: Mapping[str, Built] = RELEASES,
    current: Document | None = None,
    resources: Mapping[str, Resource] | None = None,
) -> Document:
    """The document of a loaded stack."""
    found = {n: make.resource(n, r) for n, r in loaded.stack.resources.items()}
    return make.make(
        loaded,
        releases=releases,
        resources=found if resources is None else resources,
        secrets={"KEY": "v1"},
        deployment=ACT,
        current=current,
    )


def test_document_contains_settings_of_stack_file(folder: Path) -> None:
    document = made(load(folder / "lapwing.yaml"))
    assert (document.stack, document.environment, document.deployment) == ("shop", "local", ACT)
    api = document.services["api"]
    assert (api.kind, api.release, api.revision) == ("web", "api-1", "r1")
    assert (api.command, api.route, api.timeout) == ("gunicorn app:app", "/api", 30.0)
    assert (api.replicas, api.cpu, api.memory) == (2, 0.25, 512 * 2**20)
    assert (api.health.path, api.env, api.secrets) == ("/healthz", {"MODE": "fast"}, {"KEY": "v1"})
    assert api.needs == {"db": document.resources["db"].binding()}
    one, two = api.rollout.smoke
    assert (one.get, one.expect, one.run) == ("/healthz", 204, None)
    assert (two.get, two.run) == (None, "pytest")
    assert api.rollout.analysis is not None
    assert (api.rollout.analysis.window, api.rollout.analysis.max_p95) == (30.0, 0.5)
    assert api.rollout.analysis.max_error_rate == 0.01
    assert api.rollout.keep_old == 600.0


def test_kinds_have_only_their_settings(folder: Path) -> None:
    services = made(load(folder / "lapwing.yaml")).services
    assert {n: s.kind for n, s in services.items()} == {
        "api": "web",
        "web": "static",
        "mailer": "worker",
    }
    assert services["mailer"].rollout.analysis is None
    assert services["mailer"].route is None
    assert services["web"].command is None


@pytest.mark.parametrize(
    ("environment", "domains"),
    [
        ("local", ("shop.localhost",)),
        ("staging", ("staging.shop.localhost",)),
        ("production", ("shop.example", "production.shop.localhost")),
    ],
)
def test_host_names_of_environment(
    folder: Path, environment: str, domains: tuple[str, ...]
) -> None:
    assert made(load(folder / "lapwing.yaml", environment)).domains == domains


def test_service_without_release_keeps_its_entry(folder: Path) -> None:
    loaded = load(folder / "lapwing.yaml")
    first = made(loaded, {"api": RELEASES["api"]})
    assert set(first.services) == {"api"}
    second = made(loaded, {"web": RELEASES["web"]}, current=first)
    assert second.services["api"] is first.services["api"]
    assert set(second.services) == {"api", "web"}


def test_removed_service_leaves_document(folder: Path) -> None:
    before = made(load(folder / "lapwing.yaml"))
    text = STACK.replace("  mailer: {kind: worker, build: ./api, command: python mail.py}\n", "")
    (folder / "lapwing.yaml").write_text(text)
    after = made(load(folder / "lapwing.yaml"), {}, current=before)
    assert set(after.services) == {"api", "web"}


def test_resource_starts_unbound(folder: Path) -> None:
    [(name, wanted)] = load(folder / "lapwing.yaml").stack.resources.items()
    found = make.resource(name, wanted)
    assert (found.kind, found.version, found.variable) == ("mongodb", "8", "DB_URL")
    assert (found.provider, found.storage) == ("embedded", 10 * 2**30)


def test_changed_binding_changes_service_identity(folder: Path) -> None:
    loaded = load(folder / "lapwing.yaml")
    before = made(loaded)
    bound = msgspec.structs.replace(before.resources["db"], provider="url", secret="v1")
    after = made(loaded, resources={"db": bound})
    same = {n: after.services[n].identity() == s.identity() for n, s in before.services.items()}
    assert same == {"api": False, "web": True, "mailer": True}
