"""The next version, if any: git's history in, one decision out.

    is this commit released? -> did more than documentation change? -> what bump does the policy
    find in the commits? -> is the tag free?

| policy | major | minor | patch | no release |
|---|---|---|---|---|
| feature-merge | a merge of a branch in `features` | | anything else | |
| conventional-commits | breaking change | feat | fix, perf, revert, and messages that do not follow the convention | only build, chore, ci, docs, refactor, style, test |
| conventional-commits, 0.x | | breaking change | feat and the above | the same |
| stated | the version in the file, when it is higher than the last version | | | it is the same |

A footer `Release-As: 1.0.0` in a commit since the last version overrides the policy (so a person
decides about 1.0.0). A message without a known type is a patch, because an unclassified change is
shipped all the same.
"""  # noqa: E501 - a table

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal

from lapwing.errors import ReleaseError
from lapwing.release import version
from lapwing.release.commits import Commit, conventional, merged_branches, release_as
from lapwing.release.patterns import all_match
from lapwing.release.version import Bump, Version

Policy = Literal["feature-merge", "conventional-commits", "stated"]

SILENT = {"build", "chore", "ci", "docs", "refactor", "style", "test"}
"""Types of Conventional Commits that need no release."""
PATCH = {"fix", "perf", "revert"}


@dataclass(frozen=True, slots=True)
class History:
    """The history in git. `commits` (newest first) and `changed` (paths) are those since `last`."""

    head: str
    last: Version | None
    commits: tuple[Commit, ...]
    changed: tuple[str, ...]
    tags: Mapping[str, str]
    """Every tag that is a version, local or at the remote, and its commit."""
    on_head: Version | None = None
    """The version of this commit, if it is released."""
    within: Version | None = None
    """The version of a later commit that includes this one."""

    def is_newest(self, following: Version) -> bool:
        """Return whether no tag is a higher version."""
        others = (version.of_tag(tag) for tag in self.tags)
        return all(other is None or other <= following for other in others)


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules in the stack file. `stated` is the version in the version file."""

    policy: Policy = "feature-merge"
    features: Sequence[str] = ("feature/*",)
    documents: Sequence[str] = ("docs/**", "*.md", ".gitignore")
    stated: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The next release. With `skipped` nothing is released, and `next` is null."""

    previous: Version
    bump: Bump | None
    next: Version | None
    reason: str
    resumed: bool = False
    commits: tuple[Commit, ...] = field(default=(), repr=False)

    @property
    def skipped(self) -> bool:
        """Whether there is nothing to release."""
        return self.next is None


def decide(history: History, rules: Rules) -> Decision:
    """Return the next version, or why there is none.

    Raises ReleaseError if the version is taken by another commit, or not higher than the last one.
    """
    previous = history.last or version.NONE
    if history.on_head:
        reason = f"This commit is already {history.on_head.tag}; missing parts are added."
        bump = previous.bump_to(history.on_head)
        return Decision(previous, bump, history.on_head, reason, True, history.commits)
    if history.within:
        reason = f"This commit is already part of {history.within.tag}."
        return Decision(previous, None, None, reason)
    found = _stated(history, rules, previous) or _by_policy(history, rules, previous)
    following, reason = found
    if following == previous:
        return Decision(previous, None, None, reason)
    _check_free(history, following)
    bump = previous.bump_to(following)
    return Decision(previous, bump, following, reason, False, history.commits)


def is_feature(branch: str, patterns: Sequence[str]) -> bool:
    """Return whether merging a branch raises the major version."""
    return any(fnmatchcase(branch, pattern) for pattern in patterns)


def since(last: Version | None) -> str:
    """Return since when, in words."""
    return f"since {last.tag}" if last else "in the whole history"


