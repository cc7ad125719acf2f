"""What clients saw of a switch from one version to another. Pure.

    began                    first_new        last_old
      |--- delay ----------------|-- window ------|
      the agent begins           the first request that the new version answers is sent
                                                  the last one that the old version answers is sent

`window` is the time in which both versions answered: from the send time of the first request that
the new version answered to the send time of the last request that the old one answered; 0 where
every request sent after the first new answer was answered by the new version. Send times, because
that is when a client makes its choice: a slow request that the old version got before the switch
and answers after it is no overlap.

`delay` runs from a moment that the caller gives (the agent enters the state `switching`, or renames
the route file) to the send time of the first request that the new version answered. It can be
known no finer than the time between two requests, `spacing`, so that is given with it.

`longest` is the longest that a client waited for a short request which was in flight between
`began` and a second after the first new answer.
"""

from __future__ import annotations

from dataclasses import dataclass

from lapwing.load.record import SHORT, Ledger

AFTERWARDS = 1.0
"""Seconds after the first new answer that still belong to the switch, for `longest`."""


@dataclass(frozen=True, slots=True)
class Switch:
    """How clients saw a switch. Times in seconds; None where no request tells."""

    window: float | None
    delay: float | None
    spacing: float | None
    longest: float | None
    first_new: float | None = None
    """Unix time."""
    last_old: float | None = None
    """Unix time."""


def switch(ledger: Ledger, old: str, new: str, began: float, until: float = float("inf")) -> Switch:
    """The figures of the switch from `old` to `new` that began at a Unix time. `until` is a time
    before the next switch between the same versions."""
    nearby = [e for e in ledger.exchanges if began - AFTERWARDS <= e.sent < until]
    first_new = min((e.sent for e in nearby if e.version == new and e.sent >= began), default=None)
    last_old = max((e.sent for e in nearby if e.version == old), default=None)
    if first_new is None:
        return Switch(None, None, None, None, last_old=last_old)
    waited = [
        e.took
        for e in nearby
        if e.kind in SHORT and e.ended >= began and e.sent <= first_new + AFTERWARDS
    ]
    return Switch(
        window=None if last_old is None else max(0.0, last_old - first_new),
        delay=first_new - began,
        spacing=_spacing([e.sent for e in nearby if e.sent <= first_new + AFTERWARDS]),
        longest=max(waited, default=None),
        first_new=first_new,
        last_old=last_old,
    )


def _spacing(times: list[float]) -> float | None:
    """The mean time between two requests."""
    if len(times) < 2:
        return None
    return (max(times) - min(times)) / (len(times) - 1)
