"""Release notes from the commits, as Markdown.

Commit messages are text, never markup: everything that Markdown or HTML would interpret is escaped,
an `@name` is no mention, and unprintable characters are removed. `#12` stays, because forges make
it a link to the pull request.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from lapwing.release.commits import Commit, conventional, merged_branches, title
from lapwing.release.policy import SILENT, Decision, Rules, is_feature

MAX_CHARS = 100_000
"""GitHub accepts 125,000 (its API responds 422 above that)."""
MAX_LINE_CHARS = 300
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|~!&$])")
_KINDS = {
    "feat": "Features",
    "fix": "Fixes",
    "perf": "Performance",
    "revert": "Reverted",
}
_ORDER = ("Breaking changes", "Features", "Fixes", "Performance", "Reverted", "Other changes")


def notes(decision: Decision, rules: Rules, compare: str | None = None) -> str:
    """Write the notes of a release; `compare` is a URL that shows the changes."""
    by_convention = rules.policy == "conventional-commits"
    commits = decision.commits
    lines = _conventional(commits) if by_convention else _merges(commits, rules.features)
    groups: dict[str, list[str]] = {name: [] for name in _ORDER}
    for group, line in lines:
        groups[group].append(line)
    text = "\n".join(
        f"## {name}\n\n" + "".join(f"- {line}\n" for line in listed)
        for name, listed in groups.items()
        if listed
    )
    foot = f"\nAll changes: {compare}\n" if compare else ""
    return _truncate(text or "No changes were recorded.\n", MAX_CHARS - len(foot)) + foot


def escape(text: str) -> str:
    """Escape text for Markdown, in one line."""
    flat = "".join(c if c.isprintable() else " " for c in text)
    flat = " ".join(flat.split())
    if len(flat) > MAX_LINE_CHARS:
        flat = flat[: MAX_LINE_CHARS - 1] + "…"
    flat = _SPECIAL.sub(r"\\\1", flat)
    # An invisible word joiner keeps a name from being a mention and an address from being a link.
    flat = flat.replace("@", "@\u2060").replace("://", ":\u2060//")
    return re.sub(r"^([-+#=]|\d+[.)])", r"\\\1", flat)


def _conventional(commits: Sequence[Commit]) -> Iterator[tuple[str, str]]:
    for commit in commits:
        if commit.is_merge:
            continue
        parsed = conventional(commit)
        if parsed is None:
            yield "Other changes", _line(commit.subject, commit)
            continue
        scope = f"{parsed.scope}: " if parsed.scope else ""
        if parsed.breaking is not None:
            yield "Breaking changes", _line(scope + parsed.breaking, commit)
        if parsed.kind in _KINDS:
            yield _KINDS[parsed.kind], _line(scope + parsed.description, commit)
        elif parsed.kind not in SILENT or parsed.breaking is not None:
            yield "Other changes", _line(scope + parsed.description, commit)


def _merges(commits: Sequence[Commit], features: Sequence[str]) -> Iterator[tuple[str, str]]:
    for commit in commits:
        branches = merged_branches(commit)
        if any(is_feature(branch, features) for branch in branches):
            yield "Features", _line(title(commit), commit)
        elif branches or not commit.is_merge:
            yield "Other changes", _line(title(commit) if branches else commit.subject, commit)


def _line(text: str, commit: Commit) -> str:
    return f"{escape(text) or '(no message)'} ({commit.sha[:7]})"


def _truncate(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    foot = "\n- and more: see git for the full list.\n"
    return text[: text.rindex("\n", 0, longest - len(foot))] + foot
