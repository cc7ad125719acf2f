"""The meter: what services use, sampled while they serve, for right-sizing.

Every few seconds it looks at the active generation of each service: CPU of the session of each
replica (`footprint.py`), memory every other minute, and requests that Envoy has answered, in one
question for all services. What lies between two looks at the same process is a sample; a process
seen for the first time only begins one. Samples are counted in buckets by the hour
(`observed/usage.py`).

It must cost next to nothing and break nothing: whatever goes wrong is a gap in the measurements.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from lapwing.agent.bluegreen import cluster_name
from lapwing.agent.footprint import Footprint, footprints
from lapwing.agent.processes import Identity
from lapwing.agent.state import EnvironmentState, Generation
from lapwing.errors import LapwingError
from lapwing.observed import usage
from lapwing.observed.usage import Sample, Usage
from lapwing.settings import Settings

log = logging.getLogger(__name__)

EVERY = 20.0
"""Seconds between two looks."""
MEMORY_EVERY = 6
"""Looks between two at memory."""
WRITE_EVERY = 300.0
"""Seconds between two writes of the file; the first is written at once."""
LONGEST = 3 * EVERY
"""Seconds between two looks beyond which they make no sample: the machine slept."""

Key = tuple[str, str]


class Counting(Protocol):
    """What the meter needs of the proxy."""

    async def answered(self, names: Iterable[str]) -> Mapping[str, int]:
        """How many requests each cluster has answered since the proxy began."""


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen at `time` (monotonic seconds)."""

    time: float
    processes: Mapping[Identity, Footprint]
    answered: Mapping[str, int]


class Meter:
    """Measures what the environments that `states` gives use."""

    def __init__(
        self, settings: Settings, proxy: Counting, states: Callable[[], list[EnvironmentState]]
    ) -> None:
        self._settings = settings
        self._proxy = proxy
        self._states = states
        self._last: Look | None = None
        self._looks = 0
        """How many there were since there was nothing to see."""
        self._usage: dict[Key, Usage] = {}
        self._written: dict[Key, float] = {}

    async def run(self) -> None:
        """Look for ever."""
        while True:
            try:
                await self.look(memory=self._looks <= 1 or self._looks % MEMORY_EVERY == 0)
            except (LapwingError, OSError) as error:
                log.info("Nothing was measured: %s", error)
            except Exception:
                log.exception("Measuring failed; it is tried again.")
            await asyncio.sleep(EVERY)

    async def look(self, *, memory: bool = True) -> None:
        """Look once, count what was used since the last look, and write it down now and then.
        Raises ProxyError or OSError."""
        before, states = self._last, self._states()
        served = [(s, g) for s in states for g in s.generations if g.role == "active"]
        if not served:
            self._last, self._looks = None, 0
            return
        now = await self._see(served, memory)
        self._last, self._looks = now, self._looks + 1
        if before is None or not 0 < now.time - before.time <= LONGEST:
            return
        for state, generation in served:
            sample = _sample(generation, cluster_name(state, generation), before, now)
            if sample is not None:
                key = (state.stack, state.environment)
                usage.note(self._of(key), generation.service, sample)
        self._write(now.time)

    async def _see(
        self, served: Iterable[tuple[EnvironmentState, Generation]], memory: bool
    ) -> Look:
        names = [cluster_name(s, g) for s, g in served if g.spec.route is not None]
        running = {
            Identity(r.pid, r.started) for _, g in served for r in g.replicas if r.pid is not None
        }
        answered = await self._proxy.answered(names)
        found = await asyncio.to_thread(footprints, {i.pid for i in running}, memory=memory)
        seen = {i: found[i.pid] for i in running if i.pid in found}
        return Look(time.monotonic(), seen, answered)

    def write(self) -> None:
        """Write down what is not written yet. Raises OSError."""
        self._write(None)

    def _write(self, now: float | None) -> None:
        for key, measured in self._usage.items():
            due = now is None or now - self._written.get(key, -math.inf) >= WRITE_EVERY
            if due and measured.services:
                usage.write(self._settings.environment(*key), measured)
                self._written[key] = time.monotonic()

    def _of(self, key: Key) -> Usage:
        if key not in self._usage:
            self._usage[key] = usage.read(self._settings.environment(*key))
        return self._usage[key]


def _sample(generation: Generation, cluster: str, before: Look, now: Look) -> Sample | None:
    """What a generation used between two looks; None if no process of it was seen in both."""
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


def _requests(cluster: str, before: Look, now: Look) -> int | None:
    """Requests between two looks. A count that went down is that of a new Envoy, from zero."""
    present, then = now.answered.get(cluster), before.answered.get(cluster)
    if present is None or then is None:
        return None
    return present - then if present >= then else present
