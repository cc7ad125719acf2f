"""Programs of a folder, as `lapwing init` detects them, and how their manifests are read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Files = Mapping[str, str]
"""The texts of files by name."""


@dataclass(slots=True)
class Program:
    """A program to run as a service.

    `suffix` distinguishes it from the folder's main program; `uses` are the kinds of databases that
    it has a client for.
    """

    kind: Literal["web", "static", "worker", "job"]
    command: str | None = None
    static: str | None = None
    dockerfile: bool = False
    """Whether only its Dockerfile can build it."""
    guess: bool = False
    """Whether the command is a guess, which a Compose file may replace."""
    run: str | None = None
    """The command that completes the build."""
    parts: dict[str, list[str]] = field(default_factory=dict)
    """The `extras` or `groups` of the pyproject.toml that its server is in."""
    health: str | None = None
    spa: bool = True
    smoke: list[str] = field(default_factory=list)
    """Paths that respond to any client with status 200, as far as the source shows; best first."""
    suffix: str = ""
    uses: list[str] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)
    """The first segments of the paths that its routes have, as far as they were found."""
    notes: list[str] = field(default_factory=list)


def name_from(text: str, otherwise: str) -> str:
    """Return a valid name made from any text."""
    name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-").lstrip("0123456789-")[:40]
    return name.rstrip("-") or otherwise


def dependencies(text: str) -> set[str]:
    """Extract package names from requirements.txt or pyproject.toml, approximately."""
    lines = (line.partition("#")[0] for line in text.splitlines())
    found = re.findall(r"""(?:^|["'\[,])\s*([A-Za-z0-9][A-Za-z0-9._-]*)""", "\n".join(lines), re.M)
    names = {re.sub(r"[-_.]+", "-", name).lower() for name in found}
    if re.search(r"\bfastapi\s*\[[^\]]*\b(?:standard|all)\b", text, re.IGNORECASE):
        names.add("uvicorn")
    return names


def read_json(text: str) -> Any:
    """Read JSON; an empty mapping if it is invalid."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return {}


def mapping(value: object) -> dict[str, Any]:
    """Return the value if it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}
