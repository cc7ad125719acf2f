"""The changes between two documents of an environment."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lapwing.plan.diff import Action, Change, diff
from lapwing.plan.model import Document, Resource, Rollout
from tests.unit.agent.samples import document, service

API = service("api-1")
REDIS = Resource(kind="redis", provider="binary", variable="R_URL")


def with_resources(**resources: Resource) -> Document:
    """A document of API with these resources."""
    return msgspec.structs.replace(document(api=API), resources=resources)


def change(kind: str, name: str, action: Action, **values: Any) -> Change:
    return Change(kind=kind, name=name, action=action, **values)


def test_equal_documents_have_no_changes() -> None:
    again = document("rollback", api=API)
    assert diff(again, document(api=API)) == []
    assert diff(document(), None) == []


def test_first_deployment_creates_everything() -> None:
    changes = diff(with_resources(cache=REDIS), None)
    assert changes == [
        change("service", "api", "create", after="api-1"),
        change("resource", "cache", "create", after="redis (binary)"),
    ]
    assert [str(c) for c in changes] == [
        "create service api: api-1", "create resource cache: redis (binary)",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"release": "api-2"}, "api-1 -> api-2"),
        ({"release": "api-2", "revision": "r2"}, "api-1 -> api-2"),
        ({"release": "api-2", "replicas": 2, "env": {"A": "1"}}, "api-1 -> api-2, replicas, env"),
        ({"route": "/v2", "rollout": Rollout(hold=True)}, "route, rollout"),
        ({"revision": "r2"}, "revision"),
    ],
)
def test_changed_service_shows_releases_and_settings(changes: dict[str, Any], text: str) -> None:
    wanted = document(api=msgspec.structs.replace(API, **changes))
    assert [str(c) for c in diff(wanted, document(api=API))] == [f"update service api: {text}"]


def test_changes_are_sorted_by_service() -> None:
    before = document(b=service("b-1"), c=service("c-1"))
    after = document(c=service("c-2"), a=service("a-1", kind="worker", route=None))
    assert diff(after, before) == [
        change("service", "a", "create", after="a-1"),
        change("service", "b", "delete", before="b-1"),
        change("service", "c", "update", before="c-1", after="c-2"),
    ]


def test_changed_resource_shows_kind_and_provider() -> None:
    url = msgspec.structs.replace(REDIS, provider="url")
    assert diff(with_resources(cache=url), with_resources(cache=REDIS)) == [
        change("resource", "cache", "update", before="redis (binary)", after="redis (url)")
    ]
    assert diff(with_resources(), with_resources(cache=REDIS)) == [
        change("resource", "cache", "delete", before="redis (binary)")
    ]


def test_changed_domains_are_a_change_of_the_environment() -> None:
    moved = msgspec.structs.replace(document(api=API), domains=("shop.example",))
    assert diff(moved, document(api=API)) == [
        change("environment", "local", "update", fields=("domains",))
    ]


def test_json_has_the_documented_keys() -> None:
    [found] = msgspec.to_builtins(diff(document(api=service("api-2")), document(api=API)))
    assert found == {
        "kind": "service", "name": "api", "action": "update", "from": "api-1", "to": "api-2",
        "fields": (),
    }  # fmt: skip
