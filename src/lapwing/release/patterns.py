"""Patterns for paths, as in .gitignore: documentation, and files that a chart leaves out.

`*` is anything in one part of a path, `**` any number of parts, `?` one character. A pattern
without a slash matches in every folder (`*.md`), one with a slash from the top of the
repository (`docs/**`); a slash at the end means everything in that folder.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence


def all_match(changed: Iterable[str], patterns: Sequence[str]) -> bool:
    """Return whether every changed path matches a pattern; true for no change at all."""
    return all(any(matches(path, pattern) for pattern in patterns) for path in changed)


def matches(path: str, pattern: str) -> bool:
    """Return whether a path, relative to the top of the repository, matches a pattern."""
    return _compiled(pattern).fullmatch(path) is not None


@functools.lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    whole = pattern + "**" if pattern.endswith("/") else pattern
    anchored = "/" in pattern.rstrip("/")
    parts = whole.removeprefix("/").split("/")
    if not anchored:
        parts = ["**", *parts]
    last = len(parts) - 1
    text = ""
    for number, part in enumerate(parts):
        if part == "**":
            text += ".+" if number == last else "(?:[^/]+/)*"
        else:
            text += _part(part) + ("" if number == last else "/")
    return re.compile(text, re.DOTALL)


def _part(part: str) -> str:
    pieces = {"*": "[^/]*", "?": "[^/]"}
    return "".join(pieces.get(c) or re.escape(c) for c in re.sub(r"\*+", "*", part))
