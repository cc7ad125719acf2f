"""Decides how many replicas an autoscaled service should have. No I/O.

The algorithm is that of the HorizontalPodAutoscaler: for each metric

    wanted = ceil(measured total / target of one replica)

and the highest counts. Within `TOLERANCE` of the target the number stays. A replica that was not
measured yet counts as idle when replicas would be added, and as at its target when some would be
removed. While a metric is unknown, the others only add replicas. Replicas are added at once, and
removed when all recommendations of `Scale.down_after` seconds were lower.

Source: Kubernetes documentation, "Horizontal Pod Autoscaling", algorithm details and stabilization
window; pkg/controller/podautoscaler/replica_calculator.go.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lapwing.plan.model import Scale

TOLERANCE = 0.1
"""The deviation from the target, as a share of it, that changes nothing."""
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Load:
    """The cores that each measured replica uses, and the requests in progress of the service.

    `requests` is a mean, and None while it is unknown.
    """

    cpu: Sequence[float]
    requests: float | None = None


@dataclass(frozen=True, slots=True)
class Recommendation:
    """A recommended number of replicas at a time (monotonic seconds), and why."""

    at: float
    replicas: int
    reason: str


def recommend(at: float, present: int, least: int, scale: Scale, load: Load) -> Recommendation:
    """Return the number for the load at a time, between `least` and `scale.max`."""
    proposals = [_by_cpu(present, scale.cpu, load.cpu)]
    if scale.requests is not None:
        proposals.append(_by_requests(present, scale.requests, load.requests))
    known = [p for p in proposals if p is not None]
    if not known:
        return Recommendation(at, _between(least, present, scale.max), "the load is not measured")
    replicas, reason = max(known, key=lambda p: p[0])
    if len(known) < len(proposals) and replicas < present:
        return Recommendation(at, _between(least, present, scale.max), "a metric is not measured")
    return Recommendation(at, _between(least, replicas, scale.max), reason)


def stabilize(
    present: int, newest: Recommendation, history: Sequence[Recommendation], window: float
) -> Recommendation:
    """Return the recommendation to follow: the highest of the window before fewer than present."""
    if newest.replicas >= present:
        return newest
    recent = [r for r in history if newest.at - window < r.at <= newest.at]
    highest = max([newest, *recent], key=lambda r: r.replicas)
    return Recommendation(newest.at, min(present, highest.replicas), newest.reason)


def _between(least: int, replicas: int, most: int) -> int:
    return max(least, min(replicas, most))


def _by_cpu(present: int, target: float, measured: Sequence[float]) -> tuple[int, str] | None:
    if not measured or not present:
        return None
    mean = sum(measured) / len(measured)
    reason = f"each uses {mean:.2f} cores of CPU, target {target:.2f}"
    missing = max(0, present - len(measured))
    total = sum(measured) + (missing * target if mean < target else 0.0)
    return _proposed(present, total, target), reason


def _by_requests(present: int, target: float, in_progress: float | None) -> tuple[int, str] | None:
    if in_progress is None or not present:
        return None
    mean = in_progress / present
    reason = f"each has {mean:.1f} requests in progress, target {target:g}"
    return _proposed(present, in_progress, target), reason


def _proposed(present: int, total: float, target: float) -> int:
    if abs(total / (present * target) - 1.0) <= TOLERANCE + _ROUNDING:
        return present
    return math.ceil(total / target - _ROUNDING)
