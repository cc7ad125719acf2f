"""Which Node a source requires, and whether a version satisfies that."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lapwing.build import node_runtime
from lapwing.errors import BuildError
from lapwing.settings import Settings


@pytest.mark.parametrize(
    ("wanted", "answer"),
    [
        ("*", True), ("", True), ("20", True), ("20.x", True), ("v20.20.2", True),
        (">=18", True), (">= 18.0.0", True), ("^20.1", True), ("~20.20.0", True),
        ("18 || 20 || 22", True), (">=18 <21", True), ("18 - 20", True), ("18.x - 22.x", True),
        ("lts/*", True), ("=20.20.2", True), ("<=20", True),
        ("22", False), (">=22", False), ("^18", False), ("~20.19.0", False), ("^20.21.0", False),
        ("16 || 18", False), (">=18 <20", False), (">20", False), ("<20.20", False),
        ("20.20.1", False), ("18 - 19", False),
    ],
)  # fmt: skip
def test_ranges_of_versions(wanted: str, answer: bool) -> None:
    assert node_runtime.satisfies("v20.20.2", wanted) is answer


def test_versions_that_a_source_requires() -> None:
    files = {".nvmrc": "# comment\nv22.11.0\n", ".node-version": "lts/iron\n"}
    assert node_runtime.required({"engines": {"node": ">=20"}}, files) == {
        "engines.node of package.json": ">=20",
        ".nvmrc": "22",
        ".node-version": "20",
    }
    assert node_runtime.required({"engines": ["node >= 20"]}, {}) == {}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("lts/jod\n", "22"), ("lts/Iron", "20"), ("v24", "24"), ("node", None), ("", None),
        ("lts/*", "18 || 20 || 22 || 24 || 26"), ("lts/-1", "18 || 20 || 22 || 24 || 26"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", node_runtime.VERSION_FILES)
def test_aliases_of_versions(name: str, text: str, wanted: str | None) -> None:
    assert node_runtime.required({}, {name: text}) == ({name: wanted} if wanted else {})


def test_unknown_alias_of_a_version_is_refused() -> None:
    with pytest.raises(BuildError, match=r"'lts/nosuch' in \.nvmrc"):
        node_runtime.required({}, {".nvmrc": "lts/nosuch"})


def test_node_is_the_one_of_the_path_if_it_satisfies_the_source(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "node"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho v20.20.2 $0\n")
    program.chmod(0o755)
    shutil.copy(program, program.parent / "npm")
    settings = Settings(home=tmp_path, environ={"PATH": str(program.parent)})
    found = node_runtime.choose(settings, {".nvmrc": "20"})
    assert found is not None
    assert found.version == "v20.20.2"
    assert node_runtime.choose(settings, {".nvmrc": "24"}) is None
    with pytest.raises(BuildError, match=r"\.nvmrc requires Node 22\. On the PATH: v20\.20\.2; "):
        node_runtime.choose(settings, {"engines.node of package.json": ">=18", ".nvmrc": "22"})
