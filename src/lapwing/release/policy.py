"""Which version comes next, if any. Pure: git's history in, one decision out.

    is this commit released already? -> did anything but documentation change? -> what does the
    policy make of the commits? -> is the name still free?

| policy | major | minor | patch | no release |
|---|---|---|---|---|
| feature-merge | a merge of a branch in `features` | | anything else | |
| conventional-commits | breaking change | feat | fix, perf, revert, and messages that do not follow the convention | only build, chore, ci, docs, refactor, style, test |
| conventional-commits, 0.x | | breaking change | feat and the above | the same |
| stated | what the file says, when it is higher than the last version | | | it is the same |

A footer `Release-As: 1.0.0` in a commit since the last version decides instead (so 1.0.0 is reached
by a person's word). A message without a known type is a patch, because a change that nobody
classified is shipped all the same.
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
from lapwing.release.paths import only_documents
from lapwing.release.version import Bump, Version

Policy = Literal["feature-merge", "conventional-commits", "stated"]

SILENT = {"build", "chore", "ci", "docs", "refactor", "style", "test"}
"""Types of Conventional Commits that ask for no release."""
PATCH = {"fix", "perf", "revert"}


@dataclass(frozen=True, slots=True)
class History:
    """What git knows. `commits` (the newest first) and `changed` (paths) are those since `last`."""

    head: str
    last: Version | None
    commits: tuple[Commit, ...]
    changed: tuple[str, ...]
    tags: Mapping[str, str]
    """Every tag that is a version, here and at the remote, and the commit that it is on."""
    on_head: Version | None = None
    """The version that this commit already has."""
    within: Version | None = None
    """A version of a later commit, which holds this one."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the stack file says of releases. `stated` is the version in the project's own file, and
    decides under the policy of that name."""

    policy: Policy = "feature-merge"
    features: Sequence[str] = ("feature/*",)
    documents: Sequence[str] = ("docs/**", "*.md", ".gitignore")
    stated: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What a release would be. With `skipped` there is none, and `next` is None."""

    previous: Version
    bump: Bump | None
    next: Version | None
    reason: str
    resumed: bool = False
    commits: tuple[Commit, ...] = field(default=(), repr=False)

    @property
    def skipped(self) -> bool:
        """Whether there is no release to make."""
        return self.next is None


def decide(history: History, rules: Rules) -> Decision:
    """The next version, or why there is none.

    Raises ReleaseError if the version that it has to be cannot be it: its tag is on another commit,
    or it is not higher than the last one.
    """
    previous = history.last or version.NONE
    if history.on_head:
        reason = f"{history.on_head.tag} is on this commit already: what it still lacks is added."
        bump = previous.bump_to(history.on_head)
        return Decision(previous, bump, history.on_head, reason, True, history.commits)
    if history.within:
        reason = f"This commit is part of {history.within.tag} already."
        return Decision(previous, None, None, reason)
    asked = _asked_for(history, rules, previous)
    if asked is None:
        asked = _by_policy(history, rules, previous)
    following, reason = asked
    if following == previous:
        return Decision(previous, None, None, reason)
    _check_free(history, following)
    bump = previous.bump_to(following)
    return Decision(previous, bump, following, reason, False, history.commits)


def is_feature(branch: str, patterns: Sequence[str]) -> bool:
    """Whether a branch is one whose merge raises the major version."""
    return any(fnmatchcase(branch, pattern) for pattern in patterns)


def since(last: Version | None) -> str:
    """Since when, in words."""
    return f"since {last.tag}" if last else "in the whole history"


def _asked_for(history: History, rules: Rules, previous: Version) -> tuple[Version, str] | None:
    """The version that people wrote down, with the reason; None where the policy has to find it."""
    for commit in history.commits:
        text = release_as(commit)
        if text is not None:
            where = f"Release-As in {commit.sha[:7]}"
            return _higher(text, previous, where, equal=False), f"{where} asks for it."
    if rules.policy == "stated":
        stated = _higher(rules.stated or "", previous, "the version file", equal=True)
        same = stated == previous
        reason = f"The version file {'still ' if same else ''}says {stated}."
        return stated, reason
    return None


def _higher(text: str, previous: Version, where: str, *, equal: bool) -> Version:
    found = version.parse(text)
    if found is None:
        raise ReleaseError(
            f"{text!r}, from {where}, is not a version.", hint="A version looks like 1.2.3."
        )
    if found < previous or (found == previous and not equal):
        raise ReleaseError(
            f"{found}, from {where}, is not higher than the last version, {previous}.",
            hint="Versions only go up: choose a higher one.",
        )
    return found


def _nothing(history: History, rules: Rules) -> str | None:
    """Why there is nothing to release, if so."""
    if not history.commits or not history.changed:
        return f"Nothing changed {since(history.last)}."
    if only_documents(history.changed, rules.documents):
        return f"Only documentation changed {since(history.last)}."
    return None


def _by_policy(history: History, rules: Rules, previous: Version) -> tuple[Version, str]:
    """The version that the policy finds, the last one where there is nothing to release."""
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
            continue  # What it brings is in the commits that it joins.
        weight, kind = _weight(commit)
        if weight == 0:
            silent[kind] += 1
        elif best is None or weight > best[0]:
            bump = (Bump.PATCH, Bump.MINOR, Bump.MAJOR)[max(weight - 1 - initial, 0)]
            best = weight, bump, f"{commit.sha[:7]} is {_article(kind)}."
    if best is not None:
        return best[1], best[2]
    kinds = ", ".join(f"{kind} ({count})" for kind, count in sorted(silent.items()))
    return None, f"No commit {since(history.last)} asks for a release: {kinds or 'only merges'}."


def _weight(commit: Commit) -> tuple[int, str]:
    """3 for what breaks, 2 for a feature, 1 for a patch, 0 for nothing; and its name."""
    told = conventional(commit)
    if told is None:
        return 1, "change without a type"
    if told.breaking is not None:
        return 3, "breaking change"
    if told.kind == "feat":
        return 2, "feat"
    if told.kind in SILENT:
        return 0, told.kind
    return 1, told.kind if told.kind in PATCH else "change without a known type"


def _article(kind: str) -> str:
    return f"a {kind}" if " " in kind else f"a `{kind}`"


def _check_free(history: History, following: Version) -> None:
    taken = history.tags.get(following.tag)
    if taken is not None and taken != history.head:
        raise ReleaseError(
            f"{following.tag} is there already, on another commit ({taken[:12]}), which is not "
            "part of this one's history.",
            hint="Merge the branch that was released into this one, or remove the tag if it was "
            "a mistake.",
        )
