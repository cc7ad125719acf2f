"""Reading what `lapwing init` judges by: a few small files of a folder and its services.

The only part of detection that touches the disk. It reads files that name dependencies and
commands, and the top-level Python files, never more than `MOST_FILES` of at most `LARGEST` bytes,
and follows no link out of the folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

LARGEST = 256 * 1024
MOST_FILES = 400
MARKERS = {
    "pyproject.toml", "requirements.txt", "package.json", "Procfile", "Dockerfile", "manage.py",
    "compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml",
    "vite.config.js", "vite.config.ts", "vite.config.mjs", "next.config.js", "next.config.mjs",
    "next.config.ts",
}  # fmt: skip
GROUPS = ("services", "apps")
"""Folders whose subfolders are looked at as well."""
SKIPPED = {"node_modules", "venv", "tests", "test", "docs", "dist", "build", "__pycache__"}


def look(folder: Path) -> dict[str, str]:
    """The texts that tell what is in a folder, by path relative to it.

    Raises OSError if the folder itself cannot be read.
    """
    texts: dict[str, str] = {}
    for path in _candidates(folder):
        if len(texts) >= MOST_FILES:
            break
        text = _text(path)
        if text is not None:
            texts[path.relative_to(folder).as_posix()] = text
    return texts


def _candidates(folder: Path) -> Iterator[Path]:
    for place in (folder, *_subfolders(folder)):
        yield from _files(place)
        if place.parent == folder and place.name in GROUPS:
            for inner in _subfolders(place):
                yield from _files(inner)


def _files(folder: Path) -> Iterator[Path]:
    try:
        names = sorted(folder.iterdir())
    except PermissionError:
        return
    for path in names:
        if path.name in MARKERS or path.suffix == ".py":
            yield path
        elif path.is_dir() and (path / "__init__.py").is_file():
            yield path / "__init__.py"


def _subfolders(folder: Path) -> list[Path]:
    return sorted(
        p
        for p in folder.iterdir()
        if p.is_dir() and not p.is_symlink() and p.name not in SKIPPED and p.name[0] != "."
    )


def _text(path: Path) -> str | None:
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > LARGEST:
            return None
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
