"""What a validation error means, in words for people. Pure.

pydantic tells the kind of an error and the path; here that becomes a sentence, a hint and, for a
misspelt word, the word that was probably meant.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel

from lapwing.stack import model

_PATTERNS = {
    model.NAME: "has to be lower-case letters, digits and hyphens, begin with a letter, and be "
    "at most 40 long",
    model.VARIABLE: "has to be a variable's name: letters, digits and underscores, not beginning "
    "with a digit",
    model.REQUEST: "has to be a path that begins with `/`, without spaces",
    model.PATH: "has to be a path that begins with `/`, without spaces, `?` or `#`",
}
_TYPES = {
    "string_type": "has to be text",
    "int_type": "has to be a whole number",
    "int_parsing": "has to be a whole number",
    "int_from_float": "has to be a whole number",
    "float_type": "has to be a number",
    "float_parsing": "has to be a number",
    "bool_type": "has to be `true` or `false`",
    "bool_parsing": "has to be `true` or `false`",
    "dict_type": "has to be a mapping of names to values",
    "list_type": "has to be a list (`- item` lines, or `[a, b]`)",
    "model_type": "has to be a mapping",
    "model_attributes_type": "has to be a mapping",
}
_ELSEWHERE = {
    "environment": "env", "depends_on": "needs", "healthcheck": "health", "entrypoint": "command",
    "cmd": "command", "path": "route", "instances": "replicas", "scale": "replicas",
}  # fmt: skip
"""Keys that mean the same in other tools."""


def explain(error: dict[str, Any]) -> tuple[str, str | None, bool]:
    """Message, hint, and whether the key (not the value) is at fault, for one pydantic error."""
    kind, path = error["type"], error["loc"]
    name = _name(path)
    context = error.get("ctx", {})
    if kind == "extra_forbidden":
        return f"Unknown key {name}.", _instead(str(path[-1]), fields_at(path[:-1])), True
    if kind == "missing":
        parent = f" in {_lower(_name(path[:-1]))}" if len(path) > 1 else ""
        return f"{name} is missing{parent}.", _about(path), True
    if kind == "string_pattern_mismatch":
        rule = _PATTERNS.get(context.get("pattern", ""), "has a form that is not allowed")
        given = "" if _is_key(path) else f"; it is {error['input']!r}"
        return f"{name} {rule}{given}.", None, _is_key(path)
    if kind == "literal_error":
        return _literal(name, error["input"], context["expected"])
    if kind == "value_error":
        return f"{name}: {context['error']}.", None, False
    if kind in _TYPES:
        return f"{name} {_TYPES[kind]}, not {_what(error['input'])}.", _quoted(error), False
    if kind in ("too_short", "string_too_short"):
        some = "; there has to be at least one" if kind == "too_short" else ""
        return f"{name} is empty{some}.", None, False
    bounds = {"greater_than_equal": ("ge", "at least"), "less_than_equal": ("le", "at most"),
              "greater_than": ("gt", "more than"), "less_than": ("lt", "less than")}  # fmt: skip
    if kind in bounds:
        key, words = bounds[kind]
        return f"{name} has to be {words} {context[key]:g}; it is {error['input']!r}.", None, False
    return f"{name}: {error['msg'][:1].lower()}{error['msg'][1:]}.", None, False


def _instead(key: str, known: list[str]) -> str | None:
    """What to write instead of an unknown key."""
    if key in ("port", "ports"):
        return "Lapwing chooses the port and tells the service as $PORT."
    other = _ELSEWHERE.get(key)
    if other in known:
        return f"Did you mean `{other}`?"
    return did_you_mean(key, known) or _known(known)


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """A hint with the known word nearest to this one, if one is near."""
    near = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)
    return f"Did you mean `{near[0]}`?" if near else None


def fields_at(path: tuple[str | int, ...]) -> list[str]:
    """The keys that the model allows in the mapping at a path."""
    here: Any = model.Stack
    for step in path:
        here = _inside(here, step)
        if here is None:
            return []
    return list(here.model_fields) if _is_model(here) else []


def _inside(kind: Any, step: str | int) -> Any:
    if _is_model(kind):
        field = kind.model_fields.get(str(step))
        return _unwrap(field.annotation) if field is not None else None
    arguments = typing.get_args(kind)
    return _unwrap(arguments[-1]) if arguments else None


def _unwrap(kind: Any) -> Any:
    """The model inside Annotated and Optional."""
    while True:
        if hasattr(kind, "__metadata__"):
            kind = kind.__origin__
            continue
        arguments = [a for a in typing.get_args(kind) if a is not type(None)]
        if type(None) in typing.get_args(kind) and len(arguments) == 1:
            kind = arguments[0]
            continue
        return kind


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _literal(name: str, given: object, expected: str) -> tuple[str, str | None, bool]:
    words = [w.strip("' ") for w in expected.replace(" or ", ",").split(",")]
    one_of = "one of " if len(words) > 1 else ""
    return (
        f"{name} has to be {one_of}{', '.join(f'`{w}`' for w in words if w)}; it is {given!r}.",
        did_you_mean(str(given), words),
        False,
    )


def _about(path: tuple[str | int, ...]) -> str | None:
    """What the model says about the field at a path."""
    here: Any = model.Stack
    for step in path[:-1]:
        here = _inside(here, step)
    field = here.model_fields.get(path[-1]) if _is_model(here) else None
    if field is None or not field.description:
        return None
    about = field.description
    return f"Add `{path[-1]}`: {about[0].lower()}{about[1:]}"


def _quoted(error: dict[str, Any]) -> str | None:
    """How to write a number or a boolean that is meant as text."""
    given = error["input"]
    if error["type"] != "string_type" or not isinstance(given, bool | int | float):
        return None
    return f'Write it in quotes: "{str(given).lower()}".'


def _known(known: list[str]) -> str | None:
    return f"Known here: {', '.join(known)}." if known else None


def _is_key(path: tuple[str | int, ...]) -> bool:
    return bool(path) and path[-1] == "[key]"


def _name(path: tuple[str | int, ...]) -> str:
    if not path:
        return "The file"
    last = path[-1]
    if last == "[key]":
        return f"The name `{path[-2]}`"
    if isinstance(last, int):
        return f"Item {last + 1} of `{path[-2]}`"
    return f"`{last}`"


def _lower(name: str) -> str:
    """A name in the middle of a sentence."""
    return name.replace("Item", "item", 1) if name.startswith("Item ") else name


def _what(value: object) -> str:
    if value is None:
        return "empty"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return f"`{str(value).lower()}`" if isinstance(value, bool) else repr(value)
