"""The dependencies of a Python source: packages, the file that lists them, the Python version.

Files are read, never changed.

The files are uv.lock, requirements.txt, pyproject.toml or setup.py, the most exact first. A lock
file of another tool is refused by name, and so are dependencies that only that tool can read:
nothing that a source lists is left out silently. What the files name by a path is part of the
source: then the installed packages change with every edit, and a path outside of the source
is refused, because a release is built from one folder.
"""

from __future__ import annotations

import codecs
import re
import tomllib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from lapwing.build.detect import FOREIGN_LOCKS, PYTHON
from lapwing.errors import BuildError

INCLUDE = re.compile(r"^\s*(?:-r|-c|--requirement|--constraint)(?:\s+|=)?(\S+)")
EDITABLE = re.compile(r"^\s*(?:-e|--editable)(?:\s+|=)?(\S+)")
LOCAL = re.compile(r"^\s*((?:\.{1,2}(?:/|$|\[)|/|file:)\S*)|@\s*(file:\S+)")
CONTINUED = re.compile(r"^(?!\s*#)(.*)\\\n\s*", re.MULTILINE)
CLAUSE = re.compile(r"\s*(===|==|~=|!=|<=|>=|<|>)\s*v?(\d+(?:\.\d+)*)(\.\*)?\s*$")
EXACT = re.compile(r"\d+(?:\.\d+){0,2}$")


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The dependencies of a Python source.

    `lock` is the list of packages, from `files`. `local` is set if some of them are in the source,
    `package` if the source is a package itself. `python` is the version that it requires.
    """

    lock: str
    files: tuple[str, ...]
    rewritten: dict[str, str]
    """Requirements files whose continued lines have to be joined, because uv does not do that in
    `-r` and `-c`, with the text that is installed from."""
    hashed: bool
    local: bool
    package: bool
    workspace: bool
    """Whether it is the root of a uv workspace: then every member is installed."""
    python: str | None
    chosen: tuple[str, ...] = ()
    """The arguments of uv for the extras and groups to install."""


def read_dependencies(
    folder: Path,
    files: Collection[str],
    extras: Collection[str] = (),
    groups: Collection[str] = (),
) -> Dependencies:
    """Read what a source needs, with extras and groups of pyproject.toml.

    Raises BuildError if that cannot be read or built.
    """
    lock = next((name for name in PYTHON if name in files), "")
    if lock in ("", "pyproject.toml", "setup.py"):
        _refuse_foreign_locks(files)
    project = _toml(folder / "pyproject.toml") if "pyproject.toml" in files else {}
    if lock == "pyproject.toml" and "setup.py" in files and "project" not in project:
        lock = "setup.py"
    about = project.get("project", {})
    _check_chosen(lock, project, extras, groups)
    used, local, hashed, rewritten = [lock], False, False, {}
    if lock == "uv.lock":
        used.append("pyproject.toml")
        if "pyproject.toml" not in files:
            raise BuildError("There is a uv.lock, but no pyproject.toml.", hint="Commit both.")
        local = _check(lock, _locked_paths(_toml(folder / lock)))
    elif lock == "requirements.txt":
        used = list(_included(folder, lock, files))
        texts = {name: _lines(folder / name) for name in used}
        rewritten = {
            name: "\n".join(joined) + "\n"
            for name, joined in texts.items()
            if len(joined) < len(read_text(folder / name).splitlines())
        }
        lines = [line for joined in texts.values() for line in joined]
        local = _check(lock, _required_paths(lines))
        hashed = any("--hash=" in line for line in lines)
    else:
        dynamic = lock == "setup.py" or "dependencies" in about.get("dynamic", [])
        local = _check(lock, _project_paths(project)) or dynamic
    return Dependencies(
        lock=lock,
        files=tuple(used),
        rewritten=rewritten,
        hashed=hashed,
        local=local,
        package=lock == "setup.py" or _is_package(project, files),
        workspace=lock == "uv.lock" and "workspace" in project.get("tool", {}).get("uv", {}),
        python=_first_line(folder, files) or about.get("requires-python"),
        chosen=(
            *(f"--extra={name}" for name in sorted(extras)),
            *(f"--group={name}" for name in sorted(groups)),
        ),
    )


def _check_chosen(
    lock: str, project: dict[str, Any], extras: Collection[str], groups: Collection[str]
) -> None:
    """Raise BuildError for an extra or a group that would not be installed."""
    if lock == "requirements.txt" and (extras or groups):
        raise BuildError(
            f"`build:` names {', '.join([*extras, *groups])}, but requirements.txt is installed, "
            "which has no extras or groups.",
            hint="Export it with them: `uv export`, `poetry export` and `pdm export` have options "
            "for this. Then remove `extras` and `groups` from the stack file.",
        )
    about, tool = project.get("project", {}), project.get("tool", {}).get("uv", {})
    if "workspace" in tool or lock == "setup.py":
        return  # They are of a member, or made by code.
    groups_there = {"dev"} if "dev-dependencies" in tool else set()
    tables = [("dependency-groups", groups, {*project.get("dependency-groups", {}), *groups_there})]
    if "optional-dependencies" not in about.get("dynamic", []):
        there = set(about.get("optional-dependencies", {}))
        tables.append(("project.optional-dependencies", extras, there))
    for table, wanted, known in tables:
        names = {re.sub(r"[-_.]+", "-", name).lower() for name in known}
        for name in wanted:
            if re.sub(r"[-_.]+", "-", name).lower() not in names:
                raise BuildError(
                    f"{name} is not in [{table}] of pyproject.toml.",
                    hint=f"It has: {', '.join(sorted(known)) or 'none'}.",
                )


def _refuse_foreign_locks(files: Collection[str]) -> None:
    """Raise BuildError for a lock file that would not be used."""
    for name, command in FOREIGN_LOCKS.items():
        if name in files:
            raise BuildError(
                f"{name} is not supported, and there is no uv.lock or requirements.txt.",
                hint=f"Run `{command}` and commit the file, or move to uv and commit uv.lock.",
            )


def _is_package(project: dict[str, Any], files: Collection[str]) -> bool:
    """Whether a pyproject.toml makes its source a package that is installed."""
    tools = project.get("tool", {})
    switched_off = (
        tools.get("uv", {}).get("package") is False
        or tools.get("poetry", {}).get("package-mode") is False
    )
    described = "project" in project or "poetry" in tools or {"setup.py", "setup.cfg"} & set(files)
    return "build-system" in project and bool(described) and not switched_off


def _project_paths(project: dict[str, Any]) -> list[str]:
    """Return the paths that a pyproject.toml without a lock installs packages from.

    Raises BuildError if it lists dependencies that only Poetry can read.
    """
    tools = project.get("tool", {})
    poetry = tools.get("poetry", {}).get("dependencies", {})
    if set(poetry) - {"python"} and "dependencies" not in project.get("project", {}):
        raise BuildError(
            "pyproject.toml lists its packages in [tool.poetry.dependencies] only, without a "
            "lock file that can be installed.",
            hint="List them in [project] dependencies, or run `poetry lock` and "
            f"`{FOREIGN_LOCKS['poetry.lock']}`, and commit the file.",
        )
    sources = tools.get("uv", {}).get("sources", {})
    for name, source in sources.items():
        if "workspace" in source:
            raise BuildError(
                f"pyproject.toml takes {name} from a uv workspace, and the folder has no uv.lock.",
                hint="Set `build:` to the root of the workspace: all its members are installed "
                "from its uv.lock.",
            )
    return [str(source["path"]) for source in sources.values() if "path" in source]


def satisfies(version: tuple[int, ...], wanted: str) -> bool:
    """Return whether a Python version matches `3.12`, or clauses as in `>=3.11,<4`.

    False for a clause that is not understood. Source: PEP 440, version specifiers.
    """
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
    lines = (line.partition("#")[0].strip() for line in _lines(folder / ".python-version"))
    return next(filter(None, lines), None)


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
                hint="Add it to the folder of the service, and do not ignore it in git.",
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
                f"requirements.txt installs {found[1]} as editable.",
                hint="A release never changes: write "
                f"`{found[1] if found[1][0] in './' else f'./{found[1]}'}` without -e.",
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
                hint="Move the package into the folder, publish it, or set `build:` to the folder "
                "that has both.",
            )
    return bool(paths)


def _normal(path: PurePosixPath) -> str:
    import posixpath

    return posixpath.normpath(str(path))


def read_text(path: Path) -> str:
    """Read a file in UTF-8 or, with its mark at the beginning, UTF-16: PowerShell writes that."""
    data = path.read_bytes()
    marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return data.decode("utf-16" if marked else "utf-8-sig", errors="replace")


def _lines(path: Path) -> list[str]:
    """Read the lines of a file; a line that ends in a backslash continues in the next."""
    text = "\n".join(read_text(path).splitlines())
    return CONTINUED.sub(r"\1 ", text).splitlines()


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode())
    except ValueError as error:
        raise BuildError(
            f"{path.name} is not valid: {error}.", hint="Correct it; `uv lock` reads it as well."
        ) from error
