"""Two stacks in one home, and folders that hold none."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deployed import until
from tests.installation import Installation

from .conftest import NAME, Yard

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("stacks")]


def test_invalid_port_is_reported(tmp_path: Path) -> None:
    where = Installation(tmp_path, LAPWING_PORT="eighty")
    said = where.run("status", status=2).stderr
    assert "LAPWING_PORT is 'eighty', which is not a port number" in said


def test_folder_without_a_stack_file_is_reported(yard: Yard, tmp_path: Path) -> None:
    for verb in ("status", "deploy", "up", "down", "history", "logs", "verify", "check"):
        done = yard.where.run("-C", str(tmp_path), verb, status=2)
        assert "No lapwing.yaml found in" in done.stderr


def test_two_stacks_in_one_home(yard: Yard) -> None:
    yard.good("one of two")
    assert yard.get(host="localhost").text == "one of two"
    other = Yard(yard.where.beside("other"), "other")
    other.stack()
    other.write("two of two")
    other.where.run("up")
    assert other.get().text == "two of two"
    assert yard.get().text == "one of two"
    answer = yard.get(host="localhost")
    assert answer.status_code == 404
    assert "lapwing status" in answer.text
    other.where.run("down")
    until(lambda: yard.get(host="localhost").status_code == 200)
    assert yard.get(host=f"{NAME}.localhost").text == "one of two"
