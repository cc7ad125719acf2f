"""Reading YAML with every position kept.

The file becomes plain data plus a map from each path in that data to the line and column of its key
and of its value, so any later error can point at what was written. Plain scalars are read by the
rules of YAML 1.2: `no`, `on` and `1:30` are text, as people mean them.

Refused, with the place: what is not a regular file of UTF-8 text, more than 1 MiB, two documents,
tags, a key written twice, nesting without end (libyaml's composer would overflow the C stack and
take the process with it), and aliases that multiply into a mountain of data.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lapwing.errors import Problem, StackFileError, Where
from lapwing.stack import syntax

LIMIT = 1024 * 1024
"""Bytes of the largest stack file that is read."""
MAX_NODES = 50_000
"""Values of the largest stack file, aliases counted each time they are used."""

MAX_DEPTH = 40
"""How deep the data may be nested. A stack file needs 8."""

Path_ = tuple[str | int, ...]
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Place:
    """Line and column, from 1, of a value and, in a mapping, of its key."""

    value: tuple[int, int]
    key: tuple[int, int]
    leaf: bool = False
    """Whether nothing is written below it, so that it also stands for what it is short for."""


@dataclass(slots=True)
class Source:
    """The data of a file, and where each part of it is written."""

    path: Path
    data: Any = None
    places: dict[Path_, Place] = field(default_factory=dict)

    def where(self, path: Path_, *, key: bool = False) -> Where:
        """The place of a path; of the nearest part above it where it is not written itself."""
        for length in range(len(path), -1, -1):
            place = self.places.get(path[:length])
            if place is not None:
                at_value = place.leaf or length == len(path)
                line, column = place.value if at_value and not key else place.key
                return Where(self.path, line, column)
        return Where(self.path, 1, 1)

    def written(self, path: Path_) -> Path_:
        """The path under which a value is written: that of the short form, where one is used."""
        for length in range(len(path) if path[-1:] != ("[key]",) else 0):
            place = self.places.get(path[:length])
            if place is not None and place.leaf:
                return path[:length]
        return path


def read(path: Path) -> Source:
    """Read a stack file. Raises StackFileError."""
    text = _text(path)
    loader = _LOADER(text)
    try:
        _survey(path, text)
        node = loader.get_single_node()
    except yaml.YAMLError as error:
        raise StackFileError([syntax.explain(path, error)]) from None
    finally:
        loader.dispose()
    source = Source(path)
    if node is None:
        raise _refuse(path, "The file is empty.", hint="`lapwing init` writes a first one.")
    builder = _Builder(source)
    source.data = builder.build(node, (), None)
    if builder.problems:
        raise StackFileError(builder.problems)
    return source


def _survey(path: Path, text: str) -> None:
    """Refuse what must not reach the composer: it recurses in C, and it obeys tags."""
    depth = 0
    event: Any
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        where = Where(path, event.start_mark.line + 1, event.start_mark.column + 1)
        if depth > MAX_DEPTH:
            message = f"The file is nested more than {MAX_DEPTH} levels deep from here on."
            raise StackFileError([Problem(message, where)])
        tag = getattr(event, "tag", None)
        if tag is not None:
            tag = tag.replace("tag:yaml.org,2002:", "!!")
            hint = "Remove it; a text that begins with `!` needs quotes."
            raise StackFileError([Problem(f"The tag `{tag}` means nothing here.", where, hint)])


def _text(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise _refuse(
            path, "There is no such file.", hint="`lapwing init` writes a first one."
        ) from None
    except OSError as error:
        raise _refuse(path, f"The file cannot be read: {error.strerror}.") from error
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode):
        os.close(descriptor)
        raise _refuse(path, "This is not a regular file.")
    with os.fdopen(descriptor, "rb") as file:
        if facts.st_size > LIMIT:
            raise _refuse(
                path,
                f"The file has {facts.st_size / LIMIT:.0f} MiB; a stack file has at most 1 MiB.",
                hint="Is this the right file?",
            )
        data = file.read(LIMIT + 1)
    if b"\0" in data:
        raise _refuse(path, "This is a binary file, not YAML.", hint="Is this the right file?")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        raise StackFileError(
            [
                Problem(
                    "The file is not UTF-8 text from here on.",
                    Where(path, line, column),
                    "Save it as UTF-8.",
                )
            ]
        ) from None


def _refuse(path: Path, message: str, hint: str | None = None) -> StackFileError:
    return StackFileError([Problem(message, Where(path), hint)])


class _Builder:
    def __init__(self, source: Source) -> None:
        self.source = source
        self.problems: list[Problem] = []
        self._nodes = 0

    def build(self, node: Any, path: Path_, key: Any) -> Any:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise StackFileError(
                [Problem("The file's aliases multiply into too much data.", self._where(node))]
            )
        if len(path) > MAX_DEPTH:
            raise StackFileError([Problem("An alias stands inside itself.", self._where(node))])
        value_at = _at(node)
        self.source.places[path] = Place(
            value_at,
            _at(key) if key is not None else value_at,
            isinstance(node, yaml.ScalarNode),
        )
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(n, (*path, i), None) for i, n in enumerate(node.value)]
        return scalar(node.value, plain=not node.style)

    def _mapping(self, node: Any, path: Path_) -> dict[str, Any]:
        result: dict[str, Any] = {}
        written: dict[str, int] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append(Problem("A key has to be plain text.", self._where(key_node)))
                continue
            key = key_node.value
            if key == "<<" and not key_node.style:
                merged = self.build(value_node, (*path, key), key_node)
                result = {**(merged if isinstance(merged, dict) else {}), **result}
                continue
            if key in written:
                self.problems.append(
                    Problem(
                        f"`{key}` is written twice; the first is in line {written[key]}.",
                        self._where(key_node),
                        "Keep one of them.",
                    )
                )
                continue
            written[key] = key_node.start_mark.line + 1
            result[key] = self.build(value_node, (*path, key), key_node)
        return result

    def _where(self, node: Any) -> Where:
        return Where(self.source.path, *_at(node))


def _at(node: Any) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


def scalar(text: str, *, plain: bool) -> Any:
    """The value of a scalar by YAML 1.2's core schema; text that a number would not give back as
    it was written (`8.10`, `007`) stays text."""
    if not plain:
        return text
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE"):
        return True
    if text in ("false", "False", "FALSE"):
        return False
    if re.fullmatch(r"-?(0|[1-9]\d{0,17})", text):
        return int(text)
    if re.fullmatch(r"-?\d{1,15}\.\d{1,15}", text) and repr(float(text)) == text:
        return float(text)
    return text
