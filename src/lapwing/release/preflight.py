"""The checks before a release: reads the checkout and its remote, changes nothing.

What would make the next version wrong is raised at once (a shallow clone, a tag that was not
fetched). What only prevents the release is collected as problems, so that a dry run can show the
version and every reason why it could not be released now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lapwing.errors import LapwingError, ReleaseError
from lapwing.release import version
from lapwing.release.git import Checkout, Refs
from lapwing.release.policy import History
from lapwing.release.version import Version

_MAX_NAMES = 5


@dataclass(slots=True)
class Preflight:
    """What the checks found.

    `remote` is the remote to release to, if there is one; `objects` are those of its tags;
    `problems` prevent the release; `hints` are for people.
    """

    history: History
    remote: str | None
    objects: Mapping[str, str] = field(default_factory=dict)
    problems: list[LapwingError] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)


def run_preflight(checkout: Checkout, branches: Sequence[str]) -> Preflight:
    """Check a repository. `branches` are those that releases are made from.

    Raises ReleaseError for what leaves the next version unknown.
    """
    if checkout.is_shallow():
        raise ReleaseError(
            "The clone is shallow, so the last version is unknown.",
            hint="Run `git fetch --unshallow --tags`; in CI, check out with `fetch-depth: 0`.",
        )
    head, branch = checkout.head(), checkout.branch()
    problems: list[LapwingError] = list(_uncommitted(checkout))
    remote, refs = checkout.remote(branch), None
    try:
        refs = _fetch_refs(checkout, remote)
    except ReleaseError as error:
        problems.append(error)
    hints: list[str] = []
    history = _history(checkout, head, _versions(checkout, head, remote, refs, hints), remote)
    problems += _check_branch(checkout, head, branch, branches, remote, refs)
    return Preflight(history, remote, refs.objects if refs else {}, problems, hints)


def _uncommitted(checkout: Checkout) -> Sequence[ReleaseError]:
    changed = checkout.uncommitted()
    if not changed:
        return ()
    names = ", ".join(changed[:_MAX_NAMES]) + (", ..." if len(changed) > _MAX_NAMES else "")
    hint = "Commit or stash them: a release is made from a commit."
    return (ReleaseError(f"There are uncommitted changes: {names}.", hint=hint),)


def _fetch_refs(checkout: Checkout, remote: str | None) -> Refs:
    if remote is None:
        raise ReleaseError(
            "The repository has no remote to release to.",
            hint="Add one with `git remote add origin URL`, and push to it.",
        )
    return checkout.refs(remote)


def _versions(
    checkout: Checkout, head: str, remote: str | None, refs: Refs | None, hints: list[str]
) -> dict[Version, str]:
    """Return the versions and their commits; the remote's tags replace those of the clone."""
    local = checkout.tags()
    every = {**local, **(refs.tags if refs else {})}
    near = sorted(name for name in every if version.is_near_miss(name))
    if near:
        hints.append(f"Ignored tags that are not versions: {', '.join(near[:_MAX_NAMES])}.")
    versions: dict[Version, str] = {}
    for name, commit in every.items():
        number = version.of_tag(name)
        if number is None:
            continue
        versions[number] = commit
        if refs is None:
            continue
        if name in local and local[name] != commit:
            raise ReleaseError(
                f"{name} is on {local[name][:12]} locally, and on {commit[:12]} at `{remote}`.",
                hint=f"Delete the local one: `git tag -d {name}`, then `git fetch --tags`.",
            )
        if name not in refs.tags and commit != head:
            raise ReleaseError(
                f"{name} is on {commit[:12]} locally, but not at `{remote}`.",
                hint=f"If it was a release, push it: `git push {remote} {name}`. Otherwise delete "
                f"it: `git tag -d {name}`.",
            )
    return versions


def _history(
    checkout: Checkout, head: str, versions: Mapping[Version, str], remote: str | None
) -> History:
    """Return where the commit is among the versions, and the commits since the last."""
    on_head = within = last = None
    for number in sorted(versions, reverse=True):
        commit = versions[number]
        if commit == head:
            on_head = on_head or number
            continue
        if not checkout.has(commit) and remote is not None:
            checkout.fetch_tag(remote, number.tag)
        if checkout.is_ancestor(commit, head):
            last = number
            break
        if checkout.is_ancestor(head, commit):
            within = number
    since = versions[last] if last else None
    return History(
        head=head,
        last=last,
        commits=checkout.commits(since, head),
        changed=checkout.changed(since, head),
        tags={number.tag: commit for number, commit in versions.items()},
        on_head=on_head,
        within=within,
    )


def _check_branch(
    checkout: Checkout,
    head: str,
    branch: str | None,
    branches: Sequence[str],
    remote: str | None,
    refs: Refs | None,
) -> Sequence[ReleaseError]:
    """Check that the commit is on a release branch at the remote."""
    wanted = " or ".join(branches)
    if branch is not None and branch not in branches:
        hint = "Check out that branch, or add this one to `release: {branches: [...]}`."
        message = f"Branch `{branch}` is not a release branch ({wanted})."
        return (ReleaseError(message, hint=hint),)
    if refs is None:
        return ()
    for name in [branch] if branch else branches:
        if refs.branches.get(name) == head:
            return ()
        known = checkout.resolve(f"refs/remotes/{remote}/{name}")
        if name in refs.branches and known and checkout.is_ancestor(head, known):
            return ()
    message = f"This commit is not in `{branch}` at `{remote}`."
    if branch is None:
        message = f"The detached HEAD is not in {wanted} at `{remote}`."
    hint = f"Push it first: `git push {remote} {branch or f'HEAD:{branches[0]}'}`."
    return (ReleaseError(message, hint=hint),)
