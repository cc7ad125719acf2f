"""List the sentences of the source: what users read, and what maintainers read.

`python -m docs.generate.sentences [KIND ...]` prints them with file and line, so that somebody can
read the wording as a whole. A test holds them to the words that `BANNED` forbids.

A sentence is a string literal of two words or more, an f-string with its fields as `{}`, a
docstring, or a comment. Its kind follows from where it is used: `help` of a command or an option,
`error` for an argument of a LapwingError (or of its subclasses and `Problem`), `output` for what is
printed, `text` for every other literal, `docstring`, `comment`.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src/lapwing"
KINDS = ("help", "error", "output", "text", "docstring", "comment")
PRINTING = {"say", "data", "echo", "secho", "progress", "working", "confirm", "prompt", "table"}

BANNED = {
    "cannot be had": "is not available",
    "to be had": "available",
    "is none": "is missing",
    "if none": "if not",
    "nobody": "no user, no process",
    "made up": "generated",
    "make up": "generate",
    "is right": "is valid",
    "are right": "are valid",
    "mend": "repair",
    "mended": "repaired",
    "on its way": "in progress",
    "stands on": "runs on",
    "goes on without": "continues in the background",
    "of its own": "its own",
    "gone on with": "continued",
    "fare badly": "fails",
    "fares badly": "fails",
    "way in": "ingress",
    "way there": "path",
    "is away": "is unreachable",
    "are away": "are unreachable",
    "it is said": "it is set",
    "is told": "is reported",
    "are told": "are reported",
    "lives": "runs",
    "living": "running",
    "as things are": "",
    "somebody": "a user",
    "stranger": "unmanaged",
    "strangers": "unmanaged",
    "whoever": "",
}
"""What is not written, and the term to use. Matched as whole words, upper and lower case alike."""

IMPERATIVES = re.compile(r"^(Tell|Tells|Lead|Leads|Mend|Give a|Bring|Nominate|Hear)\b")
"""Verbs that no help text or docstring begins with: show, report, forward, repair, switch."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """A text with its kind and place; `package` is the folder or module below src/lapwing."""

    file: Path
    line: int
    kind: str
    text: str

    @property
    def package(self) -> str:
        """The package that owns the text."""
        return self.file.relative_to(SOURCE).parts[0]

    def faults(self) -> list[str]:
        """The banned words in the text, each with the term to use."""
        text = " ".join(self.text.split())
        found = [
            f"{phrase!r} (write: {better or 'something else'})"
            for phrase, better in BANNED.items()
            if re.search(
                rf"(?<!there )\b{re.escape(phrase)}\b", text.replace("None", ""), re.IGNORECASE
            )
        ]
        if self.kind in ("help", "docstring") and (match := IMPERATIVES.match(text)):
            found.append(f"{match[0]!r} as the first word")
        return found


def sentences(folder: Path = SOURCE) -> Iterator[Sentence]:
    """Every sentence of the modules below a folder."""
    files = {p: p.read_text(encoding="utf-8") for p in sorted(folder.rglob("*.py"))}
    trees = {p: ast.parse(text) for p, text in files.items()}
    errors = _error_classes(trees.values())
    for path, tree in trees.items():
        visitor = _Visitor(path, errors)
        visitor.visit(tree)
        yield from visitor.found
        for token in tokenize.generate_tokens(io.StringIO(files[path]).readline):
            if token.type == tokenize.COMMENT:
                yield Sentence(path, token.start[0], "comment", token.string.lstrip("# "))


def _error_classes(trees: Iterable[ast.Module]) -> set[str]:
    """The names of LapwingError and of all its subclasses, in any module."""
    bases = {
        node.name: {
            b.attr if isinstance(b, ast.Attribute) else getattr(b, "id", "") for b in node.bases
        }
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    found = {"LapwingError", "ClickException", "UsageError", "BadParameter", "Problem"}
    while more := {name for name, of in bases.items() if of & found} - found:
        found |= more
    return found


class _Visitor(ast.NodeVisitor):
    """Collects the string literals of a module with the kind that their context gives them."""

    def __init__(self, path: Path, errors: set[str]) -> None:
        self.path = path
        self.errors = errors
        self.kind = "text"
        self.found: list[Sentence] = []
        self.docstrings: dict[int, str] = {}

    def add(self, node: ast.expr, text: str, kind: str) -> None:
        if len(text.split()) > 1 and re.search("[a-z]{2}", text):
            self.found.append(Sentence(self.path, node.lineno, kind, text))

    def visit(self, node: ast.AST) -> None:
        """Note which literal below is a docstring, then descend."""
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            is_command = any(
                "command" in ast.unparse(d) or "group" in ast.unparse(d)
                for d in getattr(node, "decorator_list", ())
            )
            kind = "help" if is_command else "docstring"
            for inner in node.body:  # Attribute docstrings too.
                if isinstance(inner, ast.Expr) and isinstance(inner.value, ast.Constant):
                    self.docstrings[id(inner.value)] = kind
        super().visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        name = (
            node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        )
        self.visit(node.func)
        outside = self.kind
        if name in self.errors:
            self.kind = "error"
        elif name in PRINTING:
            self.kind = "output"
        for argument in node.args:
            self.visit(argument)
        for keyword in node.keywords:
            inside = self.kind
            if keyword.arg in ("help", "description", "short_help", "epilog"):
                self.kind = "help"
            elif keyword.arg in ("hint", "detail", "message"):
                self.kind = "error"
            self.visit(keyword.value)
            self.kind = inside
        self.kind = outside

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str):
            self.add(node, node.value, self.docstrings.get(id(node), self.kind))

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        parts = [v.value if isinstance(v, ast.Constant) else "{}" for v in node.values]
        self.add(node, "".join(str(p) for p in parts), self.kind)
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                self.visit(part.value)


def main() -> None:
    """Print the sentences of the kinds that are asked for."""
    parser = argparse.ArgumentParser(prog="python -m docs.generate.sentences")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"One of: {', '.join(KINDS)}.")
    parser.add_argument("--faults", action="store_true", help="Only those with banned words.")
    options = parser.parse_args()
    for sentence in sentences():
        if options.kinds and sentence.kind not in options.kinds:
            continue
        faults = sentence.faults()
        if options.faults and not faults:
            continue
        where = f"{sentence.file.relative_to(ROOT)}:{sentence.line}"
        print(f"{where}: {sentence.kind}: {' '.join(sentence.text.split())}", *faults, sep="\n    ")


if __name__ == "__main__":
    main()
