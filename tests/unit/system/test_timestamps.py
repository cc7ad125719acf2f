"""Timestamps of logs."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapwing.system.timestamps import nanoseconds


@settings(deadline=None)
@given(st.integers(0, 4 * 10**9), st.integers(0, 10**9 - 1))
def test_timestamps_are_exact_to_the_nanosecond(seconds: int, rest: int) -> None:
    expected = seconds * 10**9 + rest
    base = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"
    fixed = f"{rest:09d}"
    assert nanoseconds(f"{base}.{fixed}Z") == expected
    assert nanoseconds(f"{base}.{fixed.rstrip('0') or '0'}+00:00") == expected


def test_timestamps_with_an_offset_are_converted() -> None:
    assert nanoseconds("2026-03-01T10:00:00.5+02:00") == nanoseconds(
        "2026-03-01T08:00:00.500000000Z"
    )


@pytest.mark.parametrize("text", ["", "starting up", "2026-03-01 10:00:00Z", "2026-03-01T10:00:00"])
def test_invalid_timestamp_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="not a timestamp"):
        nanoseconds(text)
