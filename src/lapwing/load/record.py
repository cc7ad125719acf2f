"""What is written down of each request, and sums over it. Pure.

A request FAILS when a client could tell: the connection was refused, reset or closed too early; no
answer came in time; the status is 400 or more (a plan asks only for what is there); the body was
cut short or is not what it has to be; a stream or websocket ended without its end being said.
Nothing is sent again to make a failure look better. There is one exception, and it is counted
apart: a server may close a kept connection just as a client sends on it. That is a race which the
protocol allows (RFC 9112, section 9.3.1), and every client sends a GET again then. Such an exchange
is `raced`; it is followed by another one, on a new connection, which has to succeed.

Times are Unix times in seconds, of a clock that is read once and then only goes forward.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from typing import Literal

import msgspec

Kind = Literal["new", "keep-alive", "slow", "body", "page", "events", "websocket"]
SHORT: frozenset[Kind] = frozenset({"new", "keep-alive", "body", "page"})
"""Kinds whose requests are answered at once, so that the time they take is a time waited."""

_OFFSET = time.time() - time.perf_counter()


def now() -> float:
    """The Unix time in seconds. Steps of the system's clock after the start do not show."""
    return time.perf_counter() + _OFFSET


class Exchange(msgspec.Struct, frozen=True, gc=False):
    """One request and what came of it.

    `began` is when the client wanted it (a new connection is opened after that), `sent` when the
    request was written, `answered` when the head of the answer was there, `ended` when all was.
    `version` is what the answer says of the version that made it. `failure` says in words why it
    failed. `ended_by` tells who ended a stream: "client" as planned, or "server" politely;
    `messages` how many events, or echoes, came on it.
    """

    kind: Kind
    began: float
    sent: float
    ended: float
    answered: float | None = None
    status: int | None = None
    version: str | None = None
    failure: str | None = None
    raced: bool = False
    ended_by: Literal["client", "server"] | None = None
    messages: int = 0

    @property
    def took(self) -> float:
        """Seconds that the client waited for the whole of it."""
        return self.ended - self.began


class Total(msgspec.Struct, frozen=True):
    """The sum over one kind of traffic. `versions` counts the requests that each one answered."""

    kind: str
    sent: int
    failed: int
    raced: int
    longest: float
    """Seconds that one took at most."""
    versions: dict[str, int]


class Ledger:
    """Every exchange, in the order in which they ended."""

    def __init__(self, exchanges: Iterable[Exchange] = ()) -> None:
        self.exchanges = list(exchanges)

    def add(self, exchange: Exchange) -> None:
        """Write down one more."""
        self.exchanges.append(exchange)

    @property
    def sent(self) -> int:
        """How many requests were sent."""
        return len(self.exchanges)

    @property
    def failures(self) -> list[Exchange]:
        """The requests that failed."""
        return [e for e in self.exchanges if e.failure is not None]

    @property
    def races(self) -> list[Exchange]:
        """The requests that met a connection which the server was just closing."""
        return [e for e in self.exchanges if e.raced]

    def between(self, begin: float, end: float) -> Ledger:
        """The requests sent in a time."""
        return Ledger(e for e in self.exchanges if begin <= e.sent < end)

    def versions(self) -> dict[str, int]:
        """How many requests each version answered, in the order of the first answers."""
        ordered = sorted(self.exchanges, key=lambda e: e.sent)
        return dict(Counter(e.version for e in ordered if e.version is not None))

    def totals(self) -> list[Total]:
        """The sums by kind, in order of their names."""
        kinds = sorted({e.kind for e in self.exchanges})
        return [_total(k, [e for e in self.exchanges if e.kind == k]) for k in kinds]


def _total(kind: str, exchanges: list[Exchange]) -> Total:
    found = Ledger(exchanges)
    return Total(
        kind=kind,
        sent=found.sent,
        failed=len(found.failures),
        raced=len(found.races),
        longest=max(e.took for e in exchanges),
        versions=found.versions(),
    )
