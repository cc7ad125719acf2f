"""Measures what running services use, for right-sizing.

Every few seconds the meter reads the active generation of each service: CPU of the session of each
replica (`footprint.py`), memory every other minute, and the requests that Envoy completed, in one
query for all services. The difference between two readings of the same process is a sample.
Samples are counted in buckets by the hour (`observed/usage.py`).

It must cost little and break nothing: any error is a gap in the measurements.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from lapwing.agent.footprint import Footprint, footprints
from lapwing.agent.processes import Identity
from lapwing.agent.proxy.supervisor import Envoy
from lapwing.agent.state import EnvironmentState, Generation
from lapwing.errors import LapwingError
from lapwing.observed import usage
from lapwing.observed.usage import Sample, Usage
from lapwing.settings import Settings

log = logging.getLogger(__name__)

READING_INTERVAL_S = 20.0
MEMORY_EVERY = 6
"""Memory is read every so many readings."""
WRITE_INTERVAL_S = 300.0
"""Time between two writes of the file; the first is written at once."""
MAX_SAMPLE_S = 3 * READING_INTERVAL_S
"""Readings further apart make no sample: the machine was suspended."""

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read at `time` (monotonic seconds)."""

    time: float
    processes: Mapping[Identity, Footprint]
    completed: Mapping[str, int]


class Meter:
    """Measures the environments that `states` returns."""

    def __init__(
        self, settings: Settings, envoy: Envoy, states: Callable[[], list[EnvironmentState]]
    ) -> None:
        self._settings = settings
        self._envoy = envoy
        self._states = states
        self._last: Reading | None = None
        self._readings = 0
        """The number of readings since the last one without active services."""
        self._usage: dict[Key, Usage] = {}
        self._written: dict[Key, float] = {}

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            try:
                await self.measure(memory=self._readings <= 1 or self._readings % MEMORY_EVERY == 0)
            except (LapwingError, OSError) as error:
                log.info("Usage was not measured: %s", error)
            except Exception:
                log.exception("Usage was not measured; retrying.")
            await asyncio.sleep(READING_INTERVAL_S)

    async def measure(self, *, memory: bool = True) -> None:
        """Read once, count the usage since the last reading, and write it when it is due.

        Raises ProxyError or OSError.
        """
        before, states = self._last, self._states()
        served = [(s, g) for s in states for g in s.generations if g.role == "active"]
        if not served:
            self._last, self._readings = None, 0
            return
        now = await self._read(served, memory)
        self._last, self._readings = now, self._readings + 1
        if before is None or not 0 < now.time - before.time <= MAX_SAMPLE_S:
            return
        for state, generation in served:
            sample = _sample(generation, state.cluster_name(generation), before, now)
            if sample is not None:
                key = (state.stack, state.environment)
                usage.note(self._of(key), generation.service, sample)
        self._write(now.time)

    async def _read(
        self, served: Iterable[tuple[EnvironmentState, Generation]], memory: bool
    ) -> Reading:
        names = [s.cluster_name(g) for s, g in served if g.spec.route is not None]
        running = {
            Identity(r.pid, r.started) for _, g in served for r in g.replicas if r.pid is not None
        }
        completed = await self._envoy.admin.completed(names)
        found = await asyncio.to_thread(footprints, {i.pid for i in running}, memory=memory)
        seen = {i: found[i.pid] for i in running if i.pid in found}
        return Reading(time.monotonic(), seen, completed)

    def forget(self, key: Key) -> None:
        """Drop the measurements of an environment that is removed."""
        self._usage.pop(key, None)

    def write(self) -> None:
        """Write the measurements that are not written yet. Raises OSError."""
        self._write(None)

    def _write(self, now: float | None) -> None:
        for key, measured in self._usage.items():
            due = now is None or now - self._written.get(key, -math.inf) >= WRITE_INTERVAL_S
            if due and measured.services:
                usage.write(self._settings.environment(*key), measured)
                self._written[key] = time.monotonic()

    def _of(self, key: Key) -> Usage:
        if key not in self._usage:
            self._usage[key] = usage.read(self._settings.environment(*key))
        return self._usage[key]


def _sample(generation: Generation, cluster: str, before: Reading, now: Reading) -> Sample | None:
    """Return what a generation used between two readings; None without a process in both."""
    seconds = now.time - before.time
    cpu, memory = [], 0
    for replica in generation.replicas:
        identity = Identity(replica.pid or 0, replica.started)
        then, present = before.processes.get(identity), now.processes.get(identity)
        if present is not None:
            memory = max(memory, present.memory)
            if then is not None:
                cpu.append(max(0.0, present.cpu - then.cpu) / seconds)
    if not cpu:
        return None
    return Sample(time.time(), seconds, tuple(cpu), memory, _requests(cluster, before, now))


def _requests(cluster: str, before: Reading, now: Reading) -> int | None:
    """Return the requests between two readings.

    A lower count is that of a restarted Envoy, which counts from zero.
    """
    present, then = now.completed.get(cluster), before.completed.get(cluster)
    if present is None or then is None:
        return None
    return present - then if present >= then else present
