"""Looking at a checkout and its remote before a release: reads, changes nothing.

What would make the answer wrong is raised at once (a shallow clone, a tag that is not fetched).
What only stands in the way of making the release is collected as obstacles, so that a dry run can
tell the version and every reason why it could not be made now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lapwing.errors import ReleaseError
from lapwing.release import version
from lapwing.release.git import Checkout, Refs
from lapwing.release.policy import History
from lapwing.release.version import Version

_MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found. `remote` and `url` are the remote to release to, if there is one; `hints` are
    for people."""

    history: History
    remote: str | None
    url: str | None
    refs: Refs | None
    obstacles: Sequence[ReleaseError] = ()
    hints: Sequence[str] = ()


@dataclass(slots=True)
class _Found:
    obstacles: list[ReleaseError] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)


def survey(checkout: Checkout, branches: Sequence[str]) -> Survey:
    """Look at a checkout. `branches` are those that are released from.

    Raises ReleaseError for what leaves the next version unknown.
    """
    found = _Found()
    if checkout.is_shallow():
        raise ReleaseError(
            "History was cut off when this clone was made, so the last version is unknown.",
            hint="Run `git fetch --unshallow --tags`; in CI, check out with `fetch-depth: 0`.",
        )
    head, branch = checkout.head(), checkout.branch()
    _check_clean(checkout, found)
    remote = checkout.remote(branch)
    url, refs = _reach(checkout, remote, found)
    tags = _tags(checkout, head, remote, refs, found)
    history = _history(checkout, head, tags, remote)
    _check_branch(checkout, (head, branch, branches), remote, refs, found)
    return Survey(history, remote, url, refs, found.obstacles, found.hints)


def _check_clean(checkout: Checkout, found: _Found) -> None:
    changed = checkout.changed_here()
    if changed:
        named = ", ".join(changed[:_MOST_NAMED]) + (", ..." if len(changed) > _MOST_NAMED else "")
        found.obstacles.append(
            ReleaseError(
                f"There are changes that are not committed: {named}.",
                hint="Commit or stash them: a release is made of a commit.",
            )
        )


def _reach(checkout: Checkout, remote: str | None, found: _Found) -> tuple[str | None, Refs | None]:
    if remote is None:
        found.obstacles.append(
            ReleaseError(
                "The repository has no remote to release to.",
                hint="Add one with `git remote add origin URL`, and push to it.",
            )
        )
        return None, None
    url = checkout.url(remote)
    try:
        return url, checkout.refs(remote)
    except ReleaseError as error:
        found.obstacles.append(error)
        return url, None


def _tags(
    checkout: Checkout, head: str, remote: str | None, refs: Refs | None, found: _Found
) -> dict[Version, str]:
    """Versions and their commits; the remote knows better than this clone."""
    here = checkout.tags()
    every = {**here, **(refs.tags if refs else {})}
    near = sorted(name for name in every if version.near_miss(name))
    if near:
        found.hints.append(f"Not versions, so not counted: {', '.join(near[:_MOST_NAMED])}.")
    versions: dict[Version, str] = {}
    for name, commit in every.items():
        number = version.of_tag(name)
        if number is None:
            continue
        versions[number] = commit
        if refs is None:
            continue
        if name in here and here[name] != commit:
            raise ReleaseError(
                f"{name} is on {here[name][:12]} here, and on {commit[:12]} at `{remote}`.",
                hint=f"Remove the one here: `git tag -d {name}`, then `git fetch --tags`.",
            )
        if name not in refs.tags and commit != head:
            raise ReleaseError(
                f"{name} is on {commit[:12]} here, but not at `{remote}`.",
                hint=f"Push it if it was a release, `git push {remote} {name}`; else remove it, "
                f"`git tag -d {name}`.",
            )
    return versions


def _history(
    checkout: Checkout, head: str, tags: Mapping[Version, str], remote: str | None
) -> History:
    """Where the commit stands among the versions, and what came since the last."""
    on_head = within = last = None
    for number in sorted(tags, reverse=True):
        commit = tags[number]
        if commit == head:
            on_head = on_head or number
        elif not checkout.has(commit):
            raise ReleaseError(
                f"{number.tag} is on a commit that is not in this clone.",
                hint=f"Run `git fetch --tags {remote or ''}".rstrip() + "` first.",
            )
        elif checkout.is_ancestor(commit, head):
            last = number
            break
        elif checkout.is_ancestor(head, commit):
            within = number
    since = tags[last] if last else None
    return History(
        head=head,
        last=last,
        commits=checkout.commits(since, head),
        changed=checkout.changed(since, head),
        tags={number.tag: commit for number, commit in tags.items()},
        on_head=on_head,
        within=within,
    )


def _check_branch(
    checkout: Checkout,
    where: tuple[str, str | None, Sequence[str]],
    remote: str | None,
    refs: Refs | None,
    found: _Found,
) -> None:
    """The commit is on a branch that is released from, at the remote."""
    head, branch, branches = where
    wanted = " or ".join(branches)
    if branch is not None and branch not in branches:
        found.obstacles.append(
            ReleaseError(
                f"This is branch `{branch}`; releases are made from {wanted}.",
                hint="Check out that branch, or name this one in `release: {branches: [...]}`.",
            )
        )
        return
    if refs is None:
        return
    candidates = [branch] if branch else list(branches)
    for name in candidates:
        if refs.branches.get(name) == head:
            return
        known = checkout.resolve(f"refs/remotes/{remote}/{name}")
        if name in refs.branches and known and checkout.is_ancestor(head, known):
            return
    if branch is None:
        message = f"No branch is checked out, and this commit is not in {wanted} at `{remote}`."
    else:
        message = f"This commit is not in `{branch}` at `{remote}` yet."
    hint = "Push it first: a release is made of what everybody has."
    found.obstacles.append(ReleaseError(message, hint=hint))
