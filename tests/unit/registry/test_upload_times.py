"""The list of Google's registries, which has untagged manifests as well.

Its shape is that of pkg/v1/google/list.go of go-containerregistry; no such server runs in tests.
"""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from lapwing.errors import RegistryError
from lapwing.registry.registry import Registry, Request
from lapwing.registry.repository import Repository
from lapwing.registry.response import FullResponse

DIGEST = "sha256:" + "a" * 64


class Answering:
    """A registry that gives one answer."""

    host = "europe-docker.pkg.example"

    def __init__(self, answer: dict[str, Any]) -> None:
        self.answer = answer

    async def request(self, request: Request, **_: Any) -> FullResponse:
        return FullResponse(200, {}, json.dumps(self.answer).encode())


def repository(answer: dict[str, Any]) -> Repository:
    return Repository(cast(Registry, Answering({"name": "a", "tags": ["1"], **answer})), "a")


async def test_untagged_manifests_are_listed_with_their_time() -> None:
    facts = {"imageSizeBytes": "1", "tag": [], "timeUploadedMs": "1700000000123"}
    source = repository({"child": [], "manifest": {DIGEST: facts}})
    assert await source.upload_times() == {DIGEST: 1700000000.123}
    assert [tag async for tag in source.tags()] == ["1"]


async def test_other_registries_list_no_times() -> None:
    assert await repository({}).upload_times() == {}


async def test_invalid_list_is_an_error() -> None:
    with pytest.raises(RegistryError, match="invalid list of manifests"):
        await repository({"manifest": {DIGEST: {}}}).upload_times()
