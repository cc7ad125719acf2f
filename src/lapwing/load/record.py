"""The record of each request, and sums over it.

A request FAILS when a client can notice it: the connection was refused, reset or closed too early;
no response came in time; the status is 400 or more (a plan requests only what exists); the body was
truncated or is wrong; a stream or WebSocket ended without its proper end. Nothing is retried, with
one exception that is counted separately: a server may close a kept connection just as a client
sends on it. HTTP allows that race (RFC 9112, section 9.3.1), and every client then sends a GET
again. Such an exchange is `raced`; it is followed by another one on a new connection, which has to
succeed.

Times are Unix times in seconds, of a clock that is read once and then only increases.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from typing import Literal

import msgspec

Kind = Literal["new", "keep-alive", "slow", "body", "page", "events", "websocket"]
SHORT: frozenset[Kind] = frozenset({"new", "keep-alive", "body", "page"})
"""Kinds whose responses are immediate, so that their duration is a waiting time."""

_OFFSET = time.time() - time.perf_counter()


def now() -> float:
    """Return the Unix time in seconds. Later adjustments of the system clock have no effect."""
    return time.perf_counter() + _OFFSET


class Exchange(msgspec.Struct, gc=False):
    """One request and its response.

    `began` is the time before a new connection is opened, `sent` when the request was written,
    `answered` when the head of the response had arrived, `ended` when all of it had. `version` is
    the version that the response names, `failure` the reason of a failure in words. `ended_by` is
    who ended a stream: "client" as planned, or "server" properly; `messages` is the number of its
    events or echoes.
    """

    kind: Kind
    began: float
    sent: float = 0.0
    ended: float = 0.0
    answered: float | None = None
    status: int | None = None
    version: str | None = None
    failure: str | None = None
    raced: bool = False
    ended_by: Literal["client", "server"] | None = None
    messages: int = 0

    @property
    def took(self) -> float:
        """Seconds from the beginning to the end."""
        return self.ended - self.began


class Total(msgspec.Struct, frozen=True):
    """The sum over one kind of traffic. `versions` counts the responses of each version."""

    kind: str
    sent: int
    failed: int
    raced: int
    longest: float
    """The longest duration in seconds."""
    versions: dict[str, int]


class Ledger:
    """All exchanges, in the order in which they ended."""

    def __init__(self, exchanges: Iterable[Exchange] = ()) -> None:
        self.exchanges = list(exchanges)

    def add(self, exchange: Exchange) -> None:
        """Record an exchange."""
        self.exchanges.append(exchange)

    @property
    def sent(self) -> int:
        """The number of requests."""
        return len(self.exchanges)

    @property
    def failures(self) -> list[Exchange]:
        """The requests that failed."""
        return [e for e in self.exchanges if e.failure is not None]

    @property
    def races(self) -> list[Exchange]:
        """The requests on a connection that the server was just closing."""
        return [e for e in self.exchanges if e.raced]

    def between(self, begin: float, end: float) -> Ledger:
        """Return the requests sent in an interval."""
        return Ledger(e for e in self.exchanges if begin <= e.sent < end)

    def versions(self) -> dict[str, int]:
        """Return the number of responses of each version, ordered by the first response."""
        ordered = sorted(self.exchanges, key=lambda e: e.sent)
        return dict(Counter(e.version for e in ordered if e.version is not None))

    def totals(self) -> list[Total]:
        """Return the sums by kind, ordered by name."""
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
