"""Commands in messages and hints: each `lapwing ...` in the source exists, with its options."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import lapwing
from lapwing.cli.main import cli

SOURCE = Path(lapwing.__file__).parent
COMMAND = re.compile(r"`(lapwing(?: [^`]*)?)`")
GLOBAL = {"-C", "--help", "-h", "--version"}


def texts(tree: ast.AST) -> Iterator[str]:
    """Yield the texts of a module, with `VALUE` for the fields of f-strings."""
    inner: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            inner |= {id(value) for value in node.values}
            parts = (v.value if isinstance(v, ast.Constant) else "VALUE" for v in node.values)
            yield "".join(map(str, parts))
        elif (
            isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner
        ):
            yield node.value


def named_commands() -> list[str]:
    """List the commands that the source names."""
    found: set[str] = set()
    for path in SOURCE.rglob("*.py"):
        for text in texts(ast.parse(path.read_text(encoding="utf-8"))):
            # An inserted option follows its verb without a space; an inserted verb is not known.
            whole = re.sub(r"(?<=[a-z])VALUE", "", text)
            found |= {" ".join(command.split()) for command in COMMAND.findall(whole)}
    return sorted(line for line in found if not line.startswith("lapwing VALUE"))


def fault(line: str) -> str | None:
    """Return why a command line is invalid: an unknown verb or option; None if it is valid."""
    words = line.split()[1:]
    while words[:1] == ["-C"]:
        words = words[2:]
    command: click.Command = cli
    context = click.Context(cli, info_name="lapwing")
    while isinstance(command, click.Group) and words and words[0][0].islower():
        known = command.get_command(context, words[0])
        if known is None:
            return f"no command {words[0]}"
        command, words = known, words[1:]
    options = {name for p in command.params for name in (*p.opts, *p.secondary_opts)} | GLOBAL
    end = words.index("--") if "--" in words else len(words)
    given = [word.strip("[]().,").partition("=")[0] for word in words[:end]]
    unknown = [word for word in given if word.startswith("-") and word not in options]
    return f"unknown options {unknown}" if unknown else None


def test_named_commands_are_found() -> None:
    assert len(named_commands()) > 50


@pytest.mark.parametrize("line", named_commands())
def test_command_in_a_message_exists(line: str) -> None:
    assert fault(line) is None


def test_unknown_verb_and_option_are_reported() -> None:
    assert fault("lapwing destroy -e production") == "no command destroy"
    assert fault("lapwing deploy --nope") == "unknown options ['--nope']"