def _stated(history: History, rules: Rules, previous: Version) -> tuple[Version, str] | None:
    """Return the version in a footer or a file, with the reason; None for the other policies."""
    for commit in history.commits:
        text = release_as(commit)
        if text is not None:
            where = f"Release-As in {commit.sha[:7]}"
            return _higher(text, previous, where, equal=False), f"{where} requests it."
    if rules.policy == "stated":
        stated = _higher(rules.stated or "", previous, "the version file", equal=True)
        same = stated == previous
        reason = f"The version file {'still ' if same else ''}has {stated}."
        return stated, reason
    return None


def _higher(text: str, previous: Version, where: str, *, equal: bool) -> Version:
    found = version.parse(text)
    if found is None:
        raise ReleaseError(f"Invalid version in {where}: {text!r}.", hint="Write it like 1.2.3.")
    if found < previous or (found == previous and not equal):
        raise ReleaseError(
            f"Version {found} in {where} is not higher than the last version, {previous}.",
            hint="Choose a higher version.",
        )
    return found


def _nothing(history: History, rules: Rules) -> str | None:
    """Return why there is nothing to release, if so."""
    if not history.commits or not history.changed:
        return f"Nothing changed {since(history.last)}."
    if all_match(history.changed, rules.documents):
        return f"Only documentation changed {since(history.last)}."
    return None


def _by_policy(history: History, rules: Rules, previous: Version) -> tuple[Version, str]:
    """Return the version by the policy; the last one where there is nothing to release."""
    nothing = _nothing(history, rules)
    if nothing is not None:
        return previous, nothing
    if rules.policy == "conventional-commits":
        bump, reason = _by_convention(history, initial=previous.major == 0)
    else:
        bump, reason = _by_merges(history, rules.features)
    return previous.bumped(bump) if bump else previous, reason


def _by_merges(history: History, features: Sequence[str]) -> tuple[Bump | None, str]:
    for commit in history.commits:
        for branch in merged_branches(commit):
            if is_feature(branch, features):
                return Bump.MAJOR, f"{branch} was merged ({commit.sha[:7]})."
    wanted = " or ".join(features)
    return Bump.PATCH, f"No merge of {wanted} {since(history.last)}."


def _by_convention(history: History, *, initial: bool) -> tuple[Bump | None, str]:
    best: tuple[int, Bump, str] | None = None
    silent: Counter[str] = Counter()
    for commit in history.commits:
        if commit.is_merge:
            continue  # Its changes are in the commits that it joins.
        weight, kind = _weight(commit)
        if weight == 0:
            silent[kind] += 1
        elif best is None or weight > best[0]:
            bump = (Bump.PATCH, Bump.MINOR, Bump.MAJOR)[max(weight - 1 - initial, 0)]
            best = weight, bump, f"{commit.sha[:7]} is {_article(kind)}."
    if best is not None:
        return best[1], best[2]
    kinds = ", ".join(f"{kind} ({count})" for kind, count in sorted(silent.items()))
    return None, f"No commit {since(history.last)} needs a release: {kinds or 'only merges'}."


def _weight(commit: Commit) -> tuple[int, str]:
    """Return 3 for a breaking change, 2 for a feature, 1 for a patch, 0 for none; and its name."""
    parsed = conventional(commit)
    if parsed is None:
        return 1, "change without a type"
    if parsed.breaking is not None:
        return 3, "breaking change"
    if parsed.kind == "feat":
        return 2, "feat"
    if parsed.kind in SILENT:
        return 0, parsed.kind
    return 1, parsed.kind if parsed.kind in PATCH else "change without a known type"


def _article(kind: str) -> str:
    return f"a {kind}" if " " in kind else f"a `{kind}`"


def _check_free(history: History, following: Version) -> None:
    taken = history.tags.get(following.tag)
    if taken is not None and taken != history.head:
        raise ReleaseError(
            f"{following.tag} already exists on another commit ({taken[:12]}), outside of this "
            "branch's history.",
            hint="Merge the branch that was released into this one, or delete the tag if it is a "
            "mistake.",
        )
