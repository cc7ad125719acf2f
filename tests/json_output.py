"""What commands print with `--output json` is what docs/reference/json.md says.

`validate` checks a document against the schema of its command, strictly: a key that the schema does
not name is an error here, so no key is printed that is not documented. tests/conftest.py does so
for each command that a test runs in its own process, and `Installation.json` for all others.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import Any

import click
import jsonschema
import pytest
from docs.generate.json_output import OUTPUTS, schema

from lapwing.cli.output import Printer

NAMES = {command: name for name, output in OUTPUTS.items() for command in output.commands}


@functools.cache
def validator(name: str) -> jsonschema.Draft202012Validator:
    """The strict validator of a schema."""
    found = schema(name)
    for part in found["$defs"].values():
        if "properties" in part:
            part["additionalProperties"] = False
    return jsonschema.Draft202012Validator(found)


def validate(command: str, document: Any) -> None:
    """Validate what a command such as `image copy` printed."""
    is_error = isinstance(document, dict) and set(document) == {"error"}
    validator("error" if is_error else NAMES[command]).validate(document)


def command_of(arguments: Sequence[str]) -> str:
    """Return the command that arguments name, such as `image copy`."""
    return next(
        name
        for start in range(len(arguments))
        for end in (start + 2, start + 1)
        if (name := " ".join(arguments[start:end])) in NAMES
    )


def validate_all(patch: pytest.MonkeyPatch) -> None:
    """Validate every document that a command of this process prints."""
    printed = Printer.json

    def checked(printer: Printer, value: Any) -> None:
        context = click.get_current_context(silent=True)
        if context is not None:
            command = context.command_path.partition(" ")[2]
            command += " --all" * bool(context.params.get("every"))
            validate(command, json.loads(json.dumps(value)))
        printed(printer, value)

    patch.setattr(Printer, "json", checked)
