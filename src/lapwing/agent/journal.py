"""The journal of an environment: its event log, which a full disk delays but does not thin out.

Whoever waits for a deployment reads it; an event that could not be written is written, in its
order, as soon as there is room.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from pathlib import Path

import msgspec

from lapwing.observed import status
from lapwing.observed.status import Event

KEPT = 1000
"""Events that wait for room at most; the oldest go first."""


class Journal:
    """Adds to the event log in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting: deque[Event] = deque(maxlen=KEPT)

    def event(
        self,
        kind: str,
        text: str,
        commit: str | None = None,
        *,
        state: str | None = None,
        outcome: str | None = None,
        detail: str | None = None,
        hint: str | None = None,
    ) -> None:
        """Add an event of this moment; never raises for a disk."""
        facts = {"time": time.time(), "kind": kind, "text": text, "commit": commit, "state": state}
        facts |= {"outcome": outcome, "detail": detail, "hint": hint}
        self._waiting.append(msgspec.convert(facts, Event))
        self.flush()

    def flush(self) -> None:
        """Write what waits, as far as there is room."""
        with contextlib.suppress(OSError):
            while self._waiting:
                status.append(self._folder, self._waiting[0])
                self._waiting.popleft()
