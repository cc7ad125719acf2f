"""The requests that were sent, and those that failed, by the fault of their round."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from lapwing.load.client import Client, Plan
from lapwing.load.connection import Target
from lapwing.load.record import Exchange
from lapwing.load.worker import Traffic
from tests.chaos.faults import BOUNDS_S
from tests.chaos.plan import Fault

TRAFFIC = (
    Traffic(kind="new", path="/api/version", interval=0.1),
    Traffic(kind="keep-alive", path="/api/version", workers=2, interval=0.05),
    Traffic(kind="body", path="/api/echo", body='{"number": "{unique}"}', interval=0.1),
    Traffic(kind="slow", path="/api/slow?seconds=1"),
    Traffic(kind="page", path="/", interval=0.2, version=r"version (\w+)"),
    Traffic(kind="events", path="/api/events", seconds=1),
    Traffic(kind="websocket", path="/api/ws", seconds=1, interval=0.1),
)


class Clients:
    """The clients of one stack."""

    def __init__(self, target: Target, folder: Path) -> None:
        self._path = folder / "exchanges.jsonl"
        folder.mkdir(parents=True)
        self._client = Client(Plan(target, TRAFFIC), self._path)
        self._client.wait_for_answers()
        self._read = 0

    def new(self) -> Iterator[Exchange]:
        """The exchanges since the last call. Raises LoadError if the clients have crashed."""
        self._client.check()
        with self._path.open("rb") as file:
            file.seek(self._read)
            lines, _, _ = file.read().rpartition(b"\n")
        self._read += len(lines) + 1 if lines else 0
        for line in lines.splitlines():
            yield msgspec.json.decode(line, type=Exchange)

    def stop(self) -> None:
        """Stop after the requests in flight."""
        self._client.stop()


@dataclass
class Period:
    """A round in time, and when its fault was injected."""

    number: int
    fault: Fault
    began: float
    injected_at: float = 0.0

    def excuses(self, exchange: Exchange) -> bool:
        """Whether a failed exchange may have failed because of the fault."""
        bound = BOUNDS_S.get(self.fault)
        if bound is None or not self.injected_at:
            return False
        return exchange.began <= self.injected_at + bound and exchange.ended >= self.injected_at


@dataclass
class Total:
    """The sum over the rounds of one fault. `outage` is the longest time from a fault to the last
    request that failed."""

    rounds: int = 0
    sent: int = 0
    failed: int = 0
    outage: float = 0.0


@dataclass
class Record:
    """All requests of a run."""

    periods: list[Period] = field(default_factory=list)
    totals: dict[Fault, Total] = field(default_factory=dict)
    unexcused: list[tuple[Period, Exchange]] = field(default_factory=list)

    def begin(self, period: Period) -> None:
        """Begin a round."""
        self.periods.append(period)
        self.totals.setdefault(period.fault, Total()).rounds += 1

    def add(self, exchange: Exchange) -> None:
        """Add an exchange to the round in which it began."""
        number = bisect(self.periods, exchange.began, key=lambda p: p.began)
        period = self.periods[max(number - 1, 0)]
        if exchange.failure is not None:
            # The last fault that began before the request ended, in this round or an earlier one.
            excused = next((p for p in self.periods[:-4:-1] if p.excuses(exchange)), None)
            period = excused or period
            total = self.totals[period.fault]
            total.failed += 1
            if excused is None:
                self.unexcused.append((period, exchange))
            else:
                total.outage = max(total.outage, exchange.began - period.injected_at)
        self.totals[period.fault].sent += 1

    def table(self) -> str:
        """Return the totals as a table."""
        lines = [f"{'fault':<24}{'rounds':>8}{'sent':>9}{'failed':>8}{'outage':>10}{'bound':>10}"]
        for fault in Fault:
            if (total := self.totals.get(fault)) is None:
                continue
            bound = BOUNDS_S.get(fault)
            allowed = f"{bound:g} s" if bound is not None else "none"
            outage = f"{total.outage:.2f} s" if total.outage else "-"
            counts = f"{total.rounds:>8}{total.sent:>9}{total.failed:>8}"
            lines.append(f"{fault:<24}{counts}{outage:>10}{allowed:>10}")
        return "\n".join(lines)
