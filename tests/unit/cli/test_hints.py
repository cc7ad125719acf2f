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


def parsed(line: str) -> tuple[click.Command, list[str]]:
    """Return the command that a line runs and its arguments; an unknown verb is an argument."""
    words = line.split()[1:]
    while words[:1] == ["-C"]:
        words = words[2:]
    command: click.Command = cli
    context = click.Context(cli, info_name="lapwing")
    while isinstance(command, click.Group) and words:
        known = command.get_command(context, words[0])
        if known is None:
            break
        command, words = known, words[1:]
    return command, words


def fault(line: str) -> str | None:
    """Return why a command line is invalid: an unknown verb or option; None if it is valid."""
    command, words = parsed(line)
    if isinstance(command, click.Group) and words and words[0][0].islower():
        return f"no command {words[0]}"
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


NO_ENVIRONMENT = {
    "build/": "a builder knows no environment",
    "cli/init.py": "the new stack runs on this machine first",
    "cost/": "the text is about the command",
    "design/": "documents describe the command",
    "review/": "a finding is about every environment",
    "registry/": "a registry has no environments",
    "stack/": "the stack file has all environments",
}
"""Packages and modules whose commands name no environment: why."""
VERB_ONLY = {
    ("agent/daemon.py", "lapwing rollback"): "of any environment, on a full disk",
    ("agent/daemon.py", "lapwing down"): "of any environment, on a full disk",
    ("agent/desired_watcher.py", "lapwing doctor --repair"): "-e asks another machine",
    ("agent/proxy/sockets.py", "lapwing open"): "names an option",
    ("cli/backup.py", "lapwing backup VALUE"): "names an action",
    ("cli/cost.py", "lapwing diagram cost -o FILE.png"): "help of a command",
    ("cli/deploy.py", "lapwing promote"): "help of an option",
    ("cli/diagram.py", "lapwing cost"): "help of a command",
    ("cli/doctor.py", "lapwing doctor"): "the environment was the mistake",
    ("cli/main.py", "lapwing doctor"): "the fault is of this machine",
    ("cli/maintenance.py", "lapwing maintenance on"): "names an action",
    ("cli/maintenance.py", "lapwing maintenance"): "is not available there",
    ("cli/present.py", "lapwing up"): "nothing was deployed yet",
    ("cli/rollback.py", "lapwing history"): "help of an option",
    ("cli/run.py", "lapwing run"): "is not available there",
    ("commands/ci_pipeline.py", "lapwing ci init --force"): "chooses the environment",
    ("commands/ship.py", "lapwing ship"): "is not available there",
    ("desired/repository.py", "lapwing doctor"): "-e asks another machine",
    ("desired/repository.py", "lapwing doctor --repair"): "-e asks another machine",
}
"""Commands without an environment that are no next step for one, by module: why."""


def without_docstrings(tree: ast.Module) -> ast.Module:
    """Remove the docstrings and the strings that document an attribute."""
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            body[:] = [
                each
                for each in body
                if not (isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant))
            ]
    return tree


def without_environment(source: str) -> list[str]:
    """List the commands of a module's messages that act on `local` because -e is missing."""
    found = []
    for text in texts(without_docstrings(ast.parse(source))):
        for line in COMMAND.findall(text):
            command, words = parsed(" ".join(re.sub(r"(?<=[a-z])VALUE", " -e VALUE", line).split()))
            takes = any("-e" in p.opts for p in command.params)
            if takes and not {"-e", "--all"} & set(words):
                found.append(" ".join(line.split()))
    return found


def test_commands_of_messages_name_the_environment() -> None:
    found = {
        (path.relative_to(SOURCE).as_posix(), line)
        for path in SOURCE.rglob("*.py")
        for line in without_environment(path.read_text(encoding="utf-8"))
    }
    assert {f for f in found if not f[0].startswith(tuple(NO_ENVIRONMENT))} == set(VERB_ONLY)


def test_command_without_environment_is_reported() -> None:
    source = (
        'def f():\n    "Run `lapwing up`."\n    return f"`lapwing logs {x}`, `lapwing up -e {y}`"'
    )
    assert without_environment(source) == ["lapwing logs VALUE"]
    assert without_environment("hint = f'`lapwing up{option}` or `lapwing agent start`'") == []
