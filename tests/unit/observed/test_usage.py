"""What is kept of measurements: percentiles that hold, in a file that does not grow."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from lapwing.observed import usage
from lapwing.observed.usage import KEPT_HOURS, Sample, Usage

WEEK = 7 * 24 * 3600.0


def sample(time: float = 0.0, **changes: object) -> Sample:
    found = Sample(time=time, seconds=15.0, cpu=(0.1,), memory=100, requests=30)
    return Sample(**{f: changes.get(f, getattr(found, f)) for f in Sample.__slots__})  # type: ignore[arg-type]


@given(st.lists(st.floats(0, 64), min_size=1, max_size=200), st.sampled_from([0.5, 0.95, 1.0]))
def test_percentile_is_exact_or_up_to_5_percent_above(cores: list[float], quantile: float) -> None:
    measured = Usage()
    for value in cores:
        usage.note(measured, "api", sample(cpu=(value,)))
    true = sorted(cores)[math.ceil(quantile * len(cores)) - 1]
    buckets = measured.services["api"].hours[0].cpu
    found = usage.percentile(buckets, quantile, usage.LEAST_CPU)
    assert true * (1 - 1e-6) <= found <= max(true * usage.STEP * (1 + 1e-6), usage.LEAST_CPU)


def test_summary_of_a_week_of_samples(tmp_path: Path) -> None:
    measured = Usage()
    for number in range(int(WEEK // 15)):
        moment = number * 15.0
        busy = number % 20 == 0
        usage.note(
            measured,
            "api",
            sample(moment, cpu=(0.9, 0.8) if busy else (0.1, 0.2), memory=number, requests=150),
        )
    found = usage.summary(measured.services["api"])
    assert found is not None
    assert 0.2 <= found.cpu <= 0.21
    assert 0.9 <= found.cpu_max <= 0.945
    assert found.memory == int(WEEK // 15) - 1
    assert found.rate is not None
    assert 10 <= found.rate <= 10.5
    assert found.hours == 168
    assert found.requests == 150 * (WEEK // 15)
    usage.write(tmp_path, measured)
    assert (tmp_path / usage.FILE).stat().st_size < 30_000
    assert usage.read(tmp_path) == measured
    for hour in range(10 * KEPT_HOURS):
        usage.note(measured, "api", sample(WEEK + hour * 3600.0))
    assert len(measured.services["api"].hours) == KEPT_HOURS


def test_removed_service_is_dropped_after_a_week() -> None:
    measured = Usage()
    usage.note(measured, "old", sample())
    usage.note(measured, "api", sample(WEEK - 1))
    assert set(measured.services) == {"old", "api"}
    usage.note(measured, "api", sample(WEEK + 1))
    assert set(measured.services) == {"api"}


def test_clock_set_back_drops_only_future_hours() -> None:
    measured = Usage()
    usage.note(measured, "api", sample(2 * WEEK))
    usage.note(measured, "api", sample(WEEK))
    found = usage.summary(measured.services["api"])
    assert found is not None
    assert found.hours * 3600 == 15


def test_worker_has_no_requests() -> None:
    measured = Usage()
    usage.note(measured, "worker", sample(requests=None))
    found = usage.summary(measured.services["worker"])
    assert found is not None
    assert (found.rate, found.rate_max, found.requests) == (None, None, 0)
    assert usage.summary(usage.ServiceUsage()) is None


def test_no_summary_before_memory_was_measured() -> None:
    measured = Usage()
    usage.note(measured, "api", sample(memory=0))
    assert usage.summary(measured.services["api"]) is None
    usage.note(measured, "api", sample(memory=100))
    found = usage.summary(measured.services["api"])
    assert found is not None
    assert found.memory == 100


def test_damaged_usage_file_is_ignored(tmp_path: Path) -> None:
    assert usage.read(tmp_path) == Usage()
    for damaged in (b"", b"{", b'{"services": []}', b'{"services": {"api": {"hours": [{}]}}}'):
        (tmp_path / usage.FILE).write_bytes(damaged)
        assert usage.read(tmp_path) == Usage()


def test_services_do_not_share_hours() -> None:
    measured = Usage()
    usage.note(measured, "a", sample())
    usage.note(measured, "b", sample())
    assert sum(measured.services["a"].hours[0].cpu.values()) == 1
    assert msgspec.json.decode(msgspec.json.encode(measured), type=Usage) == measured
