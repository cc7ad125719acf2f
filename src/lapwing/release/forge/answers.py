"""Reading a forge's answers: a field that is not what it should be is an error in words. Pure."""

from __future__ import annotations

from typing import Any, TypeVar

from lapwing.errors import ForgeError

T = TypeVar("T")


def field(data: Any, key: str, kind: type[T]) -> T:
    """A field of an object; a list that is null is empty. Raises ForgeError."""
    value = data.get(key) if isinstance(data, dict) else None
    if value is None and kind is list:
        return kind()
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ForgeError(
            f"The forge answers something without a right `{key}`.",
            hint="Is it the forge that `forge:` in the stack file names?",
        )
    return value


def entries(data: Any) -> list[Any]:
    """A list. Raises ForgeError."""
    if not isinstance(data, list):
        raise ForgeError(
            "The forge answers something that is not a list.",
            hint="Is it the forge that `forge:` in the stack file names?",
        )
    return data
