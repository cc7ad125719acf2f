"""The generated pages are up to date."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from docs.generate import cli, documents, json_output, layers, pictures

from lapwing.cli.main import VERBS
from lapwing.cli.main import cli as lapwing
from tests.json_output import NAMES, validate


def test_command_line_reference_matches_commands() -> None:
    assert cli.PAGE.read_text() == cli.page(), "run `make docs`"


def test_package_table_matches_import_contract() -> None:
    assert layers.PAGE.read_text() == layers.page(), "run `make docs`"


def test_json_reference_and_schemas_match_the_structs() -> None:
    made = json_output.files()
    assert {path: path.read_text() for path in made} == made, "run `make docs`"


def test_architecture_picture_matches_flow() -> None:
    assert pictures.FILE.read_text() == pictures.picture(), "run `make docs`"


@pytest.mark.parametrize("folder", documents.FOLDERS, ids=lambda folder: folder.name)
def test_committed_document_is_what_design_writes(folder: Path) -> None:
    text = (folder / documents.NAME).read_text()
    assert text == documents.document(folder), "run `make docs`"


def commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    """A command with its name, and all below it."""
    yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for inner in command.list_commands(context):
            found = command.get_command(context, inner)
            assert found is not None
            yield from commands(found, f"{name} {inner}")


def test_every_command_with_json_output_has_a_schema() -> None:
    context = click.Context(lapwing)
    found = set()
    for verb in VERBS:
        root = lapwing.get_command(context, verb)
        assert root is not None
        for name, command in commands(root, verb):
            for option in command.params:
                if option.name == "output" and "json" in getattr(option.type, "choices", ()):
                    found.add(name)
                if option.name == "every":
                    found.add(f"{name} --all")
    assert found == set(NAMES)


def test_undocumented_key_is_an_error() -> None:
    validate("image list", {"repository": "r", "tags": []})
    with pytest.raises(Exception, match="more"):
        validate("image list", {"repository": "r", "tags": [], "more": 1})
