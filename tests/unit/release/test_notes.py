"""Release notes: their groups, and that commit messages stay plain text."""

from __future__ import annotations

import html
import re

from hypothesis import given
from hypothesis import strategies as st

from lapwing.release.commits import Commit
from lapwing.release.notes import MAX_CHARS, escape, notes
from lapwing.release.policy import Decision, Rules
from lapwing.release.version import Bump, Version


def decided(*messages: str, merge: bool = False) -> Decision:
    parents = ("b", "c") if merge else ("b",)
    commits = tuple(Commit(f"{n:040x}", parents, text) for n, text in enumerate(messages))
    return Decision(Version(1, 0, 0), Bump.PATCH, Version(1, 0, 1), "", False, commits)


def test_conventional_groups() -> None:
    text = notes(
        decided(
            "feat(api): add a\n\nBREAKING CHANGE: b is gone",
            "fix: mend c (#12)",
            "chore: nothing",
            "Say it",
        ),
        Rules("conventional-commits"),
        "https://git.example/a/b/compare/v1...v2",
    )
    assert text == (
        "## Breaking changes\n\n- api: b is gone (0000000)\n\n"
        "## Features\n\n- api: add a (0000000)\n\n"
        "## Fixes\n\n- mend c (#12) (0000000)\n\n"
        "## Other changes\n\n- Say it (0000000)\n"
        "\nAll changes: https://git.example/a/b/compare/v1...v2\n"
    )


def test_merges_are_listed_as_features() -> None:
    text = notes(decided("Merge pull request 'Log in' (#3) from feature/x into main", merge=True),
                 Rules())  # fmt: skip
    assert text == "## Features\n\n- Log in (#3) (0000000)\n"


def test_custom_feature_branches() -> None:
    text = notes(decided("Merge branch 'topic/x'", merge=True), Rules(features=("topic/*",)))
    assert text.startswith("## Features")


def test_message_is_escaped() -> None:
    assert escape("<script>*a* `b` [c](d) @me") == (
        "\\<script\\>\\*a\\* \\`b\\` \\[c\\](d) @\u2060me"
    )
    assert escape("# heading") == "\\# heading"
    assert escape("1. list") == "\\1. list"
    assert escape("a\x1b[31mb\r\nc\u202ed") == "a \\[31mb c d"


@given(st.text(max_size=400))
def test_no_message_becomes_markup(text: str) -> None:
    shown = escape(text)
    assert "\n" not in shown
    assert shown.isprintable() or "\u2060" in shown
    assert not re.search(r"(?<!\\)(?:\\\\)*[<>`*_\[\]]", shown)
    assert "@" not in shown.replace("@\u2060", "")
    assert html.unescape(shown) == shown or "\\&" in shown


def test_long_notes_are_cut_at_a_line() -> None:
    text = notes(decided(*["x" * 290] * 600), Rules(), "https://git.example")
    assert len(text) <= MAX_CHARS
    assert text.endswith(
        "- and more: see git for the full list.\n\nAll changes: https://git.example\n"
    )
