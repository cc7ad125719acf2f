"""Judges a new release by the error rate and latency that Envoy has counted for it.

Counters belong to one generation (a cluster name is never reused), so the difference between the
switch and now is what real clients experienced. Limits apply as soon as `min_requests` have been
counted, so a broken release is rolled back at once and not at the end of the window; passing takes
the whole window.
"""

from __future__ import annotations

from dataclasses import dataclass

from lapwing.agent.proxy.model import Counters
from lapwing.plan.model import Analysis


@dataclass(frozen=True, slots=True)
class Judgement:
    """The result so far: `failed` is the limit that was exceeded, None if there is none."""

    requests: int
    error_rate: float
    p95: float | None
    """Seconds; None when no request was timed."""
    failed: str | None = None

    def summary(self, min_requests: int) -> str:
        """Describe the result in a phrase for the event log."""
        if self.requests < min_requests:
            return f"{self.requests} requests in the analysis window, too few to analyse"
        p95 = "" if self.p95 is None else f", p95 {self.p95 * 1000:.0f} ms"
        return f"{self.requests} requests, {self.error_rate:.1%} errors{p95}"


def judge(limits: Analysis, before: Counters, now: Counters) -> Judgement:
    """Judge the requests between two readings of the same cluster.

    Counters that decreased belong to a restarted Envoy, which counts from zero.
    """
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
                f"{errors} of {requests} requests failed ({rate:.1%}, "
                f"limit {limits.max_error_rate:.1%})"
            )
        elif limits.max_p95 is not None and p95 is not None and p95 > limits.max_p95:
            failed = (
                f"p95 latency of {requests} requests is {p95 * 1000:.0f} ms "
                f"(limit {limits.max_p95 * 1000:.0f} ms)"
            )
    return Judgement(requests, rate, p95, failed)


def percentile(before: Counters, now: Counters, quantile: float) -> float | None:
    """Return a latency quantile in seconds from two cumulative histograms.

    It is interpolated within its bucket; None if nothing was counted between them.
    """
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
