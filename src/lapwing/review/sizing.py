"""Right-sizing: what was measured against what is asked for. Pure.

Measurements come as one record for each service: the 95th percentile of its CPU in cores, the peak
of its memory in bytes, both of one replica, requests a second, and for how many hours it was
watched. Advice is to ask for the percentile and a third more, never less than Autopilot bills
anyhow, and never on less than a day of watching. Without measurements the finding says so.

What was measured in another environment (`local` has other traffic than production) is evidence and
no proof: a service will hardly need less memory elsewhere, so that it asks for too little is still
a warning; that it asks for too much is for information, with the traffic that it was seen with.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal

from lapwing.cost.ledger import Estimate
from lapwing.review.finding import Finding, Severity, Subject
from lapwing.stack.load import LoadedStack

HEADROOM = 4 / 3
TOO_LARGE = 0.5
"""Below this share of what is asked for, a service is too large."""
TOO_SMALL = 0.9
"""Above this share, it is about to be throttled or killed."""
FEWEST_HOURS = 24.0
MIB = 2**20
SMALLEST_CPU, SMALLEST_MEMORY = 0.05, 52 * MIB

Estimator = Callable[[LoadedStack], Estimate]


@dataclass(frozen=True, slots=True)
class Measured:
    """What one replica of a service used, in the environment `place`; None is the one under
    review."""

    cpu: float
    memory: int
    hours: float
    requests: float | None = None
    place: str | None = None


def sizing(
    subject: Subject,
    measured: Mapping[str, Mapping[str, Measured]],
    estimator: Estimator,
) -> Iterator[Finding]:
    """Findings for each service; `measured` is by environment and service."""
    for loaded in subject.stacks:
        records = measured.get(loaded.environment, {})
        names = [n for n, s in loaded.stack.services.items() if s.kind != "job"]
        absent = [n for n in names if n not in records]
        for name in names:
            if name in records:
                yield from _service(subject, loaded, name, records[name], estimator)
        if absent:
            yield Finding(
                "sizing/not-measured",
                Severity.INFO,
                loaded.environment,
                f"{', '.join(f'`{n}`' for n in absent)}: not measured",
                "Let it serve: the agent measures what runs on this machine. Measurements of a "
                "cluster are given with --measured.",
            )


def _service(
    subject: Subject, loaded: LoadedStack, name: str, seen: Measured, estimator: Estimator
) -> Iterator[Finding]:
    asked = loaded.stack.services[name].resources
    where = subject.at(loaded.environment, ("services", name, "resources"))
    if seen.hours < FEWEST_HOURS:
        yield Finding(
            "sizing/too-early",
            Severity.INFO,
            loaded.environment,
            f"{where}: `{name}` {_used(seen)}, measured for {_hours(seen.hours)}",
            f"Wait for {FEWEST_HOURS:g} hours with real traffic before you change its size.",
        )
        return
    cpu, memory = _fit(seen)
    if asked.cpu is None or asked.memory is None:
        yield Finding(
            "sizing/state-it",
            Severity.INFO if seen.place else Severity.WARNING,
            loaded.environment,
            f"{where}: `{name}` {_used(seen)}, and asks for nothing",
            f"State `resources: {{cpu: {_cpu(cpu)}, memory: {_memory(memory)}}}`.",
            _saves(loaded, name, cpu, memory, estimator),
        )
        return
    used_cpu, used_memory = seen.cpu / asked.cpu, seen.memory / asked.memory
    evidence = f"{where}: `{name}` {_used(seen)} of {_cpu(asked.cpu)} and {_memory(asked.memory)}"
    if max(used_cpu, used_memory) > TOO_SMALL:
        cpu, memory = max(cpu, asked.cpu), max(memory, asked.memory)
        killed = used_memory > TOO_SMALL
        yield Finding(
            "sizing/too-small",
            Severity.CRITICAL if killed and not seen.place else Severity.WARNING,
            loaded.environment,
            evidence,
            f"Ask for {_cpu(cpu)} and {_memory(memory)}: it is about to be "
            f"{'killed' if killed else 'throttled'}.",
            _saves(loaded, name, cpu, memory, estimator),
        )
    elif min(used_cpu, used_memory) < TOO_LARGE:
        cpu, memory = min(cpu, asked.cpu), min(memory, asked.memory)
        if (cpu, memory) == (asked.cpu, asked.memory):
            return
        ask = f"sk for {_cpu(cpu)} and {_memory(memory)}."
        yield Finding(
            "sizing/too-large",
            Severity.INFO if seen.place else Severity.WARNING,
            loaded.environment,
            evidence,
            f"If `{loaded.environment}` has no more traffic than `{seen.place}`, a{ask}"
            if seen.place
            else f"A{ask}",
            _saves(loaded, name, cpu, memory, estimator),
        )


def _fit(seen: Measured) -> tuple[float, int]:
    """Cores and bytes to ask for: rounded up to 10m and 16 MiB."""
    cpu = math.ceil(seen.cpu * HEADROOM * 100) / 100
    memory = math.ceil(seen.memory * HEADROOM / (16 * MIB)) * 16 * MIB
    return max(cpu, SMALLEST_CPU), max(memory, SMALLEST_MEMORY)


def _saves(
    loaded: LoadedStack, name: str, cpu: float, memory: int, estimator: Estimator
) -> Decimal | None:
    """The estimate now less the estimate with another size; None where a price is unknown."""
    service = loaded.stack.services[name]
    resized = service.model_copy(
        update={"resources": service.resources.model_copy(update={"cpu": cpu, "memory": memory})}
    )
    services = {**loaded.stack.services, name: resized}
    stack = loaded.stack.model_copy(update={"services": services})
    before, after = estimator(loaded), estimator(dataclasses.replace(loaded, stack=stack))
    mine = [line for line in before.lines if line.part == name]
    if not mine or any(not line.known for line in mine):
        return None
    return before.low - after.low


def _used(seen: Measured) -> str:
    rate = f" at {seen.requests:.3g} requests a second" if seen.requests is not None else ""
    place = f" in `{seen.place}`" if seen.place else ""
    return f"used {_cpu(seen.cpu)} and {_memory(seen.memory)}{rate}{place}"


def _hours(hours: float) -> str:
    """Hours as people say them: minutes, where there is less than one."""
    return f"{hours * 60:.0f} minutes" if hours < 1 else f"{hours:.3g} hours"


def _cpu(cores: float) -> str:
    return f"{math.ceil(round(cores * 1000, 6))}m"


def _memory(size: int) -> str:
    return f"{math.ceil(size / MIB)}Mi"
