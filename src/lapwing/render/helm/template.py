"""An object tree as the text of a template.

The tree is written as YAML with a mark in the place of each leaf, by the same emitter as `lapwing
render`; then each mark is replaced by its expression. What replaces it depends on where it stands:

    a name, or text of names      as it is, since names need no quotes:  `{{ include ... }}-api`
    a number or a boolean         as it is
    text that a user sets         through `quote`
    a mapping, a list or null     through `toYaml`, on lines of its own
    a long text                   a literal block; one whose digest is used, by its named template
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lapwing.render.helm import expression
from lapwing.render.helm.expression import Contents
from lapwing.render.kubernetes import emit
from lapwing.render.kubernetes.setting import Digest, Joined, Leaf, Scope, Setting, Tree, text

_NAMES: Mapping[Scope, str] = {scope: "x" for scope in Scope}


def document(tree: dict[str, Any], contents: Contents) -> str:
    """One object as a template. `contents` collects the texts that digests are made of."""
    marks = _Marks(tree, contents)
    return marks.replace(emit.document(marks.marked))


class _Marks:
    """The marks of one object: words that stand nowhere else in it."""

    def __init__(self, tree: dict[str, Any], contents: Contents) -> None:
        self.contents = contents
        self.word = "leaf"
        while self.word in repr(tree):
            self.word += "x"
        self.inline: list[str] = []
        self.lines: list[str] = []
        self.marked = self._mark(tree)

    def replace(self, yaml: str) -> str:
        """The text with an expression for each mark; other text is kept from being one."""
        yaml = re.sub(rf"{{(?={self.word}0mark)", f"{self.word}0brace", expression.plain(yaml))
        found = []
        for line in yaml.split("\n"):
            match = re.search(rf"(?<=\S) {self.word}0line(\d+)q|{self.word}0line(\d+)q", line)
            if match is None:
                found.append(line)
                continue
            head = line[: match.start()]
            begin = len(line) - len(line.lstrip(" -"))
            indent = begin + 2 if head.strip() else begin
            pipe = self.lines[int(match[1] or match[2])]
            gap = " " if head.strip() else ""
            found.append(f"{head}{gap}{{{{- {pipe} | nindent {indent} }}}}")
        yaml = "\n".join(found)
        yaml = yaml.replace(f"{self.word}0brace", '{{ "{" }}')
        return re.sub(rf"{self.word}0mark(\d+)q", lambda m: self.inline[int(m[1])], yaml)

    def _mark(self, tree: Tree) -> Any:
        if isinstance(tree, dict):
            return {key: self._mark(value) for key, value in tree.items()}
        if isinstance(tree, list):
            return [self._mark(value) for value in tree]
        if isinstance(tree, Joined) and len(tree.pieces) == 1 and isinstance(tree.pieces[0], str):
            return self._mark(tree.pieces[0])
        if isinstance(tree, Joined):
            return self._joined(tree)
        if isinstance(tree, Setting):
            return self._setting(tree)
        if isinstance(tree, Scope | Digest):
            return self._token(f"{self._bare(tree)[:-3]} | quote }}}}")
        return tree

    def _setting(self, setting: Setting) -> str:
        value = setting.default
        if isinstance(value, str):
            return self._token(f"{{{{ {expression.path(setting)} | quote }}}}")
        if isinstance(value, bool | int):
            return self._token(self._bare(setting))
        return self._line(f"toYaml ({expression.path(setting)})")

    def _joined(self, leaf: Joined) -> str:
        whole = text(leaf, _NAMES)
        is_block = "\n" in whole and emit.is_block(whole)
        named = self.contents.find(leaf)
        if named is not None:
            call = f'include "{named}" .'
            return self._line(call) + "\n" if is_block else self._token(f"{{{{ {call} | quote }}}}")
        if not is_block and (expression.has_settings(leaf) or not _stays_text(leaf)):
            return self._token(expression.printed(leaf, self.contents))
        near, found = "", ""
        for piece in leaf.pieces:
            found += piece if isinstance(piece, str) else self._token(self._bare(piece, near))
            near = near + piece if isinstance(piece, str) else ""
        return found

    def _bare(self, leaf: Leaf, near: str = "") -> str:
        return expression.inline(leaf, self.contents, near)

    def _token(self, replacement: str) -> str:
        self.inline.append(replacement)
        return f"{self.word}0mark{len(self.inline) - 1}q"

    def _line(self, pipe: str) -> str:
        self.lines.append(pipe)
        return f"{self.word}0line{len(self.lines) - 1}q"


def _stays_text(leaf: Joined) -> bool:
    """Whether YAML takes it for text without quotes, whatever the release is called: a digest alone
    may look like a number."""
    first, second = (*leaf.pieces, "")[:2]
    if first is Scope.PREFIX:
        return isinstance(second, str) and re.match(r"-[a-z]", second) is not None
    return isinstance(first, str) and re.match(r"[A-Za-z]", first) is not None
