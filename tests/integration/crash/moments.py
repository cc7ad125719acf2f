"""Acting at the nth thing that is written down, whatever it is: every persisted state is a moment
at which power can fail."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from lapwing.settings import Settings

PATIENCE = 60.0


class Moments:
    """Counts what is written down of one environment from now on: its memory, the head of the
    desired state, the outcomes, the routes. Acts once, as soon as `number` are reached.

    Two that come within a fraction of a millisecond may be counted as one.
    """

    def __init__(
        self, settings: Settings, environment: Path, number: int, act: Callable[[], None]
    ) -> None:
        self._files = (
            environment / "state.json",
            settings.desired / "refs" / "heads" / "main",
            settings.desired / "refs" / "notes" / "lapwing",
            settings.envoy / "rds.json",
            settings.envoy / "cds.json",
        )
        self._number = number
        self._act = act
        self._over = threading.Event()
        self.count = 0
        self.acted = False
        self._thread = threading.Thread(target=self._watch, args=(self._look(),))
        self._thread.start()

    def end(self) -> int:
        """Stop counting; returns how many there were."""
        self._over.set()
        self._thread.join()
        return self.count

    def _watch(self, before: list[object]) -> None:
        until = time.monotonic() + PATIENCE
        while not self._over.is_set() and time.monotonic() < until:
            present = self._look()
            self.count += sum(a != b for a, b in zip(before, present, strict=True))
            before = present
            if self.count >= self._number and not self.acted:
                self.acted = True
                self._act()
            time.sleep(0.0002)

    def _look(self) -> list[object]:
        return [_facts(path) for path in self._files]


def _facts(path: Path) -> object:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns
