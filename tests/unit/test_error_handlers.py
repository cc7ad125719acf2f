"""Handlers of system errors in the source: each can be reached, and none prints "None"."""

from __future__ import annotations

import ast
import builtins
import inspect
from collections.abc import Iterator
from pathlib import Path

import lapwing

SOURCE = Path(lapwing.__file__).parent


def nodes(kind: type[ast.AST]) -> Iterator[tuple[str, ast.AST]]:
    """Yield the nodes of a kind in all modules, each with its file and line."""
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, kind):
                line = getattr(node, "lineno", 0)
                yield f"{path.relative_to(SOURCE)}:{line}", node


def handled(handler: ast.ExceptHandler) -> list[type[BaseException]]:
    """Return the built-in exceptions that a handler names."""
    kind = handler.type
    names = kind.elts if isinstance(kind, ast.Tuple) else [kind] if kind else []
    found = [getattr(builtins, each.id, None) for each in names if isinstance(each, ast.Name)]
    return [each for each in found if inspect.isclass(each)]


def test_no_handler_is_hidden_by_one_before_it() -> None:
    hidden = []
    for place, node in nodes(ast.Try):
        before: tuple[type[BaseException], ...] = ()
        assert isinstance(node, ast.Try)
        for handler in node.handlers:
            hidden += [place for each in handled(handler) if issubclass(each, before)]
            before += tuple(handled(handler))
    assert hidden == []


def test_system_error_without_a_number_is_printed() -> None:
    """`strerror` is None for a TimeoutError, and for errors that libraries raise with a text."""
    bare = [
        place
        for place, node in nodes(ast.FormattedValue)
        if isinstance(node, ast.FormattedValue)
        and isinstance(node.value, ast.Attribute)
        and node.value.attr == "strerror"
    ]
    assert bare == []
