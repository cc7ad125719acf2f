"""Tests of one group run on one worker: what they share is set up once."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from tests.conftest import group_of

TESTS = Path(__file__).parents[2]
MODULE = """
import os
from pathlib import Path
import pytest
pytestmark = pytest.mark.{mark}("shared")

@pytest.mark.parametrize("number", range(20))
def test_one(number):
    with Path(__file__).with_name("workers").open("a") as log:
        log.write(os.environ["PYTEST_XDIST_WORKER"] + "\\n")
"""


def test_a_group_is_not_split_between_workers(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text((TESTS / "conftest.py").read_text())
    for name in ("first", "second"):
        (tmp_path / f"test_{name}.py").write_text(MODULE.replace("{mark}", "xdist_group"))
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadgroup"]
    options = ["-p", "no:cacheprovider", "--rootdir", str(tmp_path), "-c", "/dev/null"]
    done = subprocess.run(
        [*command, *options, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    workers = (tmp_path / "workers").read_text().split()
    assert len(workers) == 40
    assert len(set(workers)) == 1


def test_every_group_is_one_of_a_whole_module() -> None:
    for module in TESTS.rglob("test_*.py"):
        names = {n.attr for n in ast.walk(ast.parse(module.read_text())) if hasattr(n, "attr")}
        assert ("xdist_group" in names) == (group_of(module) is not None), module
