"""What would change, in words."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lapwing.plan.diff import Change, diff
from lapwing.plan.model import Document, Resource, Rollout
from tests.unit.agent.samples import document, service

API = service("api-1")
REDIS = Resource(kind="redis", provider="binary", variable="R_URL")


def holding(**resources: Resource) -> Document:
    """A document of API with these resources."""
    return msgspec.structs.replace(document(api=API), resources=resources)


def test_equal_documents_have_no_changes() -> None:
    again = document("rollback", api=API)
    assert diff(again, document(api=API)) == []
    assert diff(document(), None) == []


def test_first_document_adds_everything() -> None:
    assert diff(holding(cache=REDIS), None) == [
        Change("api", "add", "new web, release api-1"),
        Change("cache", "add", "redis by binary"),
    ]


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
def test_changed_service_is_described(changes: dict[str, Any], text: str) -> None:
    wanted = document(api=msgspec.structs.replace(API, **changes))
    assert diff(wanted, document(api=API)) == [Change("api", "change", text)]


def test_changes_list_services_first_in_order() -> None:
    before = document(b=service("b-1"), c=service("c-1"))
    after = document(c=service("c-2"), a=service("a-1", kind="worker", route=None))
    assert diff(after, before) == [
        Change("a", "add", "new worker, release a-1"),
        Change("b", "remove", "no longer in the stack"),
        Change("c", "change", "c-1 -> c-2"),
    ]


def test_resource_changes_are_described() -> None:
    url = msgspec.structs.replace(REDIS, provider="url")
    assert diff(holding(cache=url), holding(cache=REDIS)) == [
        Change("cache", "change", "redis by url")
    ]
    assert diff(holding(), holding(cache=REDIS)) == [Change("cache", "remove", "redis by binary")]


def test_changed_host_names_are_reported() -> None:
    moved = msgspec.structs.replace(document(api=API), domains=("shop.example",))
    assert diff(moved, document(api=API)) == [Change("local", "change", "host names")]
