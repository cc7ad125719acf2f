"""What `lapwing init` writes for the folders of tests/golden/stack/init.

Each case is `folder/` and the `lapwing.yaml` that is expected for it. LAPWING_GOLDEN_WRITE=1
writes the expectations again.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from lapwing.cli.context import Context
from lapwing.cli.init import command
from lapwing.cli.output import Printer
from lapwing.errors import LapwingError, UsageError
from lapwing.settings import Settings
from lapwing.stack.compose import read
from lapwing.stack.detect import detect, name_from
from lapwing.stack.draft import text
from lapwing.stack.load import load
from lapwing.stack.source import scalar

CASES = Path(__file__).parents[2] / "golden/stack/init"


def init(folder: Path, *arguments: str) -> None:
    """Run the command; what it raises comes through."""
    context = Context(Settings(home=folder / "home"), folder, Printer(color=False))
    CliRunner().invoke(command, list(arguments), obj=context, catch_exceptions=False)


@pytest.mark.parametrize("case", sorted(p.name for p in CASES.iterdir()))
def test_the_draft_is_the_expected_one_and_loads(case: str, tmp_path: Path) -> None:
    folder = tmp_path / case
    shutil.copytree(CASES / case / "folder", folder)
    init(folder)
    written = (folder / "lapwing.yaml").read_text()
    expected = CASES / case / "lapwing.yaml"
    if os.environ.get("LAPWING_GOLDEN_WRITE"):
        expected.write_text(written)
    assert written == expected.read_text()
    load(folder / "lapwing.yaml")


def test_a_file_that_is_there_stays(tmp_path: Path) -> None:
    shutil.copytree(CASES / "flask/folder", tmp_path, dirs_exist_ok=True)
    path = tmp_path / "lapwing.yaml"
    path.write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        init(tmp_path)
    assert path.read_text() == "mine"
    init(tmp_path, "--force")
    assert load(path).stack.services["app"].command == "gunicorn app:app"


def test_a_dangling_link_counts_as_there(tmp_path: Path) -> None:
    shutil.copytree(CASES / "flask/folder", tmp_path, dirs_exist_ok=True)
    (tmp_path / "lapwing.yaml").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError):
        init(tmp_path)


def test_nothing_is_written_where_nothing_is_found(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Nothing was found"):
        init(tmp_path)
    with pytest.raises(LapwingError):
        init(tmp_path, "not-there")
    assert list(tmp_path.iterdir()) == []


def test_damaged_files_are_notes_and_not_failures() -> None:
    found = detect("x", {"package.json": "{", "api/package.json": "[1]", "compose.yaml": "a: ["})
    assert found.services == []
    assert any("compose.yaml" in note for note in found.notes)


@pytest.mark.parametrize(
    "compose",
    ["services: 3", "services: {a: {build: ., depends_on: 5}}", "services: {1: {image: [redis]}}",
     "services: {redis: {image: redis}, b: {environment: 3}}"],
)  # fmt: skip
def test_odd_compose_files_do_no_harm(compose: str) -> None:
    read({"compose.yaml": compose}, [])


def test_values_of_a_compose_file_are_not_taken_over() -> None:
    files = {"compose.yaml": (CASES / "django-and-compose/folder/compose.yaml").read_text()}
    assert "not-a-real-one" not in repr(read(files, []))


@pytest.mark.parametrize(
    "value",
    ["dist", "gunicorn app:app", "a: b", "x #y", "yes: ", "true", "8", "- a", "it's", 'say "a"',
     "@x", "tab\there", "é", "*", "npm start", "a:", "&& b", "uvicorn a:b --port $PORT"],
)  # fmt: skip
def test_text_is_quoted_where_it_has_to_be(value: str) -> None:
    import yaml

    node = yaml.compose(f"key: {text(value)}")
    read_back = node.value[0][1]
    assert scalar(read_back.value, plain=read_back.style is None) == value


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("My Shop", "my-shop"),
        ("2048", "stack"),
        ("a_b", "a-b"),
        ("x" * 60, "x" * 40),
        ("", "stack"),
    ],
)
def test_names_are_made_valid(given: str, name: str) -> None:
    assert name_from(given, "stack") == name
