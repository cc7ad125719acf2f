"""The overlay of an environment: `services` and `resources` below it override those of the stack.

Mappings are merged deeply, null removes a key, and any other value replaces. What the overlay sets
has the position at which the overlay sets it, so that errors point there.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from lapwing.errors import Problem, did_you_mean
from lapwing.stack.source import KeyPath, Source

if TYPE_CHECKING:
    from lapwing.stack.environment import Environment

_SHORT_FORMS = {"build": "path", "health": "path", "replicas": "min"}
"""The field that the short form of a service's setting sets, as in the models."""


def overlay(read: Source, name: str, settings: Environment, problems: list[Problem]) -> Source:
    """Merge an environment's overlay into the source, with the positions of what it sets."""
    if not settings.services and not settings.resources:
        return read
    merged = Source(read.path, copy.deepcopy(read.data), dict(read.positions))
    for section, overlays in (("services", settings.services), ("resources", settings.resources)):
        for target, changes in overlays.items():
            at: KeyPath = ("environments", name, section, target)
            known = merged.data.get(section) or {}
            if target not in known:
                kind = section.removesuffix("s")
                names = ", ".join(known) or "none"
                hint = did_you_mean(target, known) or f"Known {section}: {names}."
                message = f"There is no {kind} `{target}` to override in `{name}`."
                problems.append(Problem(message, read.where(at, key=True), hint))
                continue
            if not isinstance(known[target], dict):
                continue
            known[target] = _merge(merged, known[target], changes, (section, target), at)
    return merged


def _merge(merged: Source, old: Any, new: Any, path: KeyPath, written: KeyPath) -> Any:
    """Merge deeply: mappings are merged, null removes, any other value replaces."""
    short = _SHORT_FORMS.get(str(path[-1])) if len(path) == 3 else None
    if short and isinstance(new, dict) and isinstance(old, str | int | float):
        old = {short: old}
    if isinstance(old, dict) and isinstance(new, dict):
        result = dict(old)
        for key, value in new.items():
            if value is None:
                result.pop(key, None)
            else:
                inner = (*path, key)
                result[key] = _merge(merged, old.get(key), value, inner, (*written, key))
        return result
    _move(merged, path, written)
    return new


def _move(merged: Source, path: KeyPath, written: KeyPath) -> None:
    """Replace the positions of a value by those of the value that replaces it."""
    for known in [p for p in merged.positions if p[: len(path)] == path]:
        del merged.positions[known]
    length = len(written)
    for known, position in list(merged.positions.items()):
        if known[:length] == written:
            merged.positions[(*path, *known[length:])] = position
