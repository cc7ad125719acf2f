"""Stack files of golden cases, with the folders of source that they name."""

from __future__ import annotations

import os
import re
from pathlib import Path

GOLDEN = Path(__file__).parents[2] / "golden"
SHIPPED = Path(__file__).parents[3] / "stacks"
"""The stacks that Lapwing brings; a case of that name without a file of its own is one of them."""
STACKS = GOLDEN / "infra"
"""The stacks of `infra`; `diagram` and `design` are held to the same ones."""
WRITE = bool(os.environ.get("LAPWING_GOLDEN_WRITE"))


def cases() -> list[str]:
    """The names of the stacks."""
    return sorted(p.name for p in STACKS.iterdir() if p.is_dir())


def stack(case: str, folder: Path) -> Path:
    """A copy of a case's stack file, with an empty folder for each source that it names."""
    own = STACKS / case / "lapwing.yaml"
    shipped = SHIPPED / case / "lapwing.yaml"
    return written((own if own.exists() else shipped).read_text(), folder)


def written(text: str, folder: Path) -> Path:
    """A stack file with this text, with an empty folder for each source that it names."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "lapwing.yaml"
    path.write_text(text)
    for source in re.findall(r"build: (\./[\w-]+)", text):
        (folder / source).mkdir(exist_ok=True)
    return path


def compare(folder: Path, found: dict[str, str]) -> None:
    """The files below a folder are exactly these; with WRITE, make them so."""
    if WRITE:
        for old in [p for p in folder.rglob("*") if p.is_file()]:
            old.unlink()
        for name, text in found.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
    expected = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    assert sorted(found) == sorted(expected)
    for name, text in found.items():
        assert text == expected[name].read_text(), name
