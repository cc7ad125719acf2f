"""The generated pages are up to date."""

from __future__ import annotations

from docs.generate import cli, layers


def test_command_line_reference_matches_commands() -> None:
    assert cli.PAGE.read_text() == cli.page(), "run `make docs`"


def test_package_table_matches_import_contract() -> None:
    assert layers.PAGE.read_text() == layers.page(), "run `make docs`"
