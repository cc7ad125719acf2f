"""The next version by each policy."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapwing.errors import ReleaseError
from lapwing.release import version
from lapwing.release.commits import Commit
from lapwing.release.line import Line
from lapwing.release.policy import History, Rules, decide
from lapwing.release.version import Bump, Version

CONVENTIONAL = Rules("conventional-commits")
LAST = Version(1, 2, 3)


def commit(message: str, *, merge: bool = False, sha: str = "a" * 40) -> Commit:
    return Commit(sha, ("b" * 40, "c" * 40) if merge else ("b" * 40,), message)


def history(*commits: Commit, last: Version | None = LAST, **more: object) -> History:
    known = {"changed": ("app.py",), "tags": {last.tag: "d" * 40} if last else {}}
    return History("a" * 40, last, commits, **{**known, **more})  # type: ignore[arg-type]


MERGES = [
    ("Merge branch 'feature/x'", True),
    ("Merge branch 'feature/x' into main", True),
    ("Merge branch 'feature/x' of https://git.example/a/b", True),
    ("Merge branch 'feature/x' of git.example:a/b into main", True),
    ("Merge branch 'feature/x' into 'main'", True),
    ("Merge branches 'fix/a' and 'feature/x'", True),
    ("Merge branches 'fix/a', 'feature/x' and 'c' into main", True),
    ("Merge remote-tracking branch 'origin/feature/x'", True),
    ("Merge pull request #3 from owner/feature/x", True),
    ("Merge pull request #3 from owner/feature/x\n\nA title", True),
    ("Merge pull request 'A title' (#3) from feature/x into main", True),
    ("Merge pull request 'A title' (!3) from feature/x into main", True),
    ("Merge pull request 'It's' (#3) from Me/fork:feature/x into main", True),
    ("Merge pull request 'x' (#3) from <deleted>:feature/x into main", True),
    ("Merge branch 'feature/x' into feature/x", False),  # A `git pull` on the branch.
    ("Merge branch 'feature/x' of https://git.example/a/b into feature/x", False),
    ("Merge branch 'main' into feature/x", False),
    ("Merge branch 'fix/feature/x'", False),
    ("Merge pull request 'from feature/x into main' (#3) from fix/y into main", False),
    ("Merge pull request 'a' (#1) from feature/x into b' (#3) from fix/y into main", False),
    ("Merge pull request 3 from feature/x into main", True),  # Azure DevOps
    ("Merge pull request 3 from fix/y into main", False),
    ("Merged in feature/x (pull request #3)", True),  # Bitbucket
    ("Merged in fix/y (pull request #3)", False),
    ("Pull request #3: A title\n\nMerge in TEAM/web from feature/x to main", True),
    ("Pull request #3: feature/x\n\nMerge in TEAM/web from fix/y to main", False),
    ("Merge pull request #3 from feature/fix", False),  # An owner called `feature`.
    ("Merge commit '1234567'", False),
    ("Merge tag 'feature/x'", False),
    ("Add feature/x", False),
]


@pytest.mark.parametrize(("message", "is_feature"), MERGES)
def test_feature_merge_raises_major(message: str, is_feature: bool) -> None:
    merged = decide(history(commit(message, merge=True)), Rules())
    assert merged.bump == ("major" if is_feature else "patch")
    assert merged.next == (Version(2, 0, 0) if is_feature else Version(1, 2, 4))
    squashed = decide(history(commit(message)), Rules())
    named = message.startswith("Merged in feature/")  # Bitbucket writes it for a squash, too.
    assert squashed.bump == ("major" if named else "patch")


CONVENTIONS = [
    ("feat: a", "minor", "patch"),
    ("feat(api): a", "minor", "patch"),
    ("fix: a", "patch", "patch"),
    ("perf: a", "patch", "patch"),
    ("fix!: a", "major", "minor"),
    ("chore(api)!: a", "major", "minor"),
    ("fix: a\n\nBREAKING CHANGE: b", "major", "minor"),
    ("fix: a\n\nmore\n\nBREAKING-CHANGE: b\nRefs: 1", "major", "minor"),
    ("fix: a\n\nbreaking change: b", "patch", "patch"),
    ("FEAT: a", "minor", "patch"),
    ("Improve things", "patch", "patch"),
    ("feat:a", "patch", "patch"),
    ("unknown: a", "patch", "patch"),
    ("chore: a", None, None),
    ("docs(readme): a", None, None),
    ("ci: a\n\nmore", None, None),
]


@pytest.mark.parametrize(("message", "bump", "initial"), CONVENTIONS)
def test_conventional_commits(message: str, bump: str | None, initial: str | None) -> None:
    assert decide(history(commit(message)), CONVENTIONAL).bump == bump
    early = decide(history(commit(message), last=Version(0, 2, 3)), CONVENTIONAL)
    assert early.bump == initial
    assert early.skipped == (initial is None)


def test_largest_bump_wins() -> None:
    decision = decide(
        history(commit("fix: a"), commit("feat: b", sha="f" * 40), commit("chore: c")), CONVENTIONAL
    )
    assert (decision.bump, decision.reason) == ("minor", "fffffff is a `feat`.")


@pytest.mark.parametrize(
    ("changed", "skipped"),
    [
        (("README.md", "docs/a/b.png", ".gitignore", "api/NOTES.md"), True),
        (("README.md", "app.py"), False),
        (("documents/a.txt",), False),
        (("a/docs/b.txt",), False),
        ((), True),
    ],
)
def test_documentation_only_change_is_skipped(changed: tuple[str, ...], skipped: bool) -> None:
    merge = commit("Merge branch 'feature/x'", merge=True)
    assert decide(history(merge, changed=changed), Rules()).skipped == skipped


def test_first_release() -> None:
    plain = decide(history(commit("Begin"), last=None), Rules())
    assert (plain.previous, plain.next) == (version.NONE, Version(0, 0, 1))
    feature = decide(history(commit("Merge branch 'feature/a'", merge=True), last=None), Rules())
    assert feature.next == Version(1, 0, 0)


def test_released_commit_is_completed() -> None:
    decision = decide(history(commit("a"), on_head=Version(2, 0, 0)), Rules())
    assert (decision.next, decision.bump, decision.resumed) == (Version(2, 0, 0), Bump.MAJOR, True)


def test_commit_in_later_version_is_skipped() -> None:
    decision = decide(history(commit("a"), within=Version(1, 3, 0)), Rules())
    assert decision.skipped
    assert decision.reason == "This commit is already part of v1.3.0."


def test_tag_on_another_commit_is_refused() -> None:
    tags = {"v1.2.4": "e" * 40}
    with pytest.raises(ReleaseError, match=r"v1\.2\.4 already exists on another commit"):
        decide(history(commit("a"), tags=tags), Rules())


@pytest.mark.parametrize(
    ("text", "found"), [("2.0.0", Version(2, 0, 0)), ("v1.2.4", Version(1, 2, 4))]
)
def test_release_as(text: str, found: Version) -> None:
    decision = decide(history(commit(f"a\n\nRelease-As: {text}")), CONVENTIONAL)
    assert decision.next == found


@pytest.mark.parametrize("text", ["1.2.3", "1.2", "1.0.0", "01.2.9", "next"])
def test_release_as_refuses_invalid_or_lower_version(text: str) -> None:
    with pytest.raises(ReleaseError):
        decide(history(commit(f"a\n\nRelease-As: {text}")), Rules())


def test_stated_version() -> None:
    rules = Rules("stated", stated="1.3.0")
    assert decide(history(commit("a")), rules).next == Version(1, 3, 0)
    same = decide(history(commit("a")), Rules("stated", stated="1.2.3"))
    assert same.skipped
    with pytest.raises(ReleaseError, match="not higher"):
        decide(history(commit("a")), Rules("stated", stated="1.2.2"))
    with pytest.raises(ReleaseError, match="Invalid version in the version file"):
        decide(history(commit("a")), Rules("stated", stated="1.3.0.dev1"))


@given(
    st.builds(Version, *[st.integers(0, 999)] * 3),
    st.sampled_from([Bump.MAJOR, Bump.MINOR, Bump.PATCH]),
)
def test_bump_increases_version(before: Version, bump: Bump) -> None:
    after = before.bumped(bump)
    assert after > before
    assert before.bump_to(after) is bump
    assert version.of_tag(after.tag) == after


@pytest.mark.parametrize(
    "tag",
    ["v1.2", "1.2.3", "v1.2.3-rc1", "v1.2.3-1", "v1.2.3-rc.01", "v01.2.3", "nightly", "v1.2.3\n"],
)
def test_invalid_version_tags(tag: str) -> None:
    assert version.of_tag(tag) is None


def test_versions_are_ordered_by_precedence() -> None:
    tags = ["v1.2.9", "v1.3.0-alpha.7", "v1.3.0-rc.2", "v1.3.0-rc.10", "v1.3.0", "v2.0.0-rc.1"]
    versions = [version.of_tag(tag) for tag in tags]
    assert sorted(reversed(versions)) == versions
    assert [found.tag for found in versions] == tags
    assert version.of_tag("api@1.2.3-rc.1", "api@").tag == "api@1.2.3-rc.1"
    assert version.of_tag("api@1.2.3", "v") is version.of_tag("v1.2.3", "api@") is None


RC = Rules("conventional-commits", line=Line("next", "rc"))


@pytest.mark.parametrize(
    ("message", "last", "tags", "found"),
    [
        ("feat: a", "v1.2.3", [], "v1.3.0-rc.1"),
        ("fix: a", "v1.2.3", [], "v1.2.4-rc.1"),
        ("fix: a", "v1.3.0-rc.1", [], "v1.3.0-rc.2"),
        ("feat!: a", "v1.3.0-rc.1", [], "v2.0.0-rc.1"),
        ("fix: a", "v2.0.0-rc.9", [], "v2.0.0-rc.10"),
        ("fix: a", "v1.3.0-rc.1", ["v1.3.0-rc.4"], "v1.3.0-rc.5"),  # Not in this history.
        ("chore: a", "v1.3.0-rc.1", [], None),
        ("a\n\nRelease-As: 3.0.0", "v1.3.0-rc.1", [], "v3.0.0-rc.1"),
    ],
)
def test_next_prerelease(message: str, last: str, tags: list[str], found: str | None) -> None:
    known = dict.fromkeys(["v1.2.3", last, *tags], "d" * 40)
    previous = version.of_tag(last)
    made = decide(history(commit(message), last=previous, last_final=LAST, tags=known), RC)
    assert (made.next.tag if made.next else None) == found


def test_final_version_follows_prereleases() -> None:
    made = decide(history(commit("feat: a"), tags={"v1.2.3": "d" * 40}), CONVENTIONAL)
    assert made.next == Version(1, 3, 0)
    past = history(commit("a"), tags={"v1.2.3": "d", "v1.3.0-rc.2": "e", "v2.0.0-rc.1": "f"})
    assert past.newer(made.next) is None
    assert past.newer(Version(1, 2, 2)) == "d"


def test_prerelease_of_released_version_is_refused() -> None:
    tags = {"v1.2.3": "d" * 40, "v1.3.0": "e" * 40}
    with pytest.raises(ReleaseError, match=r"v1\.3\.0 already exists on another commit"):
        decide(history(commit("feat: a"), tags=tags), RC)


@pytest.mark.parametrize(
    ("message", "tags", "found"),
    [
        ("fix: a", [], "1.2.4"),
        ("feat: a", [], "1.3.0"),
        ("fix: a", ["v2.0.0", "v1.3.0"], "1.2.4"),
        ("feat!: a", [], "outside of the range of branch `1.x`: from 1.0.0 to below 2.0.0"),
        ("feat: a", ["v1.3.0"], r"1\.3\.0, is not lower than v1\.3\.0"),
        ("a\n\nRelease-As: 1.9.0", ["v1.3.0"], r"1\.9\.0, is not lower than v1\.3\.0"),
    ],
)
def test_next_version_on_a_maintenance_branch(message: str, tags: list[str], found: str) -> None:
    line = Line("1.x", low=Version(1, 0, 0), high=Version(2, 0, 0))
    known = dict.fromkeys(["v1.2.3", *tags], "d" * 40)
    past, rules = history(commit(message), tags=known), Rules("conventional-commits", line=line)
    if not found[0].isdigit() or "not" in found:
        with pytest.raises(ReleaseError, match=found):
            decide(past, rules)
        return
    made = decide(past, rules).next
    assert str(made) == found
    assert (past.newer(made) is None) == (not tags)


def test_stated_version_has_to_fit_the_branch() -> None:
    past = history(commit("a"))
    stated = Rules("stated", stated="1.3.0-rc.1", line=Line("next", "rc"))
    assert str(decide(past, stated).next) == "1.3.0-rc.1"
    with pytest.raises(ReleaseError, match="not a pre-release `rc`") as caught:
        decide(past, replace(stated, stated="1.3.0"))
    assert "1.3.0-rc.1" in (caught.value.hint or "")
    with pytest.raises(ReleaseError, match="is a pre-release"):
        decide(past, Rules("stated", stated="1.3.0-rc.1"))
    with pytest.raises(ReleaseError) as caught:
        decide(past, Rules("stated", stated="1.3.0+5"))
    assert "build metadata" in (caught.value.hint or "")


def test_project_has_versions_with_its_prefix() -> None:
    tags = {"v9.0.0": "d" * 40, "api-v1.2.3": "d" * 40}
    made = decide(history(commit("feat: a"), last=None, prefix="api-v", tags={}), CONVENTIONAL)
    assert (made.previous.tag, made.next.tag) == ("api-v0.0.0", "api-v0.0.1")
    last = version.of_tag("api-v1.2.3", "api-v")
    past = history(commit("feat: a"), last=last, prefix="api-v", tags=tags)
    made = decide(past, CONVENTIONAL)
    assert made.next.tag == "api-v1.3.0"
    assert past.newer(made.next) is None
