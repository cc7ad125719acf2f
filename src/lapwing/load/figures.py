"""How clients saw a switch from one version to another.

    began                    first_new        last_old
      |--- delay ----------------|-- window ------|
      the agent begins           the first request that the new version responds to is sent
                                                  the last one that the old version responds to

`window` is the time in which both versions responded: from the send time of the first request to
which the new version responded to the send time of the last one to which the old version did; 0 if
there is no overlap. Send times count, because a request is routed when it is sent: a slow request
that the old version received before the switch and completes after it is no overlap.

`delay` runs from a given time (the agent enters the state `switching`, or renames the route file)
to the send time of the first request to which the new version responded. Its resolution is the
time between two requests, `spacing`, which is given with it.

`longest` is the longest duration of a short request that was in flight between `began` and a second
after the first response of the new version.
"""

from __future__ import annotations

from dataclasses import dataclass

from lapwing.load.record import SHORT, Ledger

AFTERWARDS = 1.0
"""Seconds after the first new response that still belong to the switch, for `longest`."""


@dataclass(frozen=True, slots=True)
class Switch:
    """The figures of a switch. Times in seconds; None if no request shows it."""

    window: float | None
    delay: float | None
    spacing: float | None
    longest: float | None
    first_new: float | None = None
    """Unix time."""
    last_old: float | None = None
    """Unix time."""


def switch(ledger: Ledger, old: str, new: str, began: float, until: float = float("inf")) -> Switch:
    """Return the figures of the switch from `old` to `new` that began at a Unix time.

    `until` is a time before the next switch between the same versions.
    """
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
    """Return the mean time between two requests."""
    if len(times) < 2:
        return None
    return (max(times) - min(times)) / (len(times) - 1)
