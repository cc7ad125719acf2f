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

On a branch of pre-releases the policy finds the final version that they precede: the bump of the
last final version, but not lower than the final version of the last pre-release; the next free
number is added. The policy `stated` takes the version of the file as it is.
"""  # noqa: E501 - a table

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Literal

from lapwing.errors import ReleaseError
from lapwing.release import version
from lapwing.release.commits import Commit, conventional, merged_branches, release_as
from lapwing.release.line import Line
from lapwing.release.patterns import all_match
from lapwing.release.version import Bump, Version

Policy = Literal["feature-merge", "conventional-commits", "stated"]

SILENT = {"build", "chore", "ci", "docs", "refactor", "style", "test"}
"""Types of Conventional Commits that need no release."""
PATCH = {"fix", "perf", "revert"}


@dataclass(frozen=True, slots=True)
class History:
    """The history in git. `commits` (newest first) and `changed` (paths) are those since `last`.

    Of a project in a repository of several, only those that touch its paths. `tags` are those of
    the versions that count for the branch, and `prefix` is what they begin with. Where `last` is a
    pre-release, `last_final` is the last final version, if there is one.
    """

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
    last_final: Version | None = None
    prefix: str = version.PREFIX
    mainline: frozenset[str] = frozenset()
    """The commits that the branch got one by one, without what their merges brought."""

    @property
    def none(self) -> Version:
        """The last version where there is no tag."""
        return replace(version.NONE, prefix=self.prefix)

    @property
    def final(self) -> Version:
        """The last final version."""
        if self.last is not None and not self.last.prerelease:
            return self.last
        return self.last_final or self.none

    @property
    def versions(self) -> list[Version]:
        """Every version that is tagged."""
        return [v for tag in self.tags if (v := version.of_tag(tag, self.prefix)) is not None]

    def newer(self, following: Version) -> str | None:
        """Return the commit of the highest final version, if that is higher than another one."""
        newest = max((v for v in self.versions if not v.prerelease), default=following)
        return self.tags[newest.tag] if newest > following else None


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules in the stack file. `stated` is the version in the version file."""

    policy: Policy = "feature-merge"
    features: Sequence[str] = ("feature/*",)
    documents: Sequence[str] = ("docs/**", "*.md", ".gitignore")
    stated: str | None = None
    line: Line = field(default_factory=lambda: Line("main"))


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

    Raises ReleaseError if the version is taken by another commit, not higher than the last one, or
    outside of the range of the branch.
    """
    previous = history.last or history.none
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
    rules.line.check(following, previous, history.versions)
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
            wanted = _higher(text, history.final, where, equal=False)
            _check_kind(wanted, "", where)
            return _on_line(wanted, history, rules.line), f"{where} requests it."
    if rules.policy == "stated":
        stated = _higher(rules.stated or "", previous, "the version file", equal=True)
        if stated != previous:
            _check_kind(stated, rules.line.prerelease, "the version file")
        same = stated == previous
        reason = f"The version file {'still ' if same else ''}has {stated}."
        return stated, reason
    return None


def _check_kind(found: Version, prerelease: str, where: str) -> None:
    """Check that a version is a pre-release with an identifier, or final where that is empty."""
    if found.prerelease == prerelease:
        return
    if prerelease:
        kind, hint = f"not a pre-release `{prerelease}`", f"{found.final}-{prerelease}.1"
    else:
        kind, hint = "a pre-release", str(found.final)
    raise ReleaseError(
        f"The version in {where}, {found}, is {kind}.", hint=f"Write it like {hint}."
    )


def _on_line(final: Version, history: History, line: Line) -> Version:
    """Return a final version, or its next pre-release on a branch of pre-releases."""
    if not line.prerelease:
        return final
    if history.last is not None and history.last.prerelease:
        final = max(final, history.last.final)
    taken = [v.number for v in history.versions if v.prerelease and v.final == final]
    return replace(final, prerelease=line.prerelease, number=max(taken, default=0) + 1)


def _higher(text: str, previous: Version, where: str, *, equal: bool) -> Version:
    found = version.parse(text, previous.prefix)
    if found is None:
        hint = "Write it like 1.2.3 or 1.2.3-rc.1."
        if "+" in text:
            hint = "Remove the build metadata after `+`, which no tag of an image can have."
        raise ReleaseError(f"Invalid version in {where}: {text!r}.", hint=hint)
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
        bump, reason = _by_convention(history, initial=history.final.major == 0)
    else:
        bump, reason = _by_merges(history, rules.features)
    if bump is None:
        return previous, reason
    return _on_line(history.final.bumped(bump), history, rules.line), reason


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
    for tag in dict.fromkeys((following.tag, following.final.tag)):
        taken = history.tags.get(tag)
        if taken is not None and taken != history.head:
            raise ReleaseError(
                f"{tag} already exists on another commit ({taken[:12]}), outside of this "
                "branch's history.",
                hint="Merge the branch that was released into this one, or delete the tag if it is "
                "a mistake.",
            )
