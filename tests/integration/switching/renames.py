"""When the routes of clients were renamed into place: the moment from which a switch is counted.

The route file is replaced several times in a deployment (for the preview host, and when what is old
goes), so its last version tells nothing of the switch. A thread looks at it every two milliseconds,
and writes down each time at which the routes of the hosts that clients use have changed: the
change time of the file, which a rename sets.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path

LOOK = 0.002
Routes = list[tuple[str, list[dict[str, object]]]]


class Renames:
    """`moments` are Unix times, in the order in which the routes changed."""

    def __init__(self, file: Path) -> None:
        self.moments: list[float] = []
        self._file = file
        self._inode = file.stat().st_ino
        self._routes = live(file.read_bytes())

    def look(self) -> None:
        """Write down a change, if there is one."""
        found = self._file.stat()
        if found.st_ino == self._inode:
            return
        self._inode = found.st_ino
        routes = live(self._file.read_bytes())
        if routes != self._routes:
            self._routes = routes
            self.moments.append(found.st_ctime_ns / 1e9)


def live(data: bytes) -> Routes:
    """The routes of all hosts but previews, by the name of the host."""
    hosts = json.loads(data)["resources"][0]["virtual_hosts"]
    return [(h["name"], h["routes"]) for h in hosts if not h["name"].endswith("/preview")]


@contextlib.contextmanager
def renames(file: Path) -> Iterator[Renames]:
    """Look at a route file for as long as the block runs."""
    found = Renames(file)
    end = threading.Event()

    def look() -> None:
        while not end.wait(LOOK):
            found.look()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        end.set()
        thread.join()
