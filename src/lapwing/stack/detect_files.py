"""Read the files of a folder that `lapwing init` detects services from.

They are few and small: those that name dependencies and commands, and the modules in which programs
usually begin, of Python and of Node.js.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

MAX_FILE_BYTES = 256 * 1024
MAX_FILES = 400
_FILE_NAMES = {
    "pyproject.toml", "requirements.txt", "package.json", "Procfile", "Dockerfile", "manage.py",
    "compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml",
    "vite.config.js", "vite.config.ts", "vite.config.mjs", "next.config.js", "next.config.mjs",
    "next.config.ts", "angular.json", "svelte.config.js", "svelte.config.ts", "index.html",
    "Pipfile", "setup.py",
}  # fmt: skip
MODULES = ("__init__", "main", "app", "api", "server", "asgi", "wsgi")
"""Modules of a package that are searched for an application."""
SCRIPTS = re.compile(
    r"(src/)?(server|index|app|main)\.(js|mjs|cjs|ts)|(src/)?(app/page|pages/index)\.[jt]sx?"
)
"""Where a Node.js program begins, and the first page of a Next.js application."""
_GROUPS = ("services", "apps")
"""Folders whose subfolders are searched as well."""
_REQUIREMENTS = re.compile(r"requirements[\w.-]*\.txt")
_SKIPPED = {"node_modules", "venv", "tests", "test", "docs", "dist", "build", "__pycache__"}


def read_files(folder: Path) -> dict[str, str]:
    """Read the files that detection needs, by relative path. Raises OSError for the folder itself.

    Follows no symbolic link out of the folder.
    """
    texts: dict[str, str] = {}
    for path in _candidates(folder):
        if len(texts) >= MAX_FILES:
            break
        text = _text(path)
        if text is not None:
            texts[path.relative_to(folder).as_posix()] = text
    return texts


def _candidates(folder: Path) -> Iterator[Path]:
    for top in (folder, *_subfolders(folder)):
        yield from _files(top)
        if top.parent == folder and top.name in _GROUPS:
            for inner in _subfolders(top):
                yield from _files(inner)


def _files(folder: Path) -> Iterator[Path]:
    try:
        names = sorted(folder.iterdir())
    except PermissionError:
        return
    for path in names:
        if (
            path.name in _FILE_NAMES
            or path.suffix == ".py"
            or _REQUIREMENTS.match(path.name)
            or (path.is_file() and SCRIPTS.fullmatch(path.name))
        ):
            yield path
        elif path.name == "requirements" and path.is_dir():
            yield from sorted(path.glob("*.txt"))
        elif path.name == "src" and path.is_dir() and not path.is_symlink():
            yield from _scripts(path)
            for package in _subfolders(path):
                yield from (*_package(package), *_scripts(package))
        elif path.is_dir() and not path.is_symlink():
            yield from (*_package(path), *_scripts(path))


def _package(folder: Path) -> Iterator[Path]:
    for module in MODULES:
        if (folder / f"{module}.py").is_file():
            yield folder / f"{module}.py"


def _scripts(folder: Path) -> Iterator[Path]:
    """The beginnings of a Node.js program in a folder of its source."""
    try:
        for path in sorted(folder.iterdir()):
            name = path.name
            if any(SCRIPTS.fullmatch(n) for n in (name, f"{folder.name}/{name}")):
                yield path
    except PermissionError:
        return


def _subfolders(folder: Path) -> list[Path]:
    return sorted(
        p
        for p in folder.iterdir()
        if p.is_dir() and not p.is_symlink() and p.name not in _SKIPPED and p.name[0] != "."
    )


def _text(path: Path) -> str | None:
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:
            return None
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
