"""Valid and invalid stack files of tests/golden/stack.

`invalid/<case>` has `lapwing.yaml` and `expected.txt`: every problem with its position, the text
there, and the hint. `valid/<case>` has `lapwing.yaml` and `expected.json`: the stack in each
environment. LAPWING_GOLDEN_WRITE=1 rewrites the expectations; review the diff.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import jsonschema
import pytest

from lapwing.errors import Problem, StackFileError
from lapwing.stack import source
from lapwing.stack.load import environments, load
from lapwing.stack.schema import json_schema

CASES = Path(__file__).parents[2] / "golden/stack"
WRITE = bool(os.environ.get("LAPWING_GOLDEN_WRITE"))


def cases(kind: str) -> list[str]:
    """List the cases: folder names."""
    return sorted(p.name for p in (CASES / kind).iterdir())


@pytest.mark.parametrize("case", cases("invalid"))
def test_invalid_file_reports_every_problem_with_position(case: str, tmp_path: Path) -> None:
    folder = shutil.copytree(CASES / "invalid" / case, tmp_path / case)
    with pytest.raises(StackFileError) as caught:
        environments(folder / "lapwing.yaml")
    text = (folder / "lapwing.yaml").read_text()
    lines = text.splitlines()
    found = "".join(_format(problem, lines) for problem in caught.value.problems)
    _compare(CASES / "invalid" / case / "expected.txt", found)
    assert not re.search(r"pydantic|Input should|Value error|validator|NoneType", found)


@pytest.mark.parametrize("case", cases("valid"))
def test_valid_file_loads_in_each_environment(case: str, tmp_path: Path) -> None:
    folder = shutil.copytree(CASES / "valid" / case, tmp_path / case)
    path = folder / "lapwing.yaml"
    jsonschema.validate(source.read(path).data, json_schema())
    names = ["local", *(n for n in load(path).stack.environments if n != "local")]
    meaning = {
        name: {
            "settings": loaded.settings.model_dump(mode="json", exclude_defaults=True),
            **loaded.stack.model_dump(mode="json", exclude_defaults=True, exclude={"environments"}),
        }
        for name in names
        for loaded in [load(path, name)]
    }
    _compare(CASES / "valid" / case / "expected.json", json.dumps(meaning, indent=2) + "\n")


def test_schema_refuses_unknown_keys() -> None:
    validator = jsonschema.Draft202012Validator(json_schema())
    for case in ("unknown-key", "unknown-key-in-overlay", "unknown-nested-key"):
        read = source.read(CASES / "invalid" / case / "lapwing.yaml")
        assert not validator.is_valid(read.data), case


def _format(problem: Problem, lines: list[str]) -> str:
    where = problem.where
    text = f"{where.line or '-'}:{where.column or '-'}: {problem.message}\n"
    if where.line and where.column and where.line <= len(lines):
        text += f"    {lines[where.line - 1]}\n    {' ' * (where.column - 1)}^\n"
    return text + (f"  {problem.hint}\n" if problem.hint else "")


def _compare(expected: Path, text: str) -> None:
    if WRITE:
        expected.write_text(text)
    assert text == expected.read_text()
