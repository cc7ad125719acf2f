"""The judgement on a new release from two readings of counters."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapwing.agent.analysis import judge, percentile
from lapwing.agent.proxy.model import Counters
from lapwing.plan.model import Analysis

BOUNDS = (0.001, 0.01, 0.1, 1.0, math.inf)
LIMITS = Analysis(max_error_rate=0.05, max_p95=0.1, min_requests=20)


def counted(requests: int = 0, errors: int = 0, buckets: Sequence[int] = ()) -> Counters:
    """Counters with this many requests in each bucket of BOUNDS."""
    sums = [sum(buckets[: i + 1]) for i in range(len(buckets))]
    latency = tuple(zip(BOUNDS, sums, strict=False))
    return Counters("c", requests=requests, errors=errors, latency=latency)


@pytest.mark.parametrize(
    ("requests", "errors", "failed"),
    [
        (19, 19, None),
        (20, 1, None),
        (20, 2, "2 of 20 requests failed (10.0%, limit 5.0%)"),
        (1000, 50, None),
        (1000, 51, "51 of 1000 requests failed (5.1%, limit 5.0%)"),
        (0, 0, None),
    ],
)
def test_error_rate(requests: int, errors: int, failed: str | None) -> None:
    found = judge(LIMITS, counted(), counted(requests, errors))
    assert found.failed == failed
    assert found.error_rate == (errors / requests if requests else 0)


def test_requests_before_the_switch_are_not_counted() -> None:
    found = judge(LIMITS, counted(1000, 900), counted(1100, 900))
    assert (found.requests, found.error_rate, found.failed) == (100, 0.0, None)


def test_restarted_envoy_counts_from_zero() -> None:
    found = judge(LIMITS, counted(1000, 2, [1000]), counted(40, 30, [40]))
    assert (found.requests, found.error_rate) == (40, 0.75)
    assert found.failed is not None
    assert found.p95 == pytest.approx(0.00095)


def test_without_limits_nothing_fails() -> None:
    limits = Analysis(max_error_rate=None, max_p95=None)
    assert judge(limits, counted(), counted(100, 100, [0, 0, 0, 0, 100])).failed is None


def test_at_least_one_request_is_required() -> None:
    limits = Analysis(max_error_rate=0.0, min_requests=0)
    assert judge(limits, counted(), counted(0, 0)).failed is None
    assert judge(limits, counted(), counted(1, 1)).failed is not None


def test_latency() -> None:
    slow = judge(LIMITS, counted(), counted(100, 0, [0, 0, 90, 10, 0]))
    assert slow.failed == "p95 latency of 100 requests is 550 ms (limit 100 ms)"
    assert judge(LIMITS, counted(), counted(100, 0, [0, 50, 50])).failed is None
    few = judge(LIMITS, counted(), counted(10, 0, [0, 0, 0, 10, 0]))
    assert few.failed is None


@pytest.mark.parametrize(
    ("buckets", "quantile", "expected"),
    [
        ([], 0.5, None),
        ([0, 0, 0, 0, 0], 0.5, None),
        ([100], 0.5, 0.0005),
        ([0, 100], 0.5, 0.0055),
        ([50, 50], 0.5, 0.001),
        ([0, 0, 0, 0, 7], 0.95, 1.0),
        ([1, 0, 0, 0, 0], 1.0, 0.001),
    ],
)
def test_percentile(buckets: list[int], quantile: float, expected: float | None) -> None:
    found = percentile(counted(), counted(buckets=buckets), quantile)
    assert found == (None if expected is None else pytest.approx(expected))


def test_percentile_of_the_difference() -> None:
    assert percentile(counted(buckets=[90, 0]), counted(buckets=[90, 10]), 0.5) == pytest.approx(
        0.0055
    )


counts = st.lists(st.integers(0, 1000), min_size=5, max_size=5)


@given(counts, counts, st.floats(0.01, 1.0), st.floats(0.01, 1.0))
def test_percentile_is_within_its_bucket_and_monotonic(
    before: list[int], more: list[int], one: float, other: float
) -> None:
    earlier = counted(buckets=before)
    later = counted(buckets=[a + b for a, b in zip(before, more, strict=True)])
    low, high = (percentile(earlier, later, q) for q in sorted((one, other)))
    if not sum(more):
        assert low is None
        assert high is None
        return
    assert low is not None
    assert high is not None
    assert 0 <= low <= high <= BOUNDS[-2]
    holds = next(i for i in range(5) if sum(more[: i + 1]) >= min(one, other) * sum(more))
    assert low <= BOUNDS[holds]
    assert holds == 0 or low >= BOUNDS[holds - 1]
