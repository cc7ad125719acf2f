"""A rule of the stack file that does not hold."""

from __future__ import annotations

from dataclasses import dataclass

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Breach:
    """What is wrong, where (the key, with `key`), what to do."""

    message: str
    path: Path
    hint: str | None = None
    key: bool = False
