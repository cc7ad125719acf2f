"""What is measured: a running proxy with two versions of a service behind it.

`/version`, `/echo`, `/ws` go to the version that is active; `/fast` goes to a small, fast answer
that is never switched, so that requests per second are the proxy's own and not Python's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import psutil

from lapwing.load.connection import Target


@dataclass(frozen=True)
class Switched:
    """One switch. `called` is the Unix time at which the command was given, `began` that at which
    the proxy got it; `took` how many seconds the whole command took, which for Lapwing is a
    deployment or a rollback."""

    old: str
    new: str
    called: float
    began: float
    took: float
    verb: str


@dataclass(frozen=True)
class Contender:
    """A proxy that runs. `switch` sends all to the other version; `pid` is the process whose
    memory counts, with its children."""

    name: str
    about: str
    target: Target
    switch: Callable[[], Switched]
    pid: Callable[[], int]

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1."""
        return int(self.target.host.rpartition(":")[2])

    def memory(self) -> float:
        """Mebibytes resident. Pages that processes share are divided among them, or nginx would
        pay for its code three times."""
        first = psutil.Process(self.pid())
        own = [first, *first.children(recursive=True)]
        return float(sum(p.memory_full_info().pss for p in own)) / 2**20
