"""Write object trees as Helm templates.

The renderer builds one tree; `lapwing render` replaces each typed leaf by its default, a chart
writes each as an expression. The same emitter writes the YAML around them, with every leaf in its
place, so no placeholder is replaced in rendered text. How a leaf is written depends on its place:

    a name, or text of names      as it is, since names need no quotes:  `{{ include ... }}-api`
    a number or a boolean         as it is
    text that a user sets         through `quote`
    a mapping, a list or null     through `toYaml`, on separate lines
    a long text                   a literal block; one whose digest is used, by its named template

All other text is escaped, so that Helm never reads it as an expression. With default values a
template gives what the renderer wrote: the tests ask Helm.

Helm reads every number of values.yaml as a float and would print a large one as `1e+06`, hence
`int64`. Sources: Helm documentation, "Chart Template Guide" (functions, named templates) and "Chart
Best Practices".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from lapwing.render.kubernetes import emit
from lapwing.render.kubernetes.emit import Value
from lapwing.render.kubernetes.setting import (
    DIGEST_LENGTH,
    Digest,
    Extra,
    Joined,
    Scope,
    Setting,
    Tree,
    text,
)

_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SAMPLES = {scope: "x" for scope in Scope}


class Contents:
    """The named templates of texts that have a digest.

    Each text is written once, in `_helpers.tpl`; its digest and the object that holds it include
    it.
    """

    def __init__(self, chart: str) -> None:
        """Start without any; `chart` is what their names begin with."""
        self.chart = chart
        self._named: dict[str, tuple[Joined, str]] = {}

    def add(self, tree: Tree) -> None:
        """Name every text in a tree that has a digest, after the plain text before the digest."""
        if isinstance(tree, dict | list):
            for value in tree.values() if isinstance(tree, dict) else tree:
                self.add(value)
        elif isinstance(tree, Joined):
            before = ""
            for piece in tree.pieces:
                if isinstance(piece, Digest):
                    self._add_digest(piece, before)
                before = piece if isinstance(piece, str) else ""
        elif isinstance(tree, Digest):
            self._add_digest(tree, "")

    def _add_digest(self, digest: Digest, before: str) -> None:
        self.add(digest.text)
        content = _content(digest)
        if self.find(content) is None:
            words = re.sub(r"[^a-z0-9]+", "-", before).strip("-")
            base = name = f"{self.chart}.content.{words or 'text'}"
            taken = {other for _, other in self._named.values()}
            count = 1
            while name in taken:
                count += 1
                name = f"{base}-{count}"
            self._named[repr(content)] = (content, name)

    def find(self, content: Joined) -> str | None:
        """Return the template of a text, if it has one.

        Defaults may be mappings, which have no hash, so texts are compared by their `repr`.
        """
        found = self._named.get(repr(content))
        return found[1] if found else None

    def __iter__(self) -> Iterator[tuple[Joined, str]]:
        """Yield each text and the name of its template."""
        return iter(self._named.values())


def document(tree: dict[str, Any], contents: Contents) -> str:
    """Write one object as a template."""
    found = [
        _value(piece, contents) if isinstance(piece, Value) else literal(piece)
        for piece in emit.pieces(tree)
    ]
    return "".join(found)


def inline(content: Joined, contents: Contents) -> str:
    """Write text as it is, not quoted."""
    return "".join(_expressions(content, contents, literal))


def literal(plain: str) -> str:
    """Escape text outside of expressions.

    What would open an expression is written by one. So is a brace at the end, which might meet an
    expression behind it.
    """
    if plain.endswith("{"):
        return literal(plain[:-1]) + '{{ "{" }}'
    return plain.replace("{{", '{{ "{{" }}')


def _value(value: Value, contents: Contents) -> str:
    """Write a leaf as the value of a key or list item."""
    leaf = value.leaf
    if isinstance(leaf, Extra):
        lines = f"{{{{ toYaml . | nindent {value.indent} }}}}"
        return f"{{{{- with {_extra(leaf)} }}}}{lines}{{{{- end }}}}"
    if isinstance(leaf, Joined):
        return _joined(leaf, value.indent, contents)
    if not isinstance(leaf, Setting):
        return f"{{{{ {_expression(leaf, contents)} | quote }}}}"
    if isinstance(leaf.default, str):
        return f"{{{{ {_path(leaf)} | quote }}}}"
    if isinstance(leaf.default, bool | int):
        return f"{{{{ {_expression(leaf, contents)} }}}}"
    if "\\n" in json.dumps(leaf.default):
        # `toYaml` and Helm itself cut line breaks at the end of a text or of a document.
        return f"{{{{ {_path(leaf)} | toJson }}}}"
    return f"{{{{- toYaml ({_path(leaf)}) | nindent {value.indent} }}}}"


def _extra(leaf: Extra) -> str:
    """Write the fields that are added: those of one value merged over another, if there is one."""
    if leaf.over is None:
        return _path(leaf.setting)
    return f"mergeOverwrite (deepCopy ({_path(leaf.over)})) ({_path(leaf.setting)})"


def _joined(leaf: Joined, indent: int, contents: Contents) -> str:
    if all(isinstance(piece, str) for piece in leaf.pieces):
        return literal(emit.scalar("".join(str(piece) for piece in leaf.pieces)))
    sample = text(leaf, _SAMPLES)
    is_block = "\n" in sample and emit.is_block(sample)
    named = contents.find(leaf)
    if named is not None and is_block:
        return f'| {{{{- include "{named}" . | nindent {indent} }}}}'
    if named is not None:
        return f'{{{{ include "{named}" . | quote }}}}'
    if any(isinstance(piece, Setting) for piece in leaf.pieces):
        return _printed(leaf, contents)
    if is_block:
        return "|\n" + emit.indented(inline(leaf, contents), indent).removesuffix("\n")
    if _is_name(leaf) and emit.is_plain(sample):
        return inline(leaf, contents)
    found = _expressions(leaf, contents, lambda plain: literal(emit.quoted(plain)[1:-1]))
    return f'"{"".join(found)}"'


def _is_name(leaf: Joined) -> bool:
    """Report whether YAML reads it as text without quotes, whatever the release is called.

    A digest alone may look like a number.
    """
    first, second = (*leaf.pieces, "")[:2]
    return first is Scope.PREFIX and re.match(r"-[a-z]", str(second)) is not None


def _expressions(leaf: Joined, contents: Contents, plain: Any) -> Iterator[str]:
    """Yield each piece of a text: plain ones through `plain`, others as expressions."""
    for piece in leaf.pieces:
        is_text = isinstance(piece, str)
        yield plain(piece) if is_text else f"{{{{ {_expression(piece, contents)} }}}}"


def _printed(leaf: Joined, contents: Contents) -> str:
    """Write text as one quoted scalar, whatever a user of the chart sets in it."""
    form, values = "", ""
    for piece in leaf.pieces:
        if isinstance(piece, str):
            form += piece.replace("%", "%%")
        else:
            form += "%v"
            values += f" ({_expression(piece, contents)})"
    return f"{{{{ printf {_constant(form)}{values} | quote }}}}"


def _expression(leaf: Scope | Setting | Digest | Any, contents: Contents) -> str:
    """Write an expression for the text of a leaf."""
    if isinstance(leaf, Scope):
        return {
            Scope.PREFIX: f'include "{contents.chart}.fullname" .',
            Scope.NAMESPACE: ".Release.Namespace",
            Scope.MANAGER: ".Release.Service",
            Scope.CHART: _label('printf "%s-%s" .Chart.Name .Chart.Version'),
            Scope.APP_VERSION: _label(".Chart.AppVersion"),
        }[leaf]
    if isinstance(leaf, Digest):
        name = contents.find(_content(leaf))
        return f'include "{name}" . | sha256sum | trunc {DIGEST_LENGTH}'
    if isinstance(leaf.default, dict | list):
        return f"{_path(leaf)} | toJson"
    is_whole = isinstance(leaf.default, int) and not isinstance(leaf.default, bool)
    return f"{_path(leaf)} | int64" if is_whole else _path(leaf)


def _label(expression: str) -> str:
    """Write an expression as a valid label value: a version may contain `+`, a label may not."""
    return f'{expression} | replace "+" "_" | trunc 63 | trimSuffix "-"'


def _content(digest: Digest) -> Joined:
    return digest.text if isinstance(digest.text, Joined) else Joined((digest.text,))


def check_range(low: Setting, high: Setting) -> str:
    """Write a check that fails if a minimum is larger than its maximum.

    JSON Schema cannot compare two values.
    """
    message = _constant(f"{low.path} is larger than {high.path}")
    larger = f"gt (int64 ({_path(low)})) (int64 ({_path(high)}))"
    return f"{{{{- if {larger} }}}}{{{{ fail {message} }}}}{{{{ end -}}}}"


def _path(setting: Setting) -> str:
    """Write where a value is: `.Values.api.port`, or `index` if a key is no Go identifier."""
    keys = setting.path.split(".")
    if all(_FIELD.fullmatch(key) for key in keys):
        return f".Values.{setting.path}"
    return "index .Values " + " ".join(_constant(key) for key in keys)


def _constant(plain: str) -> str:
    """Write a text constant of the template language: JSON's escapes are also Go's."""
    return json.dumps(plain, ensure_ascii=False)
