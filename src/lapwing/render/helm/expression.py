"""Leaves of an object tree as expressions of Helm's template language.

The renderer builds one tree; `lapwing render` takes each leaf at its default, the chart leaves it
open. What a template gives with default values is what the renderer wrote: the tests ask Helm.

Helm reads every number of values.yaml as a float and would print a large one as `1e+06`, hence
`int64`. Sources: Helm's documents, "Chart Template Guide" (functions, named templates) and "Chart
Best Practices".
"""

from __future__ import annotations

import json
import re

from lapwing.render.kubernetes.setting import DIGEST_LENGTH, Digest, Joined, Leaf, Scope, Setting

_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Contents:
    """The named templates of texts that a digest is made of: each text is written once, in
    `_helpers.tpl`, and both its digest and the object that holds it include it."""

    def __init__(self, chart: str) -> None:
        self.chart = chart
        self._named: dict[str, tuple[Joined, str]] = {}

    def name(self, text: Joined, near: str) -> str:
        """The template of a text; `near` is what stands before the digest, for a telling name."""
        known = self.find(text)
        if known is None:
            telling = re.sub(r"[^a-z0-9]+", "-", near).strip("-")
            base = f"{self.chart}.content.{telling or 'text'}"
            name, count = base, 1
            taken = {other for _, other in self._named.values()}
            while name in taken:
                count += 1
                name = f"{base}-{count}"
            self._named[repr(text)] = (text, name)
            return name
        return known

    def find(self, text: Joined) -> str | None:
        """The template of a text, if it has one. Defaults may be mappings, so texts are known by
        how they are written."""
        found = self._named.get(repr(text))
        return found[1] if found else None

    def all(self) -> list[tuple[Joined, str]]:
        """Each text and the name of its template."""
        return list(self._named.values())


def path(setting: Setting) -> str:
    """Where a value is: `.Values.api.port`, or `index` where a key is no Go identifier."""
    keys = setting.path.split(".")
    if all(_FIELD.fullmatch(key) for key in keys):
        return f".Values.{setting.path}"
    return "index .Values " + " ".join(quoted(key) for key in keys)


def quoted(text: str) -> str:
    """A text constant of the template language. JSON's escapes are Go's, but for surrogates."""
    return json.dumps(text, ensure_ascii=False)


def plain(text: str) -> str:
    """Text that stands outside of expressions: what would open one is written by one. A brace at
    the end might meet an expression behind it."""
    if text.endswith("{"):
        return plain(text[:-1]) + '{{ "{" }}'
    return text.replace("{{", '{{ "{{" }}')


def inline(leaf: Leaf | str, contents: Contents, near: str = "") -> str:
    """A leaf in the midst of text, as it is: not quoted."""
    if isinstance(leaf, str):
        return plain(leaf)
    if isinstance(leaf, Joined):
        return "".join(inline(piece, contents, near) for near, piece in _with_near(leaf))
    return f"{{{{ {_value(leaf, contents, near)} }}}}"


def printed(leaf: Joined, contents: Contents) -> str:
    """Joined text as one quoted scalar, whatever a user of the chart sets."""
    form, values = "", ""
    for near, piece in _with_near(leaf):
        if isinstance(piece, str):
            form += piece.replace("%", "%%")
        else:
            form += "%v"
            values += f" ({_value(piece, contents, near)})"
    return f"{{{{ printf {quoted(form)}{values} | quote }}}}"


def has_settings(leaf: Joined) -> bool:
    """Whether a user of the chart decides a part of the text."""
    return any(isinstance(piece, Setting) for piece in leaf.pieces)


def digests(tree: object, contents: Contents) -> None:
    """Give every text that a digest is made of its name."""
    if isinstance(tree, dict):
        for value in tree.values():
            digests(value, contents)
    elif isinstance(tree, list):
        for value in tree:
            digests(value, contents)
    elif isinstance(tree, Joined):
        for near, piece in _with_near(tree):
            if isinstance(piece, Digest):
                digests(piece.text, contents)
                contents.name(_joined(piece), near)
    elif isinstance(tree, Digest):
        digests(tree.text, contents)
        contents.name(_joined(tree), "")


def _with_near(leaf: Joined) -> list[tuple[str, str | Scope | Setting | Digest]]:
    """Each piece after the plain text before it."""
    found, near = [], ""
    for piece in leaf.pieces:
        found.append((near, piece))
        near = near + piece if isinstance(piece, str) else ""
    return found


def _value(leaf: Scope | Setting | Digest | Joined, contents: Contents, near: str) -> str:
    """An expression for the text of a leaf."""
    if isinstance(leaf, Scope):
        return {
            Scope.PREFIX: f'include "{contents.chart}.fullname" .',
            Scope.NAMESPACE: ".Release.Namespace",
            Scope.MANAGER: ".Release.Service",
        }[leaf]
    if isinstance(leaf, Setting):
        if isinstance(leaf.default, dict | list):
            return f"{path(leaf)} | toJson"
        return f"{path(leaf)} | int64" if _is_whole(leaf.default) else path(leaf)
    if isinstance(leaf, Digest):
        name = contents.name(_joined(leaf), near)
        return f'include "{name}" . | sha256sum | trunc {DIGEST_LENGTH}'
    raise TypeError(leaf)


def _joined(leaf: Digest) -> Joined:
    return leaf.text if isinstance(leaf.text, Joined) else Joined((leaf.text,))


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
