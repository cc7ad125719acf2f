"""Resource usage of services: measured by the agent, read by `lapwing review` and `status`.

Each environment has one file, `usage.json`: for each service, the last seven days by the hour. An
hour is a histogram whose buckets are each 5 % wider than the one before. So a percentile over many
hours is exact or up to 5 % too high, an hour takes a few hundred bytes, and the file stays bounded.

CPU in cores and memory in bytes are those of one replica; requests per second are the service's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from lapwing.system.files import write_atomic

FILE = "usage.json"
KEPT_HOURS = 7 * 24
STEP = 1.05
"""The ratio of the widths of adjacent buckets."""
LEAST_CPU = 0.001
"""Cores: the upper bound of the lowest bucket."""
LEAST_RATE = 0.01
"""Requests per second: the upper bound of the lowest bucket."""

Buckets = dict[int, int]


class Hour(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The measurements of one hour, `began` (hours since 1970, UTC), in `seconds` of measuring."""

    began: int
    seconds: float = 0.0
    cpu: Buckets = {}
    memory: int = 0
    """The maximum of one replica."""
    rate: Buckets = {}
    requests: int = 0


class ServiceUsage(msgspec.Struct, kw_only=True):
    """The hours of one service, the oldest first."""

    hours: list[Hour] = []


class Usage(msgspec.Struct, kw_only=True):
    """The measurements of one environment, by service."""

    services: dict[str, ServiceUsage] = {}


@dataclass(frozen=True, slots=True)
class Sample:
    """What a service used in the `seconds` before `time` (Unix time).

    The cores of each replica, the maximum memory of a replica, and the completed requests (None
    without a route).
    """

    time: float
    seconds: float
    cpu: tuple[float, ...]
    memory: int
    requests: int | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """The usage of a service over all hours that are kept.

    The 95th percentile and the maximum of a replica's CPU, the maximum memory of a replica, the
    95th percentile and the maximum of requests per second, the number of requests, and for how many
    hours it was measured.
    """

    cpu: float
    cpu_max: float
    memory: int
    rate: float | None
    rate_max: float | None
    requests: int
    hours: float


def note(usage: Usage, service: str, sample: Sample) -> None:
    """Count a sample, and remove the hours that are too old."""
    known = usage.services.setdefault(service, ServiceUsage())
    began = int(sample.time // 3600)
    if not known.hours or known.hours[-1].began != began:
        known.hours.append(Hour(began=began))
    hour = known.hours[-1]
    hour.seconds += sample.seconds
    hour.memory = max(hour.memory, sample.memory)
    for cores in sample.cpu:
        _count(hour.cpu, cores, LEAST_CPU)
    if sample.requests is not None:
        hour.requests += sample.requests
        _count(hour.rate, sample.requests / sample.seconds, LEAST_RATE)
    _forget(usage, began)


def summary(service: ServiceUsage) -> Summary | None:
    """Summarize the hours of a service; None until both CPU and memory were measured."""
    cpu, rate = _sum(h.cpu for h in service.hours), _sum(h.rate for h in service.hours)
    memory = max((h.memory for h in service.hours), default=0)
    if not cpu or not memory:
        return None
    return Summary(
        cpu=percentile(cpu, 0.95, LEAST_CPU),
        cpu_max=percentile(cpu, 1.0, LEAST_CPU),
        memory=memory,
        rate=percentile(rate, 0.95, LEAST_RATE) if rate else None,
        rate_max=percentile(rate, 1.0, LEAST_RATE) if rate else None,
        requests=sum(h.requests for h in service.hours),
        hours=sum(h.seconds for h in service.hours) / 3600,
    )


def percentile(buckets: Buckets, quantile: float, least: float) -> float:
    """Return the upper bound of a quantile's bucket. Raises ValueError if all are empty."""
    wanted = math.ceil(quantile * sum(buckets.values()))
    reached = 0
    for bucket in sorted(buckets):
        reached += buckets[bucket]
        if reached >= wanted:
            return 0.0 if bucket < 0 else float(least * STEP**bucket)
    raise ValueError("nothing was counted")


def _count(buckets: Buckets, value: float, least: float) -> None:
    """Count a value; bucket -1 is for zero."""
    bucket = -1 if value <= 0 else max(0, math.ceil(math.log(value / least, STEP) - 1e-9))
    buckets[bucket] = buckets.get(bucket, 0) + 1


def _sum(parts: Iterable[Buckets]) -> Buckets:
    found: Buckets = {}
    for part in parts:
        for bucket, count in part.items():
            found[bucket] = found.get(bucket, 0) + count
    return found


def _forget(usage: Usage, now: int) -> None:
    for name, known in list(usage.services.items()):
        known.hours = [h for h in known.hours if now - KEPT_HOURS < h.began <= now]
        if not known.hours:
            del usage.services[name]


def write(folder: Path, usage: Usage) -> None:
    """Replace the file. Not synced: a power failure may lose the last minutes. Raises OSError."""
    write_atomic(folder / FILE, msgspec.json.encode(usage), None, sync=False)


def read(folder: Path) -> Usage:
    """Return what was written last; empty if there is no file that can be read."""
    try:
        return msgspec.json.decode((folder / FILE).read_bytes(), type=Usage)
    except (OSError, msgspec.MsgspecError):
        return Usage()
