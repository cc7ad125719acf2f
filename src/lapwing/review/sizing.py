"""Right-sizing: compare measured usage with resource requests.

A measurement has, for one replica of a service, the 95th percentile of CPU in cores, the peak of
memory in bytes, requests per second, and the hours of measurement. The advised request is the usage
plus a third, at least Autopilot's minimum, and only after a day of measurement.

A measurement in another environment (`local` has other traffic than production) is weaker evidence.
A service rarely needs less memory elsewhere, so requests that are too small are still a warning;
requests that are too large are informational, with the measured traffic.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from lapwing.cost.ledger import Estimate
from lapwing.errors import UsageError
from lapwing.review.finding import Finding, Severity, Subject
from lapwing.stack.load import LoadedStack

HEADROOM = 4 / 3
TOO_LARGE = 0.5
"""Requests are too large if usage is below this share of them."""
TOO_SMALL = 0.9
"""Requests are too small if usage is above this share of them."""
MIN_HOURS = 24.0
MIB = 2**20
MIN_CPU, MIN_MEMORY = 0.05, 52 * MIB

Estimator = Callable[[LoadedStack], Estimate]


@dataclass(frozen=True, slots=True)
class Measured:
    """What one replica of a service used.

    `environment` is where it was measured; None is the environment under review.
    """

    cpu: float
    memory: int
    hours: float
    requests: float | None = None
    environment: str | None = None


Measurements = Mapping[str, Mapping[str, Measured]]
"""By environment and service."""


def sizing(
    subject: Subject,
    measured: Measurements,
    estimator: Estimator,
) -> Iterator[Finding]:
    """Compare each service with its measurements."""
    for loaded in subject.stacks:
        records = measured.get(loaded.environment, {})
        # The agent does not measure a job, nor the file server of a static site.
        kinds = ("web", "worker")
        names = [n for n, s in loaded.stack.services.items() if s.kind in kinds or n in records]
        absent = [n for n in names if n not in records]
        for name in names:
            if name in records:
                yield from _service(subject, loaded, name, records[name], estimator)
        if absent:
            yield Finding(
                "sizing/not-measured",
                Severity.INFO,
                loaded.environment,
                f"{', '.join(f'`{n}`' for n in absent)}: no measurements",
                "The agent measures what runs on this machine. For a cluster, pass measurements "
                "with --measured FILE.",
            )


def _service(
    subject: Subject, loaded: LoadedStack, name: str, seen: Measured, estimator: Estimator
) -> Iterator[Finding]:
    requests = loaded.stack.services[name].resources
    where = subject.position(loaded.environment, ("services", name, "resources"))
    if seen.hours < MIN_HOURS:
        yield Finding(
            "sizing/too-early",
            Severity.INFO,
            loaded.environment,
            f"{where}: `{name}` {_used(seen)}, measured for {_hours(seen.hours)}",
            f"Measure {MIN_HOURS:g} hours of real traffic before changing the requests.",
        )
        return
    cpu, memory = _fit(seen)
    if requests.cpu is None or requests.memory is None:
        yield Finding(
            "sizing/state-it",
            Severity.INFO if seen.environment else Severity.WARNING,
            loaded.environment,
            f"{where}: `{name}` {_used(seen)}, and has no requests",
            f"Set `resources: {{cpu: {_cpu(cpu)}, memory: {_memory(memory)}}}`.",
            _saves(loaded, name, cpu, memory, estimator),
        )
        return
    used_cpu, used_memory = seen.cpu / requests.cpu, seen.memory / requests.memory
    evidence = (
        f"{where}: `{name}` {_used(seen)} of {_cpu(requests.cpu)} and {_memory(requests.memory)}"
    )
    if max(used_cpu, used_memory) > TOO_SMALL:
        cpu, memory = max(cpu, requests.cpu), max(memory, requests.memory)
        killed = used_memory > TOO_SMALL
        yield Finding(
            "sizing/too-small",
            Severity.CRITICAL if killed and not seen.environment else Severity.WARNING,
            loaded.environment,
            evidence,
            f"Request {_cpu(cpu)} and {_memory(memory)}: it is close to being "
            f"{'killed (out of memory)' if killed else 'throttled'}.",
            _saves(loaded, name, cpu, memory, estimator),
        )
    elif min(used_cpu, used_memory) < TOO_LARGE:
        cpu, memory = min(cpu, requests.cpu), min(memory, requests.memory)
        if (cpu, memory) == (requests.cpu, requests.memory):
            return
        request = f"equest {_cpu(cpu)} and {_memory(memory)}."
        yield Finding(
            "sizing/too-large",
            Severity.INFO if seen.environment else Severity.WARNING,
            loaded.environment,
            evidence,
            f"If `{loaded.environment}` has no more traffic than `{seen.environment}`, r{request}"
            if seen.environment
            else f"R{request}",
            _saves(loaded, name, cpu, memory, estimator),
        )


def _fit(seen: Measured) -> tuple[float, int]:
    """Return the CPU and memory to request, rounded up to 10m and 16 MiB."""
    cpu = math.ceil(seen.cpu * HEADROOM * 100) / 100
    memory = math.ceil(seen.memory * HEADROOM / (16 * MIB)) * 16 * MIB
    return max(cpu, MIN_CPU), max(memory, MIN_MEMORY)


def _saves(
    loaded: LoadedStack, name: str, cpu: float, memory: int, estimator: Estimator
) -> Decimal | None:
    """Compare the estimate with that of another size; None if a price is unknown."""
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
    rate = f" at {seen.requests:.3g} requests per second" if seen.requests is not None else ""
    where = f" in `{seen.environment}`" if seen.environment else ""
    return f"used {_cpu(seen.cpu)} and {_memory(seen.memory)}{rate}{where}"


def _hours(hours: float) -> str:
    """Format hours, in minutes below one hour."""
    return f"{hours * 60:.0f} minutes" if hours < 1 else f"{hours:.3g} hours"


def _cpu(cores: float) -> str:
    return f"{math.ceil(round(cores * 1000, 6))}m"


def _memory(size: int) -> str:
    return f"{math.ceil(size / MIB)}Mi"


def measurements(data: object) -> Measurements:
    """Parse measurements from JSON data. Raises UsageError with the path of an invalid value.

    The form is `{environment: {service: {"cpu": cores, "memory": bytes, "hours": hours,
    "requests": per second}}}`.
    """
    if not isinstance(data, dict):
        raise _invalid("the file", "a mapping of environments")
    result: dict[str, dict[str, Measured]] = {}
    for environment, services in data.items():
        if not isinstance(services, dict):
            raise _invalid(str(environment), "a mapping of services")
        result[environment] = {
            name: _measured(f"{environment}.{name}", record) for name, record in services.items()
        }
    return result


def _measured(path: str, record: object) -> Measured:
    if not isinstance(record, dict):
        raise _invalid(path, "a mapping with `cpu`, `memory` and `hours`")
    cpu, memory, hours = (_number(path, record, key) for key in ("cpu", "memory", "hours"))
    rate = _number(path, record, "requests") if "requests" in record else None
    return Measured(cpu, int(memory), hours, rate)


def _number(path: str, record: dict[str, Any], key: str) -> float:
    value = record.get(key)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= float(value) < 1e15:  # type: ignore[arg-type]
        raise _invalid(f"{path}.{key}", "a number that is not negative")
    return float(value)  # type: ignore[arg-type]


def _invalid(path: str, expected: str) -> UsageError:
    return UsageError(
        f"Invalid measurements: {path} must be {expected}.",
        hint='Example: {"production": {"api": {"cpu": 0.12, "memory": 200000000, "hours": 72}}}',
    )
