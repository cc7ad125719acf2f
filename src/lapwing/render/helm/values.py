"""values.yaml and values.schema.json, from the settings in the objects.

A setting may be in many objects; it is one value, with one default. The order is that of the
objects. The schema refuses unknown keys, so a misspelt value is an error and not ignored.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

from lapwing.render.kubernetes import emit
from lapwing.render.kubernetes.setting import Digest, Extra, Joined, Setting, Tree

OVERRIDES = (
    Setting("nameOverride", "", "Replaces the chart's name in the names of objects."),
    Setting("fullnameOverride", "", "Replaces the prefix of the names of all objects."),
)
_SCHEMA = "http://json-schema.org/draft-07/schema#"


def settings(tree: Tree) -> Iterator[Setting]:
    """Yield every setting in a tree, in order."""
    if isinstance(tree, Setting):
        yield tree
    elif isinstance(tree, dict):
        yield from settings(list(tree.values()))
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from settings(value)
    elif isinstance(tree, Extra):
        yield from tree.settings
    elif isinstance(tree, Joined):
        yield from settings(tree.pieces)
    elif isinstance(tree, Digest):
        yield from settings(tree.text)


class Values:
    """The values of a chart as a tree of keys, with settings as leaves."""

    def __init__(self, found: Iterable[Setting]) -> None:
        """Build the tree. Raises ValueError if two settings contradict each other."""
        self.tree: dict[str, Any] = {}
        for setting in (*OVERRIDES, *found):
            self._add(setting)

    def _add(self, setting: Setting) -> None:
        *folders, last = setting.path.split(".")
        place = self.tree
        for folder in folders:
            place = place.setdefault(folder, {})
            if isinstance(place, Setting):
                raise ValueError(f"{setting.path} is below another setting")
        known = place.setdefault(last, setting)
        if not isinstance(known, Setting) or known.default != setting.default:
            raise ValueError(f"{setting.path} has two defaults")
        if setting.comment and not known.comment:
            place[last] = setting

    def yaml(self, head: str) -> str:
        """Write values.yaml: each value after its comment. `head` is the comment of the file."""
        lines = _comment(head, "")
        _write(self.tree, "", lines)
        return "\n".join(lines) + "\n"

    def ranges(self) -> Iterator[tuple[Setting, Setting]]:
        """Yield each minimum with its maximum."""
        folders = [self.tree]
        while folders:
            folder = folders.pop()
            folders += [v for v in folder.values() if isinstance(v, dict)]
            for low, high in (("min", "max"), ("replicas", "maxReplicas")):
                least, most = folder.get(low), folder.get(high)
                if isinstance(least, Setting) and isinstance(most, Setting):
                    yield least, most

    def schema(self, title: str) -> str:
        """Write values.schema.json."""
        known = _closed(self.tree)
        known["properties"]["global"] = {"type": "object"}
        body = {"$schema": _SCHEMA, "title": title, **known}
        return json.dumps(body, indent=2, ensure_ascii=False) + "\n"


def _write(tree: dict[str, Any], indent: str, lines: list[str]) -> None:
    for key, value in tree.items():
        if not indent:
            lines.append("")
        if isinstance(value, dict):
            lines.append(f"{indent}{key}:")
            _write(value, indent + "  ", lines)
            continue
        if value.comment:
            lines.extend(_comment(value.comment, indent))
        body = emit.document({key: value.default}).rstrip("\n")
        lines.append(textwrap.indent(body, indent))


def _comment(text: str, indent: str) -> list[str]:
    """Text as comment lines of at most 80 columns."""
    return [
        f"{indent}# {line}" if line else f"{indent}#"
        for paragraph in text.split("\n")
        for line in textwrap.wrap(paragraph, 78 - len(indent)) or [""]
    ]


def _closed(tree: dict[str, Any]) -> dict[str, Any]:
    properties = {
        key: _closed(value) if isinstance(value, dict) else _schema(value)
        for key, value in tree.items()
    }
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _schema(setting: Setting) -> dict[str, Any]:
    about: dict[str, Any] = {"description": setting.comment} if setting.comment else {}
    value = setting.default
    if value is None:
        return about
    if isinstance(value, bool):
        return {**about, "type": "boolean"}
    if isinstance(value, int):
        return {**about, "type": "integer", "minimum": min(0, value)}
    if isinstance(value, float):
        return {**about, "type": "number"}
    if isinstance(value, str):
        return {**about, "type": "string"}
    return {**about, "type": "array" if isinstance(value, list) else "object"}
