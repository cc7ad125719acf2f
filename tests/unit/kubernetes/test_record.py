"""Records of changes that an earlier version has begun."""

from __future__ import annotations

from typing import Any, cast

import pytest

from lapwing.kubernetes.applyset import Scope
from lapwing.kubernetes.client import ApiClient
from lapwing.kubernetes.upgrade import record

BEFORE = [{"kind": "Deployment", "metadata": {"name": "shop-web"}}]


class Api:
    """A cluster that has a record of an upgrade, which no command holds."""

    def __init__(self, data: dict[str, str]) -> None:
        self.data = data

    def create(self, _: object) -> None:
        """Create nothing: it exists."""

    def get(self, _: object) -> dict[str, Any]:
        return {"metadata": {"resourceVersion": "1", "uid": "u"}, "data": self.data}

    def patch(self, _: object, change: dict[str, Any]) -> dict[str, Any]:
        self.data = {**self.data, **change["data"]}
        return self.get(None)


@pytest.mark.parametrize("key", ["id", "upgrade"])
def test_an_upgrade_is_continued_under_its_id(key: str) -> None:
    before = '[{"kind": "Deployment", "metadata": {"name": "shop-web"}}]'
    api = Api({"record": "", "before": before, key: "0badcafe", "holder": "", "sign": "00"})
    scope = Scope("shop", "production", "shop-production")
    records = record.records(cast(ApiClient, api), scope, "web", "me", 1.0)
    records.acquire()
    assert (records.id, records.before) == ("0badcafe", BEFORE)
    assert (api.data["id"], api.data["holder"]) == ("0badcafe", "me")
