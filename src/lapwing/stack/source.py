"""Read YAML and keep the position of every value.

The file becomes plain data plus a map from each path in that data to the line and column of its key
and of its value, so any later error can point at what was written. Plain scalars are read by the
rules of YAML 1.2: `no`, `on` and `1:30` are text. `<<` merges a mapping or a list of mappings by
the rules of YAML 1.1. Keys that start with `x-` are dropped at the top level: a place for anchors.

Refused, with the position: anything that is not a regular file of UTF-8 text, more than 1 MiB, a
second document, tags, duplicate keys, deep nesting (libyaml's composer would overflow the C stack
and crash the process), and aliases that expand into too much data.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lapwing.errors import Location, Problem, StackFileError
from lapwing.system.files import BINARY
from lapwing.system.yaml_loader import LOADER

MAX_FILE_BYTES = 1024 * 1024
MAX_NODES = 50_000
"""Maximum number of values in a stack file; aliases count each time they are used."""
MAX_DEPTH = 40
"""Maximum nesting depth of the data. A stack file needs 8."""
ACCESS_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
"""The secrets with the credentials of a bucket of S3, for backups."""
EXTENSION = "x-"
"""The prefix of top-level keys that are ignored, as in Compose files."""
_NONBLOCK = getattr(os, "O_NONBLOCK", 0)
"""Opens a named pipe without a writer; Windows has neither."""
_TOO_DEEP = f"The file is nested more than {MAX_DEPTH} levels deep from here."

KeyPath = tuple[str | int, ...]
"""The path of a value in the file: keys and list indexes."""


@dataclass(frozen=True, slots=True)
class Position:
    """Line and column, from 1, of a value and of its key in a mapping.

    `leaf` is whether the value is a scalar, so that it can be a short form.
    """

    value: tuple[int, int]
    key: tuple[int, int]
    leaf: bool = False


@dataclass(frozen=True, slots=True)
class Violation:
    """A violated rule: what is wrong, the path in the file, and how to fix it.

    `key` points at the key instead of the value.
    """

    message: str
    path: KeyPath
    hint: str | None = None
    key: bool = False


@dataclass(slots=True)
class Source:
    """The data of a file, and the position of each value."""

    path: Path
    data: dict[str, Any] = field(default_factory=dict)
    positions: dict[KeyPath, Position] = field(default_factory=dict)

    def where(self, path: KeyPath, *, key: bool = False) -> Location:
        """Return the position of a path, or of its nearest parent that is in the file."""
        for length in range(len(path), -1, -1):
            position = self.positions.get(path[:length])
            if position is not None:
                at_value = position.leaf or length == len(path)
                line, column = position.value if at_value and not key else position.key
                return Location(self.path, line, column)
        return Location(self.path, 1, 1)

    def written(self, path: KeyPath) -> KeyPath:
        """Return the path that a value has in the file: that of the short form, if one is used."""
        for length in range(len(path) if path[-1:] != ("[key]",) else 0):
            position = self.positions.get(path[:length])
            if position is not None and position.leaf:
                return path[:length]
        return path


def read(path: Path, first: str = "stack") -> Source:
    """Read a stack file, or another file with the key `first`. Raises StackFileError."""
    text = read_text(path, "Run `lapwing init` to create it.")
    loader = LOADER(text)
    try:
        _check_events(path, text)
        node = loader.get_single_node()
    except yaml.YAMLError as error:
        raise StackFileError([_syntax_problem(path, error)]) from None
    finally:
        loader.dispose()
    source = Source(path)
    hint = f"It starts with `{first}: NAME`."
    if node is None:
        create = " Run `lapwing init --force` to create a new one." if first == "stack" else ""
        raise _refuse(path, "The file is empty.", hint + create)
    builder = _Builder(source)
    data = builder.build(node, (), None)
    if builder.problems:
        raise StackFileError(builder.problems)
    if not isinstance(data, dict):
        raise StackFileError([Problem("The file must be a mapping.", source.where(()), hint)])
    source.data = {key: value for key, value in data.items() if not key.startswith(EXTENSION)}
    return source


def _check_events(path: Path, text: str) -> None:
    """Refuse deep nesting and tags before composing: libyaml's composer recurses in C."""
    depth = 0
    event: Any
    for event in yaml.parse(text, Loader=LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        where = Location(path, event.start_mark.line + 1, event.start_mark.column + 1)
        if depth > MAX_DEPTH:
            raise StackFileError([Problem(_TOO_DEEP, where)])
        tag = getattr(event, "tag", None)
        if tag is not None:
            tag = tag.replace("tag:yaml.org,2002:", "!!")
            hint = "Remove it; put text that starts with `!` in quotes."
            raise StackFileError([Problem(f"The tag `{tag}` is not supported.", where, hint)])


def read_text(path: Path, missing: str) -> str:
    """Read a file of text; `missing` is the hint if it does not exist. Raises StackFileError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | _NONBLOCK | BINARY)
    except FileNotFoundError:
        raise _refuse(path, "The file does not exist.", missing) from None
    except OSError as error:
        raise _refuse(path, f"Cannot read the file: {error.strerror or error}.") from error
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode):
        os.close(descriptor)
        raise _refuse(path, "This is not a regular file.")
    with os.fdopen(descriptor, "rb") as file:
        if facts.st_size > MAX_FILE_BYTES:
            size = f"{facts.st_size / MAX_FILE_BYTES:.0f} MiB"
            raise _refuse(path, f"The file has {size}; the limit is 1 MiB.", _CHECK_PATH)
        data = file.read(MAX_FILE_BYTES + 1)
    if b"\0" in data:
        raise _refuse(path, "This is a binary file, not text.", _CHECK_PATH)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        where = Location(path, line, error.start - data.rfind(b"\n", 0, error.start))
        message = "The file is not UTF-8 text from here."
        raise StackFileError([Problem(message, where, "Save it as UTF-8.")]) from None


_CHECK_PATH = "Check that this is the file of your stack; -C DIR selects another folder."


def _refuse(path: Path, message: str, hint: str | None = None) -> StackFileError:
    return StackFileError([Problem(message, Location(path), hint)])


_INDENT = "Start all keys of a mapping in the same column, indented with spaces."
_SYNTAX_ERRORS: dict[str, tuple[str, str | None]] = {
    "another document": ("A second YAML document starts here.", "Remove `---` and what follows."),
    "quoted scalar": ("This quote is not closed.", "Add the closing quote."),
    "unknown escape character": (
        "Unknown escape sequence.",
        "Write `\\\\` for a backslash, or use single quotes.",
    ),
    "cannot start any token": (
        "Unexpected character.",
        "Indent with spaces, not tabs; put text that starts with @, %, ` or a tab in quotes.",
    ),
    "mapping values are not allowed": (
        "Unexpected `:`.",
        "Put text that contains `: ` in quotes, or fix the indentation of the line.",
    ),
    "undefined alias": ("Undefined alias.", "Put text that starts with `*` in quotes."),
    "nesting depth": (_TOO_DEEP, None),
    "flow sequence": ("A list in `[...]` is incomplete.", "Separate items with `,`; add `]`."),
    "flow mapping": ("A mapping in `{...}` is incomplete.", "Separate keys with `,`; add `}`."),
    "flow node": ("A value is missing.", "Check that every `[` and `{` before it is closed."),
    "could not find expected ':'": ("`:` is missing after the key.", "Write `key: value`."),
    "expected key": ("Expected a key.", _INDENT),
    "block mapping": ("This line does not fit the mapping it is in.", _INDENT),
    "block collection": (
        "This line does not fit the list it is in.",
        "Start all items of a list with `- ` in the same column.",
    ),
}
"""Message and hint by a part of libyaml's message. The first part that matches counts."""


def _syntax_problem(path: Path, error: yaml.YAMLError) -> Problem:
    """Explain a syntax error: libyaml's messages use the terms of its grammar."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return Problem(f"Invalid YAML: {getattr(error, 'reason', error)}.", Location(path))
    original = " ".join(part for part in (error.problem, error.context) if part)
    message, hint = next(
        (explained for part, explained in _SYNTAX_ERRORS.items() if part in original),
        (f"Invalid YAML: {original}.", None),
    )
    not_closed = "end of stream" in original and error.context_mark is not None
    mark = error.context_mark if not_closed else error.problem_mark or error.context_mark
    where = Location(path, mark.line + 1, mark.column + 1) if mark is not None else Location(path)
    return Problem(message, where, hint)


class _Builder:
    def __init__(self, source: Source) -> None:
        self.source = source
        self.problems: list[Problem] = []
        self._nodes = 0
        self._depth = 0

    def build(self, node: Any, path: KeyPath, key: Any) -> Any:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise StackFileError(
                [Problem("The aliases of the file expand into too much data.", self._where(node))]
            )
        if self._depth > MAX_DEPTH:
            raise StackFileError([Problem("An alias refers to itself.", self._where(node))])
        value_at = _at(node)
        self.source.positions[path] = Position(
            value_at,
            _at(key) if key is not None else value_at,
            isinstance(node, yaml.ScalarNode),
        )
        if isinstance(node, yaml.ScalarNode):
            if "\0" in node.value:
                message = "Text cannot contain a NUL character."
                self.problems.append(Problem(message, self._where(node)))
            return scalar(node.value, plain=not node.style)
        self._depth += 1
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            return [self.build(n, (*path, i), None) for i, n in enumerate(node.value)]
        finally:
            self._depth -= 1

    def _mapping(self, node: Any, path: KeyPath) -> dict[str, Any]:
        result: dict[str, Any] = self._merged(node, path)
        written: dict[str, int] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append(Problem("A key must be text.", self._where(key_node)))
                continue
            key = key_node.value
            is_merge = _is_merge(key_node)
            if key in written:
                message = f"Duplicate key `{key}`; the first one is in line {written[key]}."
                hint = f"Write {_MERGE_LIST}." if is_merge else "Keep one of them."
                self.problems.append(Problem(message, self._where(key_node), hint))
                continue
            written[key] = key_node.start_mark.line + 1
            if not is_merge:
                result[key] = self.build(value_node, (*path, key), key_node)
        return result

    def _merged(self, node: Any, path: KeyPath) -> dict[str, Any]:
        """Return what `<<` merges into a mapping: in a list, an earlier mapping has precedence.

        The values get the positions that they have in their anchor.
        """
        result: dict[str, Any] = {}
        own = self.source.positions[path]
        for key_node, value_node in node.value:
            if not _is_merge(key_node):
                continue
            is_list = isinstance(value_node, yaml.SequenceNode)
            for part in reversed(value_node.value if is_list else [value_node]):
                if isinstance(part, yaml.MappingNode):
                    result |= self.build(part, path, key_node)
                else:
                    message = "`<<` merges only mappings."
                    hint = f"Write `<<: *name`, or {_MERGE_LIST}."
                    self.problems.append(Problem(message, self._where(key_node), hint))
        self.source.positions[path] = own
        return result

    def _where(self, node: Any) -> Location:
        return Location(self.source.path, *_at(node))


_MERGE_LIST = "`<<: [*first, *second]` for several, the first of which has precedence"


def _is_merge(key: Any) -> bool:
    return isinstance(key, yaml.ScalarNode) and key.value == "<<" and not key.style


def _at(node: Any) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


def scalar(text: str, *, plain: bool) -> Any:
    """Return the value of a scalar by YAML 1.2's core schema.

    A number that would not print as it was written (`8.10`, `007`, `-0`) stays text.
    """
    if not plain:
        return text
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE"):
        return True
    if text in ("false", "False", "FALSE"):
        return False
    if re.fullmatch(r"0|-?[1-9]\d{0,17}", text):
        return int(text)
    if re.fullmatch(r"-?\d{1,15}\.\d{1,15}", text) and repr(float(text)) == text:
        return float(text)
    return text
