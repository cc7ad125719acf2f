"""The document: strict, readable, the same after a round trip; and what makes a process another."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapwing.plan.model import (
    Access,
    Analysis,
    Container,
    Deployment,
    Document,
    Health,
    Resource,
    Rollout,
    Scale,
    Schedule,
    Service,
    Smoke,
    decode,
    encode,
)

FULL = Service(
    kind="web",
    release="api-1",
    revision="r1",
    command="gunicorn app:app",
    route="/api",
    health=Health(path="/healthz", interval=1.5),
    replicas=3,
    cpu=0.25,
    memory=512 * 2**20,
    env={"A": "1", "B": "ü"},
    secrets={"KEY": "v1"},
    needs={"db": "b1"},
    spa=False,
    timeout=30.0,
    rollout=Rollout(
        smoke=(Smoke(get="/"), Smoke(run="pytest")), analysis=Analysis(max_p95=0.5), hold=True
    ),
)
REDIS = Resource(
    kind="redis", version="7", provider="binary", program="/bin/r", variable="R_URL", storage=1
)
DOCUMENT = Document(
    stack="shop",
    environment="local",
    domains=("shop.localhost",),
    deployment=Deployment(kind="rollback", actor="ada", revision="r", restores="c", reason="why"),
    services={"api": FULL, "web": Service(kind="static", release="web-1", revision="r1")},
    resources={"cache": REDIS},
)
MINIMAL = {
    "stack": "shop",
    "environment": "local",
    "deployment": {"actor": "ada"},
    "services": {"api": {"kind": "web", "release": "api-1", "revision": "r1"}},
}


def test_document_round_trips() -> None:
    assert decode(encode(DOCUMENT)) == DOCUMENT


def test_document_is_indented_json() -> None:
    data = encode(DOCUMENT)
    assert data.endswith(b"}\n")
    assert list(json.loads(data)) == sorted(json.loads(data))
    assert b'"actor": "ada"' in data.splitlines()[2]
    assert encode(decode(data)) == data


def test_order_of_services_is_irrelevant() -> None:
    turned = msgspec.structs.replace(DOCUMENT, services=dict(reversed(DOCUMENT.services.items())))
    assert encode(turned) == encode(DOCUMENT)


def test_missing_keys_get_defaults() -> None:
    found = decode(json.dumps(MINIMAL).encode())
    assert found.services["api"].rollout.keep_old == 600.0
    assert found.format == 1


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"services": {"api": {"kind": "web", "release": "a", "revision": "r", "x": 1}}}, "x"),
        ({"services": {"api": {"kind": "server", "release": "a", "revision": "r"}}}, "kind"),
        ({"services": {"api": {"release": "a", "revision": "r"}}}, "kind"),
        ({"format": 2}, "format"),
        ({"deployment": {}}, "actor"),
        ({"surprise": True}, "surprise"),
        ({"domains": "shop.localhost"}, "domains"),
        ({"edge": {"access": {"allow": ["example.com"]}}}, "edge.access"),
    ],
)
def test_unknown_keys_and_values_are_rejected(changes: dict[str, Any], path: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=path):
        decode(json.dumps(MINIMAL | changes).encode())


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"null"])
def test_invalid_json_is_rejected(data: bytes) -> None:
    with pytest.raises((msgspec.MsgspecError, UnicodeDecodeError)):
        decode(data)


OTHER: dict[str, Any] = {
    "kind": "worker",
    "release": "api-2",
    "revision": "r2",
    "command": "flask run",
    "route": "/v2",
    "health": Health(path="/ready", interval=1.5),
    "replicas": 1,
    "scale": Scale(max=4, cpu=0.2),
    "cpu": 1.0,
    "memory": 1,
    "image": "registry.example/shop/api:2",
    "artifact": "registry.example/shop/api@sha256:2",
    "container": Container(user=1000),
    "env": {"A": "2", "B": "ü"},
    "secrets": {"KEY": "v2"},
    "needs": {"db": "b2"},
    "volumes": {"data": "db.sqlite3"},
    "spa": True,
    "timeout": None,
    "max_body": 1024,
    "rollout": Rollout(),
    "headers": {"x-frame-options": "DENY"},
    "access": Access(allow=("10.0.0.0/8",)),
    "schedule": Schedule(cron="0 6 * * *", timezone="UTC"),
    "after": ("web",),
    "migrates": "web",
}
OF_THE_PROCESS = {
    "kind",
    "release",
    "image",
    "container",
    "command",
    "health",
    "env",
    "secrets",
    "needs",
    "spa",
    "volumes",
}


def test_identity_covers_every_field() -> None:
    assert set(OTHER) == set(Service.__struct_fields__)


@pytest.mark.parametrize("field", sorted(OTHER))
def test_identity_changes_with_process_settings(field: str) -> None:
    changed = msgspec.structs.replace(FULL, **{field: OTHER[field]})
    assert changed != FULL
    assert (changed.identity() != FULL.identity()) is (field in OF_THE_PROCESS)


@pytest.mark.parametrize("field", ["cpu", "memory"])
def test_identity_of_a_container_changes_with_its_limits(field: str) -> None:
    contained = msgspec.structs.replace(FULL, container=Container(user=1000))
    changed = msgspec.structs.replace(contained, **{field: OTHER[field]})
    assert changed.identity() != contained.identity()


@pytest.mark.parametrize("field", ["interval", "timeout", "start_timeout", "settle"])
def test_identity_ignores_health_timing(field: str) -> None:
    health = msgspec.structs.replace(FULL.health, **{field: 9.0})
    assert msgspec.structs.replace(FULL, health=health).identity() == FULL.identity()


words = st.text(max_size=4)
tables = st.dictionaries(words, words, max_size=3)


@given(tables, tables, tables, tables)
def test_identities_of_environments_differ(
    env: dict[str, str], secrets: dict[str, str], env2: dict[str, str], secrets2: dict[str, str]
) -> None:
    """Equal identity means equal variables, whatever the names and values; order is nothing."""
    one = msgspec.structs.replace(FULL, env=env, secrets=secrets)
    other = msgspec.structs.replace(FULL, env=env2, secrets=secrets2)
    assert (one.identity() == other.identity()) is ((env, secrets) == (env2, secrets2))
    turned = msgspec.structs.replace(FULL, env=dict(reversed(env.items())), secrets=secrets)
    assert turned.identity() == one.identity()


@pytest.mark.parametrize(
    ("field", "value", "differs"),
    [
        ("kind", "postgres", True),
        ("provider", "url", True),
        ("variable", "CACHE_URL", True),
        ("secret", "v1", True),
        ("storage", 2, False),
    ],
)
def test_binding_depends_on_url(field: str, value: object, differs: bool) -> None:
    changed = msgspec.structs.replace(REDIS, **{field: value})
    assert (changed.binding() != REDIS.binding()) is differs
