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
from lapwing.release.line import Line
from lapwing.release.policy import History
from lapwing.release.version import Version

Paths = Sequence[str]
_MAX_NAMES = 5


@dataclass(slots=True)
class Preflight:
    """What the checks found.

    `line` is the branch that is released, and `remote` the remote, if there is one; `objects` are
    those of its tags; `problems` prevent the release; `hints` are for people.
    """

    history: History
    line: Line
    remote: str | None
    objects: Mapping[str, str] = field(default_factory=dict)
    problems: list[LapwingError] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)


def run_preflight(
    checkout: Checkout, lines: Sequence[Line], prefix: str = version.PREFIX, paths: Paths = ()
) -> Preflight:
    """Check a repository. `lines` are the branches that releases are made from.

    Only tags with the prefix count, and only commits that touch the paths, if there are any.

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
    line = _find_line(checkout, head, branch, lines, remote, refs)
    if isinstance(line, ReleaseError):
        problems.append(line)
        line = Line(branch or lines[0].branch)
    versions = _versions(checkout, head, line, prefix, remote, refs, hints)
    history = _history(checkout, head, versions, prefix, paths, remote)
    return Preflight(history, line, remote, refs.objects if refs else {}, problems, hints)


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
    checkout: Checkout,
    head: str,
    line: Line,
    prefix: str,
    remote: str | None,
    refs: Refs | None,
    hints: list[str],
) -> dict[Version, str]:
    """Return the versions that count for a branch, and their commits.

    The remote's tags replace those of the clone.
    """
    local = checkout.tags()
    every = {**local, **(refs.tags if refs else {})}
    near = sorted(name for name in every if version.is_near_miss(name, prefix))
    if near:
        hints.append(f"Ignored tags that are not versions: {', '.join(near[:_MAX_NAMES])}.")
    versions: dict[Version, str] = {}
    for name, commit in every.items():
        number = version.of_tag(name, prefix)
        if number is None or not line.counts(number):
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
    checkout: Checkout,
    head: str,
    versions: Mapping[Version, str],
    prefix: str,
    paths: Paths,
    remote: str | None,
) -> History:
    """Return where the commit is among the versions, and the commits since the last."""
    on_head = within = last = last_final = None
    for number in sorted(versions, reverse=True):
        commit = versions[number]
        if commit == head:
            on_head = on_head or number
            continue
        if not checkout.has(commit) and remote is not None:
            checkout.fetch_tag(remote, number.tag)
        if checkout.is_ancestor(commit, head):
            last = last or number
            if not number.prerelease:
                last_final = number
                break
            continue
        if checkout.is_ancestor(head, commit):
            within = number
    since = versions[last] if last else None
    return History(
        head=head,
        last=last,
        commits=checkout.commits(since, head, paths),
        changed=checkout.changed(since, head, paths),
        tags={number.tag: commit for number, commit in versions.items()},
        on_head=on_head,
        within=within,
        last_final=last_final,
        prefix=prefix,
        mainline=checkout.mainline(since, head),
    )


def _find_line(
    checkout: Checkout,
    head: str,
    branch: str | None,
    lines: Sequence[Line],
    remote: str | None,
    refs: Refs | None,
) -> Line | ReleaseError:
    """Return the release branch that has a commit at the remote, or why there is none."""
    wanted = " or ".join(line.branch for line in lines)
    found = [line for line in lines if branch in (None, line.branch)]
    if not found:
        hint = "Check out that branch, or add this one to `release: {branches: [...]}`."
        message = f"Branch `{branch}` is not a release branch ({wanted})."
        return ReleaseError(message, hint=hint)
    if refs is None:
        return found[0]
    for line in found:
        if refs.branches.get(line.branch) == head:
            return line
    for line in found:
        known = checkout.resolve(f"refs/remotes/{remote}/{line.branch}")
        if line.branch in refs.branches and known and checkout.is_ancestor(head, known):
            return line
    message = f"This commit is not in `{branch}` at `{remote}`."
    if branch is None:
        message = f"The detached HEAD is not in {wanted} at `{remote}`."
    hint = f"Push it first: `git push {remote} {branch or f'HEAD:{lines[0].branch}'}`."
    return ReleaseError(message, hint=hint)
