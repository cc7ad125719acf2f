"""Findings, and where in the file what they speak of is written. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import IntEnum

from lapwing.stack.load import LoadedStack
from lapwing.stack.source import KeyPath, Source


class Severity(IntEnum):
    """How much a finding matters. INFO asks for nothing today; WARNING costs money or nerves;
    CRITICAL loses data, secrets or money."""

    INFO = 1
    WARNING = 2
    CRITICAL = 3

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding. `evidence` is what was seen and where (`file:line`), `advice` what to do and
    when, `saves` dollars a month if that is known, negative if the advice costs."""

    rule: str
    severity: Severity
    environment: str
    evidence: str
    advice: str
    saves: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Subject:
    """The stack in the environments under review, the file they come from, and the one of them
    that customers use."""

    stacks: Sequence[LoadedStack]
    source: Source

    def at(self, environment: str, path: KeyPath) -> str:
        """`lapwing.yaml:12` for a path: in the overlay of the environment if it is written there,
        else in the base; of the nearest part above it if it is not written at all."""
        overlay = ("environments", environment, *path)
        for candidate in (overlay, path):
            if candidate in self.source.positions:
                return self._place(candidate)
        if path[0] in ("services", "resources"):
            return self._place(path)
        return self._place(overlay)

    def setting(self, environment: str, *path: str) -> str:
        """The place of a setting of an environment."""
        return self._place(("environments", environment, *path))

    def _place(self, path: KeyPath) -> str:
        where = self.source.where(path, key=True)
        return f"{where.file.name}:{where.line}"
