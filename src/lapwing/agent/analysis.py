"""Analysis: is the new release worse than it may be, by Envoy's own counters? Pure.

Counters belong to one generation (a cluster's name is never used twice), so the difference between
the switch and now is what real clients met. A limit is judged as soon as `min_requests` have been
counted, so a broken release is taken back in a moment and not at the end of the window; passing
takes the whole window.
"""

from __future__ import annotations

from dataclasses import dataclass

from lapwing.agent.proxy.model import Counters
from lapwing.plan.model import Analysis


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is known after some time: `failed` is None while nothing is against the release."""

    requests: int
    error_rate: float
    p95: float | None
    """Seconds; None when no request was timed."""
    failed: str | None = None


def judge(limits: Analysis, before: Counters, now: Counters) -> Judgement:
    """Judge the requests between two readings of the same cluster.

    Counters that went down belong to an Envoy that was started again: it has counted from zero."""
    if now.requests < before.requests or now.errors < before.errors:
        before = Counters(before.cluster)
    requests = now.requests - before.requests
    errors = now.errors - before.errors
    rate = errors / requests if requests > 0 else 0.0
    p95 = percentile(before, now, 0.95)
    failed = None
    if requests >= max(limits.min_requests, 1):
        if limits.max_error_rate is not None and rate > limits.max_error_rate:
            failed = (
                f"{errors} of {requests} requests failed ({rate:.1%}; "
                f"{limits.max_error_rate:.1%} are allowed)"
            )
        elif limits.max_p95 is not None and p95 is not None and p95 > limits.max_p95:
            failed = (
                f"the 95th percentile of {requests} requests is {p95 * 1000:.0f} ms "
                f"({limits.max_p95 * 1000:.0f} ms are allowed)"
            )
    return Judgement(requests, rate, p95, failed)


def percentile(before: Counters, now: Counters, quantile: float) -> float | None:
    """A latency quantile in seconds from two cumulative histograms, interpolated within its
    bucket; None if nothing was counted between them."""
    earlier = dict(before.latency)
    counts = [(bound, count - earlier.get(bound, 0)) for bound, count in now.latency]
    total = counts[-1][1] if counts else 0
    if total <= 0:
        return None
    wanted = quantile * total
    lower_bound, lower_count = 0.0, 0
    for bound, count in counts:
        if count >= wanted:
            if count == lower_count or bound == float("inf"):
                return lower_bound
            share = (wanted - lower_count) / (count - lower_count)
            return lower_bound + share * (bound - lower_bound)
        lower_bound, lower_count = bound, count
    return lower_bound
