"""The example's own tests, with what its lock files name."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.example.conftest import EXAMPLE, run

pytestmark = [pytest.mark.xdist_group("example"), pytest.mark.timeout(900)]


def test_the_tests_of_the_api_pass(api_python: Path) -> None:
    run([api_python, "-m", "pytest", "-p", "no:cacheprovider"], cwd=EXAMPLE / "api")


def test_the_tests_of_the_page_pass(web_source: Path) -> None:
    run(["npm", "test"], cwd=web_source)
