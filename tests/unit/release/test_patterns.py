"""Patterns, compared with git's own interpretation."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lapwing.release.patterns import matches

PATTERNS = [
    "docs/**",
    "*.md",
    ".gitignore",
    "/TODO",
    "a/*.txt",
    "**/notes/*",
    "docs/",
    "a?c",
    "a/**/z",
]
PATHS = ["docs/a", "docs/a/b.c", "x/docs/a", "README.md", "a/b/c.md", ".gitignore", "x/.gitignore",
         "TODO", "x/TODO", "a/b.txt", "a/b/c.txt", "notes/x", "q/notes/x", "abc", "x/abc", "a/z",
         "a/b/c/z", "md", "docs.md/x"]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_match_as_in_git(pattern: str, tmp_path: Path) -> None:
    """`git check-ignore` names a file for a folder above it, too, so each is asked as a file."""
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / ".git" / "info" / "exclude").write_text(pattern + "\n")
    asked = "\0".join(PATHS).encode()
    said = subprocess.run(
        ["git", "-C", str(tmp_path), "check-ignore", "--no-index", "--stdin", "-z"],
        input=asked, capture_output=True, check=False,
    ).stdout  # fmt: skip
    ignored = set(filter(None, said.decode().split("\0")))
    ours = {path for path in PATHS if matches(path, pattern)}
    # git also ignores what is in a folder of that name, which no document pattern means.
    assert ours <= ignored
    assert {p for p in ignored - ours if not _in_a_folder(p, pattern)} == set()


def _in_a_folder(path: str, pattern: str) -> bool:
    above = Path(path).parents
    return any(matches(str(folder), pattern) for folder in above if str(folder) != ".")
