"""What Autopilot makes of the requests of a pod. Pure.

A pod of the general-purpose class is billed by what it requests, after Autopilot has made the
request fit: at least 50m CPU and 52 MiB, between 1 and 6.5 GiB of memory for each vCPU (the smaller
side is raised), and 500m and 2 GiB where nothing is requested. More than 30 vCPU or 110 GiB in one
pod is refused. Source: Google Cloud, "Resource requests in Autopilot", for clusters that allow
bursting (all that are new since GKE 1.30.2).

CPU in vCPU, memory in GiB.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal

GIB = Decimal(2**30)
MIN_CPU, MIN_MEMORY = Decimal("0.050"), Decimal(52) / 1024
DEFAULT_CPU, DEFAULT_MEMORY = Decimal("0.5"), Decimal(2)
MAX_CPU, MAX_MEMORY = Decimal(30), Decimal(110)
MOST_MEMORY_PER_CPU = Decimal("6.5")


@dataclass(frozen=True, slots=True)
class Pod:
    """What one pod is billed for, and what was changed to get there."""

    cpu: Decimal
    memory: Decimal
    note: str = ""
    refused: bool = False


def fit(cpu: float | None, memory: int | None) -> Pod:
    """The pod for a request of `cpu` cores and `memory` bytes; None is no request."""
    asked_cpu = DEFAULT_CPU if cpu is None else _up(Decimal(str(cpu)) * 1000) / 1000
    asked_memory = DEFAULT_MEMORY if memory is None else _up(Decimal(memory) / GIB * 1024) / 1024
    fitted_cpu = max(asked_cpu, MIN_CPU)
    fitted_memory = max(asked_memory, MIN_MEMORY, fitted_cpu)
    fitted_cpu = max(fitted_cpu, _up(fitted_memory / MOST_MEMORY_PER_CPU * 1000) / 1000)
    told = []
    absent = [n for n, v in (("CPU", cpu), ("memory", memory)) if v is None]
    if absent:
        told.append(f"no {' and '.join(absent)} is requested, so Autopilot's default holds")
    if (fitted_cpu, fitted_memory) != (asked_cpu, asked_memory):
        told.append(
            f"Autopilot rounds {show(asked_cpu, asked_memory)} up to "
            f"{show(fitted_cpu, fitted_memory)}"
        )
    refused = fitted_cpu > MAX_CPU or fitted_memory > MAX_MEMORY
    if refused:
        told.append(f"Autopilot refuses a pod of more than {show(MAX_CPU, MAX_MEMORY)}")
    return Pod(fitted_cpu, fitted_memory, "; ".join(told), refused)


def show(cpu: Decimal, memory: Decimal) -> str:
    """A request as people write it: `250m, 512Mi`."""
    whole = memory == memory.to_integral_value()
    return f"{_up(cpu * 1000)}m, " + (f"{memory:.0f}Gi" if whole else f"{_up(memory * 1024)}Mi")


def _up(value: Decimal) -> Decimal:
    return value.to_integral_value(ROUND_CEILING)
