"""Envoy's files of tests/golden/proxy.

Each folder has `given.json` (clusters and hosts as the agent tells them) and the files that Envoy
gets. LAPWING_GOLDEN_WRITE=1 writes these again; read the difference. That Envoy takes them is
shown in tests/integration/proxy.
"""

from __future__ import annotations

import os

import pytest

from tests.unit.agent.proxy.golden import CASES, FOLDER, files, given, shown

WRITE = bool(os.environ.get("LAPWING_GOLDEN_WRITE"))


@pytest.mark.parametrize("case", sorted(p.name for p in CASES.iterdir()))
def test_files(case: str) -> None:
    made = {name: shown(content) for name, content in files(given(case), FOLDER).items()}
    folder = CASES / case
    if WRITE:
        for old in folder.glob("*.json"):
            if old.name != "given.json":
                old.unlink()
        for name, text in made.items():
            (folder / name).write_text(text)
    expected = {p.name: p.read_text() for p in folder.glob("*.json") if p.name != "given.json"}
    assert made == expected
