"""What a Python source needs: which packages, by which file, and which Python. Reads, decides, and
changes nothing.

The files are uv.lock, requirements.txt or pyproject.toml, the most exact first. What they name by a
path is part of the source: then the installed packages change with every edit, and a path that
leads out of the source is refused, because a release is made of its own folder only.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from lapwing.build.detect import PYTHON
from lapwing.errors import BuildError

INCLUDE = re.compile(r"^\s*(?:-r|-c|--requirement|--constraint)(?:\s+|=)?(\S+)")
EDITABLE = re.compile(r"^\s*(?:-e|--editable)(?:\s+|=)?(\S+)")
LOCAL = re.compile(r"^\s*((?:\.{1,2}(?:/|$|\[)|/|file:)\S*)|@\s*(file:\S+)")
CLAUSE = re.compile(r"\s*(===|==|~=|!=|<=|>=|<|>)\s*v?(\d+(?:\.\d+)*)(\.\*)?\s*$")
EXACT = re.compile(r"\d+(?:\.\d+){0,2}$")


@dataclass(frozen=True, slots=True)
class Dependencies:
    """`lock` names the packages, in `files`. `local` says that some of them are in the source;
    `package` that the source is one itself. `python` is the version that it asks for."""

    lock: str
    files: tuple[str, ...]
    direct: tuple[str, ...]
    """The packages of a pyproject.toml without a lock."""
    hashed: bool
    local: bool
    package: bool
    python: str | None


def read_dependencies(folder: Path, files: Collection[str]) -> Dependencies:
    """Read what a source needs. Raises BuildError if that cannot be read or built."""
    lock = next(name for name in PYTHON if name in files)
    project = _toml(folder / "pyproject.toml") if "pyproject.toml" in files else {}
    about = project.get("project", {})
    used, local, hashed = [lock], False, False
    if lock == "uv.lock":
        used.append("pyproject.toml")
        if "pyproject.toml" not in files:
            raise BuildError("There is a uv.lock, but no pyproject.toml.", hint="Commit both.")
        local = _check(lock, _locked_paths(_toml(folder / lock)))
    elif lock == "requirements.txt":
        used = list(_included(folder, lock, files))
        lines = [line for name in used for line in _lines(folder / name)]
        local = _check(lock, _required_paths(lines))
        hashed = any("--hash=" in line for line in lines)
    return Dependencies(
        lock=lock,
        files=tuple(used),
        direct=tuple(str(d) for d in about.get("dependencies", [])),
        hashed=hashed,
        local=local,
        package="build-system" in project,
        python=_first_line(folder, files) or about.get("requires-python"),
    )


def satisfies(version: tuple[int, ...], wanted: str) -> bool:
    """Whether a Python version is what is asked for: `3.12`, or clauses as in `>=3.11,<4`. False
    for what is not understood. Pure. Source: PEP 440, version specifiers."""
    if EXACT.match(wanted):
        exact = _numbers(wanted)
        return version[: len(exact)] == exact
    return all(_holds(version, clause) for clause in wanted.split(","))


def _holds(version: tuple[int, ...], clause: str) -> bool:
    found = CLAUSE.match(clause)
    if found is None:
        return False
    operator, number, wild = found[1], _numbers(found[2]), found[3]
    size = max(len(version), len(number))
    own, other = (numbers + (0,) * (size - len(numbers)) for numbers in (version, number))
    same = own[: len(number)] == number if wild else own == other
    return {
        "==": same,
        "===": same,
        "!=": not same,
        "~=": own >= other and own[: len(number) - 1] == number[:-1],
        "<=": own <= other,
        ">=": own >= other,
        "<": own < other,
        ">": own > other,
    }[operator]


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def _first_line(folder: Path, files: Collection[str]) -> str | None:
    """The version in .python-version, which pyenv and uv write."""
    if ".python-version" not in files:
        return None
    return next((line.strip() for line in _lines(folder / ".python-version") if line.strip()), None)


def _included(folder: Path, name: str, files: Collection[str]) -> Iterator[str]:
    """A requirements file, and those that it includes."""
    seen, waiting = set(), [name]
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        if current not in files:
            raise BuildError(
                f"requirements.txt includes {current}, which is not in the source.",
                hint="A release is made of the files in its folder that git tracks: add it there.",
            )
        seen.add(current)
        yield current
        for line in _lines(folder / current):
            if (found := INCLUDE.match(line)) and "://" not in found[1]:
                waiting.append(_normal(PurePosixPath(current).parent / found[1]))


def _required_paths(lines: list[str]) -> list[str]:
    paths = []
    for line in lines:
        if (found := EDITABLE.match(line)) and "://" not in found[1]:
            raise BuildError(
                f"requirements.txt installs {found[1]} as editable, from where it lies.",
                hint=f"A release never changes: write `{found[1]}` without -e. (A folder is "
                f"written with a dot: ./{found[1].removeprefix('./')})",
            )
        if found := LOCAL.search(line.split(" #")[0]):
            paths.append((found[1] or found[2]).removeprefix("file:").split("[")[0])
    return paths


def _locked_paths(lock: dict[str, Any]) -> list[str]:
    sources = [package.get("source", {}) for package in lock.get("package", [])]
    kinds = ("editable", "directory", "path", "virtual")
    return [str(s[kind]) for s in sources for kind in kinds if kind in s and s[kind] != "."]


def _check(lock: str, paths: list[str]) -> bool:
    """Whether there are paths; raises BuildError if one leads out of the source."""
    for path in paths:
        if path.startswith("/") or _normal(PurePosixPath(path)).startswith(".."):
            raise BuildError(
                f"{lock} installs {path}, which is outside of the service's folder.",
                hint="A release is made of its own folder: move the package into it, publish it, "
                "or let `build:` name the folder that holds both.",
            )
    return bool(paths)


def _normal(path: PurePosixPath) -> str:
    import posixpath

    return posixpath.normpath(str(path))


def _lines(path: Path) -> list[str]:
    return path.read_bytes().decode(errors="replace").splitlines()


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode())
    except ValueError as error:
        raise BuildError(
            f"{path.name} is not valid: {error}.", hint="Correct it; `uv lock` reads it as well."
        ) from error
