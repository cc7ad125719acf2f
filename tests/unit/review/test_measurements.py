"""Measurements that are not right are refused with the place."""

from __future__ import annotations

import pytest

from lapwing.errors import UsageError
from lapwing.review.sizing import measurements


@pytest.mark.parametrize(
    ("data", "place"),
    [
        ([], "the file"),
        ({"production": 1}, "production"),
        ({"production": {"api": 1}}, "production.api"),
        ({"production": {"api": {"cpu": 0.1, "memory": 1}}}, "production.api.hours"),
        ({"production": {"api": {"cpu": "1", "memory": 1, "hours": 1}}}, "production.api.cpu"),
        ({"production": {"api": {"cpu": True, "memory": 1, "hours": 1}}}, "production.api.cpu"),
        ({"p": {"api": {"cpu": -1, "memory": 1, "hours": 1}}}, "p.api.cpu"),
        ({"p": {"api": {"cpu": float("nan"), "memory": 1, "hours": 1}}}, "p.api.cpu"),
        ({"p": {"a": {"cpu": 1, "memory": 1, "hours": 1, "requests": "x"}}}, "p.a.requests"),
    ],
)
def test_invalid_measurements_are_refused(data: object, place: str) -> None:
    with pytest.raises(UsageError) as caught:
        measurements(data)
    assert f"{place} must be" in caught.value.message
