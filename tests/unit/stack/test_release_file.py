"""Release files: `lapwing-release.yaml` of a project without a stack file."""

from __future__ import annotations

from pathlib import Path

import pytest

from lapwing.errors import StackFileError
from lapwing.stack.project import RELEASE_FILE, read


def refused(folder: Path, text: str) -> list[str]:
    """Return the problems with their positions and hints."""
    path = folder / RELEASE_FILE
    path.write_text(text)
    with pytest.raises(StackFileError) as caught:
        read(path)
    found = caught.value.problems
    return [f"{p.where.line}:{p.where.column}: {p.message} {p.hint or ''}".strip() for p in found]


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "\n\n"])
def test_hint_for_an_empty_file_names_its_first_key(tmp_path: Path, text: str) -> None:
    expected = ["None:None: The file is empty. It starts with `project: NAME`."]
    assert refused(tmp_path, text) == expected


def test_list_is_refused(tmp_path: Path) -> None:
    expected = ["1:1: The file must be a mapping. It starts with `project: NAME`."]
    assert refused(tmp_path, "- project\n") == expected


def test_missing_folder_of_a_project_is_refused(tmp_path: Path) -> None:
    (tmp_path / "services").mkdir()
    (tmp_path / "lib").touch()
    projects = (
        "{api: {path: service}, web: {path: services, include: [lib, libs]}, old: {path: lib}}"
    )
    assert refused(tmp_path, f"project: shop\nrelease:\n  projects: {projects}\n") == [
        "3:26: The folder 'service' does not exist. Did you mean `services`?",
        "3:73: 'libs' does not exist. Did you mean `lib`?",
        "3:93: The folder 'lib' does not exist. Did you mean `lib`?",
    ]


def test_branches_of_the_same_name_or_versions_are_refused(tmp_path: Path) -> None:
    branches = "[main, {name: a, prerelease: rc}, {name: b, prerelease: rc}, main]"
    assert refused(tmp_path, f"project: shop\nrelease:\n  branches: {branches}\n") == [
        "3:69: `b` and `a` release the same versions. Set another `prerelease` for one of them.",
        "3:74: The branch `main` is listed twice. Remove one of the two.",
    ]
