"""`env_file`: the variables of dotenv files, which become part of `env` of a service.

They are read when a stack is loaded for an environment, so that everything later, on a machine and
on Kubernetes, finds them in `env`. Values that look like secrets are refused. Problems show
the line number, never its text.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lapwing.errors import Location, Problem, StackFileError
from lapwing.stack import source
from lapwing.stack.fields import VARIABLE
from lapwing.stack.source import KeyPath
from lapwing.system.secret_values import holds_secret

if TYPE_CHECKING:
    from lapwing.stack.environment import Environment
    from lapwing.stack.model import Stack

Found = tuple[str, str, Location]
"""A variable, its value, and where it is."""


def add_variables(stack: Stack, settings: Environment, folder: Path) -> Stack:
    """Return the stack with the variables of its files in `folder`. Raises StackFileError."""
    from lapwing.stack.rules import RULES

    if not any(service.env_file for service in stack.services.values()):
        return stack
    problems: list[Problem] = []
    services = dict(stack.services)
    places: dict[KeyPath, Location] = {}
    for name, service in services.items():
        variables: dict[str, str] = {}
        for file in service.env_file:
            for variable, value, where in _read(folder / file, problems):
                if variable not in service.env:
                    variables[variable] = value
                    places["services", name, "env", variable] = where
        changed = {"env": {**variables, **service.env}}
        services[name] = service.model_copy(update=changed)
    changed_stack = stack.model_copy(update={"services": services})
    for rule in RULES:
        for violation in rule(changed_stack, settings):
            if violation.path in places:
                where = places[violation.path]
                problems.append(Problem(violation.message, where, violation.hint))
    if problems:
        raise StackFileError(list(dict.fromkeys(problems)))
    return changed_stack


def _read(path: Path, problems: list[Problem]) -> Iterator[Found]:
    """Yield the variables of a file; append what is wrong to `problems`."""
    from dotenv.parser import parse_stream

    try:
        text = source.read_text(path, "Create it, or remove it from `env_file`.")
    except StackFileError as error:
        for problem in error.problems:
            where = Location(path, problem.where.line)
            problems.append(Problem(problem.message, where, problem.hint))
        return
    # python-dotenv counts a line that ends in `\r\n` twice.
    for binding in parse_stream(io.StringIO(text.replace("\r\n", "\n"))):
        written = binding.original.string
        blank = len(written) - len(written.lstrip())
        where = Location(path, binding.original.line + written.count("\n", 0, blank))
        name, value = binding.key, binding.value
        if binding.error or (name is not None and not re.fullmatch(VARIABLE, name)):
            problem = Problem("This line is not `NAME=value`.", where)
        elif name is None:
            continue
        elif value is None:
            hint = "Variables of your shell are not passed on: write `NAME=value`, or remove it."
            problem = Problem(f"`{name}` has no value.", where, hint)
        elif holds_secret(name, value):
            hint = (
                f"Move it to `secrets` of the service (`lapwing secret set {name}`). If it is not "
                "secret, move it to `env` in the stack file."
            )
            problem = Problem(f"`{name}` looks like a secret.", where, hint)
        else:
            yield name, value, where
            continue
        problems.append(problem)
