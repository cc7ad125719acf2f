"""Explain validation errors of the models.

pydantic reports the kind of an error and its path; here that becomes a message, a hint and, for a
misspelled word, a suggestion.
"""

from __future__ import annotations

import typing
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from lapwing.errors import did_you_mean
from lapwing.stack import fields
from lapwing.stack.source import EXTENSION

_PATTERNS = {
    fields.NAME: "must consist of lower-case letters, digits and hyphens, start with a letter, and "
    "have at most 40 characters",
    fields.VARIABLE: "must be a variable name: letters, digits and underscores, not starting with "
    "a digit",
    fields.BACKUP_PLACE: "must be `s3://BUCKET/PREFIX`; on a machine also an absolute path, which "
    "starts with `/`; on Kubernetes also `gs://BUCKET/PREFIX` or `pvc://CLAIM`",
    fields.LOG_DESTINATION: "must be `journald`, or a URL with its path and without a login or a "
    "query, such as `https://otlp.example.com/v1/logs`",
    fields.ENDPOINT: "must be a URL such as `https://s3.example.com`, without a path or a login",
    fields.AGE_RECIPIENT: "must be a public key of age, which starts with `age1`",
    fields.REQUEST: "must be a path that starts with `/`, without spaces",
    fields.PATH: "must be a path that starts with `/`, without spaces, `?` or `#`",
    fields.LABEL_KEY: "must be a label key of Kubernetes such as `pool` or `example.com/pool`",
    fields.LABEL_VALUE: "must be a label value of Kubernetes: at most 63 letters, digits, `-`, "
    "`_` and `.`, with a letter or digit at both ends",
    fields.OBJECT_NAME: "must be the name of an object of Kubernetes: lower-case letters, digits, "
    "`-` and `.`",
}
_TYPES = {
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be `true` or `false`",
    "bool_parsing": "must be `true` or `false`",
    "dict_type": "must be a mapping of names to values",
    "list_type": "must be a list (`- item` lines, or `[a, b]`)",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
}
_OTHER_TOOLS = {
    "environment": "env", "depends_on": "needs", "healthcheck": "health", "entrypoint": "command",
    "cmd": "command", "path": "route", "instances": "replicas", "scale": "replicas",
}  # fmt: skip
"""Keys of other tools with the same meaning."""


def explain(error: dict[str, Any], model: type[BaseModel]) -> tuple[str, str | None, bool]:
    """Explain a pydantic error: the message, a hint, and whether the key (not the value) is wrong.

    `model` is the model of the whole file.
    """
    kind, path = error["type"], error["loc"]
    name = _name(path)
    context = error.get("ctx", {})
    if kind == "extra_forbidden":
        hint = _instead(str(path[-1]), fields_at(model, path[:-1]))
        if len(path) == 1 and hint and hint.startswith("Known keys"):
            hint = f"{hint} Keys that start with `{EXTENSION}` are ignored."
        elif str(path[-1]).startswith(EXTENSION):
            hint = (
                f"Move it to the top level, where keys that start with `{EXTENSION}` are ignored."
            )
        return f"Unknown key {name}.", hint, True
    if kind == "missing":
        parent = f" in {_lower(_name(path[:-1]))}" if len(path) > 1 else ""
        return f"{name} is missing{parent}.", _about(model, path), True
    if kind == "string_pattern_mismatch":
        rule = _PATTERNS.get(context.get("pattern", ""), "has an invalid form")
        given = "" if _is_key(path) else f"; it is {error['input']!r}"
        return f"{name} {rule}{given}.", None, _is_key(path)
    if kind == "literal_error":
        return _literal(name, error["input"], context["expected"])
    if kind == "value_error":
        return f"{name}: {context['error']}.", None, False
    if kind in _TYPES:
        return f"{name} {_TYPES[kind]}, not {_what(error['input'])}.", _quoted(error), False
    if kind in ("too_short", "string_too_short"):
        some = "; add at least one entry" if kind == "too_short" else ""
        return f"{name} is empty{some}.", None, False
    bounds = {"greater_than_equal": ("ge", "at least"), "less_than_equal": ("le", "at most"),
              "greater_than": ("gt", "greater than"), "less_than": ("lt", "less than")}  # fmt: skip
    if kind in bounds:
        key, words = bounds[kind]
        return f"{name} must be {words} {context[key]:g}; it is {error['input']!r}.", None, False
    return f"{name}: {error['msg'][:1].lower()}{error['msg'][1:]}.", None, False


def _instead(key: str, known: list[str]) -> str | None:
    """Suggest what to write instead of an unknown key."""
    if key in ("port", "ports"):
        return "Lapwing chooses the port; the service reads it from $PORT."
    other = _OTHER_TOOLS.get(key)
    if other in known:
        return f"Did you mean `{other}`?"
    return did_you_mean(key, known) or _known(known)


def fields_at(model: type[BaseModel], path: tuple[str | int, ...]) -> list[str]:
    """List the keys that a model allows in the mapping at a path."""
    here: Any = model
    for step in path:
        here = _inside(here, step)
        if here is None:
            return []
    return list(_fields(here)) if _is_model(here) else []


def _inside(kind: Any, step: str | int) -> Any:
    if _is_model(kind):
        field = _fields(kind).get(str(step))
        return _unwrap(field.annotation) if field is not None else None
    arguments = typing.get_args(kind)
    return _unwrap(arguments[-1]) if arguments else None


def _fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return the fields of a model by their keys in the file."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _unwrap(kind: Any) -> Any:
    """Return the type inside Annotated and Optional."""
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
        f"{name} must be {one_of}{', '.join(f'`{w}`' for w in words if w)}; it is {given!r}.",
        did_you_mean(str(given), words),
        False,
    )


def _about(model: type[BaseModel], path: tuple[str | int, ...]) -> str | None:
    """Describe the field at a path, from its model."""
    here: Any = model
    for step in path[:-1]:
        here = _inside(here, step)
    field = _fields(here).get(str(path[-1])) if _is_model(here) else None
    if field is None or not field.description:
        return None
    about = field.description
    return f"Add `{path[-1]}`: {about[0].lower()}{about[1:]}"


def _quoted(error: dict[str, Any]) -> str | None:
    """Suggest quotes for a number or boolean that is meant as text."""
    given = error["input"]
    if error["type"] != "string_type" or not isinstance(given, bool | int | float):
        return None
    return f'Write it in quotes: "{str(given).lower()}".'


def _known(known: list[str]) -> str | None:
    return f"Known keys: {', '.join(known)}." if known else None


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
    """Return a name for the middle of a sentence."""
    return name.replace("Item", "item", 1) if name.startswith("Item ") else name


def _what(value: object) -> str:
    if value is None:
        return "empty"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return f"`{str(value).lower()}`" if isinstance(value, bool) else repr(value)
