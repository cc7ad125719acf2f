"""Requests per second and the 99th percentile, as wrk reports them: short runs, the proxies in
turns, and another one begins in every round, so that other load on the machine affects all."""

from __future__ import annotations

import re
import statistics
import subprocess
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.proxies.contender import Contender

UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}
THREADS, CONNECTIONS = 1, 32


@dataclass(frozen=True)
class Run:
    """One run: requests per second, 99th percentile in ms, answers that were no success."""

    rate: float
    p99: float
    bad: int


def run(program: str, contender: Contender, path: str, seconds: int) -> Run:
    """One run over TLS on kept connections. Raises CalledProcessError if wrk fails."""
    done = subprocess.run(
        [
            program, f"-t{THREADS}", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency",
            "-H", f"Host: {contender.target.host}", f"https://127.0.0.1:{contender.port}{path}",
        ],
        check=True,
        capture_output=True,
        text=True,
    )  # fmt: skip
    return read(done.stdout)


def read(output: str) -> Run:
    """What wrk printed. Raises ValueError if it is something else."""
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s|m)\b", output)
    if rate is None or p99 is None:
        raise ValueError(f"wrk printed: {output}")
    bad = sum(int(n) for n in re.findall(r"Non-2xx or 3xx responses: (\d+)", output))
    for errors in re.findall(r"Socket errors: (.*)", output):
        bad += sum(int(n) for n in re.findall(r"\d+", errors))
    return Run(float(rate[1]), float(p99[1]) * UNITS[p99[2]], bad)


def rounds(
    program: str, contenders: Sequence[Contender], path: str, count: int, seconds: int
) -> dict[str, list[Run]]:
    """The runs of each contender."""
    found: dict[str, list[Run]] = {c.name: [] for c in contenders}
    for number in range(count):
        order = deque(contenders)
        order.rotate(-number)
        for contender in order:
            found[contender.name].append(run(program, contender, path, seconds))
    return found


def median(runs: Sequence[Run]) -> Run:
    """The median of each measure; bad answers are summed."""
    return Run(
        statistics.median(r.rate for r in runs),
        statistics.median(r.p99 for r in runs),
        sum(r.bad for r in runs),
    )
