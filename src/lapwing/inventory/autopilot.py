"""How GKE Autopilot adjusts the resource requests of a pod.

A pod of the general-purpose class is billed by its requests, after Autopilot has raised them to
minimums of CPU and memory and to a range of memory per vCPU (the smaller side is raised). Without
requests there is a default; if one of the two is missing, it is chosen so that the ratio holds,
here the nearest to the default. Requests above the maximum are refused. The limits are in
`autopilot.toml`, with their source.

CPU in vCPU, memory in GiB.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from lapwing.system.package_data import read

GIB = Decimal(2**30)
_LIMITS = tomllib.loads(read("inventory", "autopilot.toml"))["limits"]


def _limit(name: str) -> Decimal:
    return Decimal(_LIMITS[name])


MIN_CPU, MIN_MEMORY = _limit("least_cpu"), _limit("least_memory_mib") / 1024
DEFAULT_CPU, DEFAULT_MEMORY = _limit("default_cpu"), _limit("default_memory")
MAX_CPU, MAX_MEMORY = _limit("most_cpu"), _limit("most_memory")
LEAST_MEMORY_PER_CPU = _limit("least_memory_per_cpu")
MOST_MEMORY_PER_CPU = _limit("most_memory_per_cpu")
DEFAULT_STORAGE = _limit("default_storage")
"""GiB of node disk for a pod without a request."""


@dataclass(frozen=True, slots=True)
class Pod:
    """The billed requests of one pod; `note` explains adjustments."""

    cpu: Decimal
    memory: Decimal
    note: str = ""
    refused: bool = False


def fit(cpu: float | Decimal | None, memory: int | None) -> Pod:
    """Adjust a request of `cpu` cores and `memory` bytes; None is no request."""
    asked_cpu = _up(Decimal(str(cpu)) * 1000) / 1000 if cpu is not None else None
    asked_memory = _up(Decimal(memory) / GIB * 1024) / 1024 if memory is not None else None
    chosen_cpu, chosen_memory = _complete(asked_cpu, asked_memory)
    fitted_cpu = max(chosen_cpu, MIN_CPU)
    fitted_memory = max(chosen_memory, MIN_MEMORY, fitted_cpu * LEAST_MEMORY_PER_CPU)
    fitted_cpu = max(fitted_cpu, _up(fitted_memory / MOST_MEMORY_PER_CPU * 1000) / 1000)
    notes = []
    if cpu is None and memory is None:
        notes.append("no CPU and memory requests; Autopilot applies its default")
    elif cpu is None or memory is None:
        absent = "CPU" if cpu is None else "memory"
        notes.append(f"no {absent} request; Autopilot sets it")
    if (fitted_cpu, fitted_memory) != (chosen_cpu, chosen_memory):
        notes.append(
            f"Autopilot rounds {show(chosen_cpu, chosen_memory)} up to "
            f"{show(fitted_cpu, fitted_memory)}"
        )
    refused = fitted_cpu > MAX_CPU or fitted_memory > MAX_MEMORY
    if refused:
        notes.append(f"Autopilot refuses a pod of more than {show(MAX_CPU, MAX_MEMORY)}")
    return Pod(fitted_cpu, fitted_memory, "; ".join(notes), refused)


def _complete(cpu: Decimal | None, memory: Decimal | None) -> tuple[Decimal, Decimal]:
    """Fill in a missing request: the value nearest to the default that the ratio allows."""
    if cpu is None and memory is not None:
        least, most = memory / MOST_MEMORY_PER_CPU, memory / LEAST_MEMORY_PER_CPU
        cpu = _between(_up(least * 1000), DEFAULT_CPU * 1000, _down(most * 1000)) / 1000
    elif memory is None and cpu is not None:
        least, most = cpu * LEAST_MEMORY_PER_CPU, cpu * MOST_MEMORY_PER_CPU
        memory = _between(_up(least * 1024), DEFAULT_MEMORY * 1024, _down(most * 1024)) / 1024
    return cpu or DEFAULT_CPU, memory or DEFAULT_MEMORY


def _between(least: Decimal, wanted: Decimal, most: Decimal) -> Decimal:
    return max(least, min(wanted, most))


def show(cpu: Decimal, memory: Decimal) -> str:
    """Format a request: `250m, 512Mi`."""
    whole = memory == memory.to_integral_value()
    return f"{_up(cpu * 1000)}m, " + (f"{memory:.0f}Gi" if whole else f"{_up(memory * 1024)}Mi")


def _up(value: Decimal) -> Decimal:
    return value.to_integral_value(ROUND_CEILING)


def _down(value: Decimal) -> Decimal:
    return value.to_integral_value(ROUND_FLOOR)
