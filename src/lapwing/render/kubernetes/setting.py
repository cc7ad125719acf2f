"""Leaves of an object tree that a Helm chart turns into template expressions.

The renderer builds each object once, as dicts and lists. Most leaves are plain; some are instances
of the classes here. `resolve` replaces them by their defaults: that is `lapwing render`. The chart
writes each as a template expression. So both come from one tree and cannot differ.

    Setting   a value of the chart (`services.api.replicas.min`), with its default
    Scope     what an installation decides: the prefix of names, the namespace, the manager
    Joined    text with such leaves in it
    Digest    the first characters of the SHA-256 of such a text, for names that follow content
    Extra     a value whose items or fields are added to the list or mapping around it; in a
              mapping its key is `MERGE`
"""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DIGEST_LENGTH = 8
"""Hexadecimal characters of a digest in a name."""


class Scope(enum.Enum):
    """What an installation decides: the prefix of names, the namespace, the manager."""

    PREFIX = "prefix"
    NAMESPACE = "namespace"
    MANAGER = "manager"
    CHART = "chart"
    """The name and version of the chart; only in charts."""
    APP_VERSION = "app version"
    """The version of the application; only in charts."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A value that users of the chart may set.

    `path` is its place in values.yaml, with dots; `default` a plain tree; `comment` one line for
    values.yaml.
    """

    path: str
    default: Any
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Joined:
    """Text from consecutive pieces."""

    pieces: tuple[str | Scope | Setting | Digest, ...]


@dataclass(frozen=True, slots=True)
class Digest:
    """The beginning of the SHA-256 of a text, in hexadecimal."""

    text: Joined | Setting | str


@dataclass(frozen=True, slots=True)
class Extra:
    """A list or mapping whose items or fields are added to the one around it.

    A mapping with `over` is merged over that one, as Helm merges values: mappings deeply, any other
    value replaces, and an empty one does not.
    """

    setting: Setting
    over: Setting | None = None

    @property
    def settings(self) -> tuple[Setting, ...]:
        """The values that it consists of."""
        return (self.over, self.setting) if self.over else (self.setting,)

    @property
    def default(self) -> Any:
        """The items or fields that are added by default."""
        return (
            merged(self.over.default, self.setting.default) if self.over else self.setting.default
        )


MERGE = "<<"
"""The key of an `Extra` in a mapping, the same as YAML's merge key."""
Leaf = Setting | Scope | Joined | Digest
Tree = Any
"""Dicts, lists, text, numbers, booleans, None, and leaves of this module."""


def join(*pieces: Leaf | str) -> Joined:
    """Concatenate pieces to one text; adjacent plain text becomes one piece."""
    found: list[str | Scope | Setting | Digest] = []
    for piece in pieces:
        for part in piece.pieces if isinstance(piece, Joined) else (piece,):
            last = found[-1] if found else None
            if isinstance(part, str) and isinstance(last, str):
                found[-1] = last + part
            elif part != "":
                found.append(part)
    return Joined(tuple(found))


def resolve(tree: Tree, scopes: Mapping[Scope, str]) -> Tree:
    """Replace every leaf by its default; `scopes` has the values of this installation."""
    kind = type(tree)
    if kind is str:
        return tree
    if kind is dict:
        found = {
            key: value if type(value) is str else resolve(value, scopes)
            for key, value in tree.items()
            if type(value) is not Extra
        }
        extra = tree.get(MERGE)
        return found | extra.default if type(extra) is Extra else found
    if kind is list:
        return [value for item in tree for value in _items(item, scopes)]
    if kind is Setting:
        return tree.default
    if kind is Scope:
        return scopes[tree]
    return text(tree, scopes) if kind in (Joined, Digest) else tree


def _items(item: Tree, scopes: Mapping[Scope, str]) -> list[Tree]:
    return item.default if type(item) is Extra else [resolve(item, scopes)]


def merged(base: Any, over: Any) -> Any:
    """Merge a mapping over another, as Helm's `mergeOverwrite` does."""
    if isinstance(base, dict) and isinstance(over, dict):
        return base | {key: merged(base.get(key), value) for key, value in over.items()}
    return over or base


def text(leaf: Leaf | str, scopes: Mapping[Scope, str]) -> str:
    """Write a leaf as text, with its default."""
    if isinstance(leaf, str):
        return leaf
    if isinstance(leaf, Scope):
        return scopes[leaf]
    if isinstance(leaf, Setting):
        return plain(leaf.default)
    if isinstance(leaf, Digest):
        whole = text(leaf.text, scopes).encode()
        return hashlib.sha256(whole).hexdigest()[:DIGEST_LENGTH]
    return "".join([text(piece, scopes) for piece in leaf.pieces])


def plain(value: Any) -> str:
    """Write a plain value inside text as Helm's templates do: mappings, lists, booleans as JSON."""
    if isinstance(value, dict | list | bool):
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return str(value)


def spelled(tree: Tree, at: str = "") -> Joined:
    """Write a tree as text with a line for each leaf.

    Its digest is part of the names of immutable objects, so that any difference is a new name.
    """
    if isinstance(tree, dict | list):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return join(*(spelled(value, f"{at}/{key}") for key, value in items))
    if isinstance(tree, Extra):
        return join(*(spelled(setting, at) for setting in tree.settings))
    return join(f"{at}: ", tree if isinstance(tree, Leaf) else plain(tree), "\n")
