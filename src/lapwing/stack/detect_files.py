"""Read the files of a folder that `lapwing init` detects services from.

They are few and small: those that name dependencies and commands, and the modules in which programs
usually begin, of Python and of Node.js.
"""

from __future__ import annotations

import posixpath
import re
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from lapwing.stack.compose_files import DOT_ENV

MAX_FILE_BYTES = 256 * 1024
MAX_FILES = 400
_FILE_NAMES = {
    "pyproject.toml", "requirements.txt", "package.json", "Procfile", "Dockerfile", "manage.py",
    "vite.config.js", "vite.config.ts", "vite.config.mjs", "next.config.js", "next.config.mjs",
    "next.config.ts", "angular.json", "svelte.config.js", "svelte.config.ts", "index.html",
    "Pipfile", "setup.py", DOT_ENV,
}  # fmt: skip
MODULES = ("__init__", "main", "app", "api", "server", "asgi", "wsgi", "urls", "routes")
"""Modules of a package that are searched for an application and its routes."""
SCRIPTS = re.compile(
    r"(src/)?(server|index|app|main|middleware|proxy|hooks\.server)\.(js|mjs|cjs|ts)"
    r"|(src/)?(app/page|pages/index)\.[jt]sx?|(src/)?routes/\+page\.svelte"
)
"""Where a Node.js program begins, and the first page and the middleware of a framework."""
_GROUPS = ("services", "apps")
"""Folders whose subfolders are searched as well."""
_CHOSEN = re.compile(r"[^=:\"'\n]+\.ya?ml")
COMPOSE = re.compile(r"(docker-)?compose[\w.-]*\.ya?ml")
_YAML_PATH = re.compile(r"[\w./-]+\.ya?ml\b")
"""The path of a further file in a Compose file: of `include` or `extends`."""
_REQUIREMENTS = re.compile(r"requirements[\w.-]*\.txt")
_SKIPPED = {"node_modules", "venv", "tests", "test", "docs", "dist", "build", "__pycache__"}


def read_files(folder: Path, further: Iterable[str] = ()) -> dict[str, str]:
    """Read the files that detection needs, by relative path. Raises OSError for the folder itself.

    `further` are Compose files with other names, relative to the folder. Follows no symbolic link
    out of the folder.
    """
    texts: dict[str, str] = {}
    named = deque(map(posixpath.normpath, further))
    for name in (*named, *(p.relative_to(folder).as_posix() for p in _candidates(folder))):
        _read(folder, name, texts)
    named.extend(name for name in texts if COMPOSE.fullmatch(PurePosixPath(name).name))
    named.extend(map(posixpath.normpath, _CHOSEN.findall(texts.get(DOT_ENV, ""))))
    while named:
        name = named.popleft()
        _read(folder, name, texts)
        for path in _YAML_PATH.findall(texts.get(name, "")):
            other = posixpath.normpath(posixpath.join(posixpath.dirname(name), path))
            if other not in texts and _read(folder, other, texts):
                named.append(other)
    return texts


def _read(folder: Path, name: str, texts: dict[str, str]) -> bool:
    """Add the text of a file below the folder, unless there are too many. Return whether it is."""
    path = folder / name
    if name in texts or len(texts) >= MAX_FILES or not _is_below(path, folder):
        return False
    text = _text(path)
    if text is None:
        return False
    if path.name == DOT_ENV:  # the rest are values of the application
        text = "\n".join(line for line in text.splitlines() if line.startswith("COMPOSE_"))
    texts[name] = text
    return True


def _is_below(path: Path, folder: Path) -> bool:
    return path.parent.resolve().is_relative_to(folder.resolve())


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
            or COMPOSE.fullmatch(path.name)
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
