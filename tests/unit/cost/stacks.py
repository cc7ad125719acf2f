"""The stacks of tests/golden/cost."""

from __future__ import annotations

import os
from pathlib import Path

from lapwing.stack.load import LoadedStack, environments

ROOT = Path(__file__).parents[3]
CASES = ROOT / "tests/golden/cost"
WRITE = bool(os.environ.get("LAPWING_GOLDEN_WRITE"))


def cases(folder: Path = CASES) -> list[str]:
    """The names of the cases, so that a test is called by its folder."""
    return sorted(p.name for p in folder.iterdir())


def file_of(case: str, folder: Path = CASES) -> Path:
    """The stack file of a case: its own, or that of the example or the stack of the same name."""
    places = (folder, ROOT / "examples", ROOT / "stacks")
    return next(p for place in places if (p := place / case / "lapwing.yaml").exists())


def stacks(case: str) -> list[LoadedStack]:
    """The environments of a case, as `lapwing cost` takes them."""
    return environments(file_of(case), folders=False)


def compare(expected: Path, told: str) -> None:
    """Compare with what is expected, or write it."""
    if WRITE:
        expected.write_text(told)
    assert told == expected.read_text()
