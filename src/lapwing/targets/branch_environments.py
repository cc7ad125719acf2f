"""The environments of branches on one machine: the list, its bounds, which to remove, the removal.

    found -> with_branches (the branches that exist) -> gone, or choose_room at the maximum

`check_limits` runs before anything is built. Only the caller knows which branches exist, because a
server has no access to the repository of the source; so removal is a decision of the client.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from lapwing.build.release import ReleaseStore
from lapwing.desired import removal
from lapwing.desired.history import ServiceAt, history
from lapwing.desired.repository import DesiredRepository
from lapwing.desired.secrets import SecretStore
from lapwing.errors import AgentError, SourceError, StateError, UsageError
from lapwing.observed import agent, status
from lapwing.server import branch_lock
from lapwing.settings import Settings
from lapwing.stack.branch_names import SEPARATOR, environment_of, split
from lapwing.stack.branches import Branches
from lapwing.stack.load import LoadedStack
from lapwing.stack.quantities import show_size
from lapwing.system import files
from lapwing.system.git import Git
from lapwing.targets.base import EnvironmentRef, State, StatusReport
from lapwing.targets.machine_status import correct

FORGET_TIMEOUT_S = 60.0
POLL_S = 0.1


class BranchEnvironment(msgspec.Struct, kw_only=True):
    """One environment of a branch.

    `deployed` is the Unix time of its last deployment, 0 without one; `disk` is in bytes.
    `exists` is whether its branch exists, None if that is not known; `branch` is set if it does.
    `releases` are the sizes of its releases in bytes, which others may use, too; `disk` has them.
    """

    environment: str
    branch: str | None = None
    exists: bool | None = None
    url: str | None = None
    state: State = "stopped"
    services: dict[str, ServiceAt] = {}
    deployed: float = 0
    disk: int = 0
    releases: dict[str, int] = {}


def found(settings: Settings, stack: str, template: str) -> list[BranchEnvironment]:
    """List the environments of branches on this machine, the last deployed one first.

    One whose removal was interrupted is listed, too.
    """
    repository = DesiredRepository(settings.desired)
    deployed = [name for key, name in repository.environments() if key == stack]
    pattern = f"{template}{SEPARATOR}*"
    parents = [settings.home / "environments", settings.data, settings.sources]
    left = [p for parent in parents for p in (parent / stack).glob(pattern) if p.is_dir()]
    names = {*deployed, *(folder.name.partition(".")[0] for folder in left)}
    names = {name for name in names if split(name)[0] == template}
    entries = [_entry(settings, repository, stack, n) for n in names if split(n)[1]]
    return sorted(entries, key=lambda entry: (-entry.deployed, entry.environment))


def _entry(
    settings: Settings, repository: DesiredRepository, stack: str, name: str
) -> BranchEnvironment:
    entry = BranchEnvironment(environment=name)
    folders = _folders(settings, stack, name)
    entry.disk = sum(_size(folder) for folder in folders)
    last = history(repository, stack, name, 1)
    if last:
        entry.deployed = datetime.datetime.fromisoformat(last[0].time).timestamp()
        entry.services = last[0].services
        store = ReleaseStore(settings.releases)
        releases = (store.find(stack, n, s.release) for n, s in last[0].services.items())
        entry.releases = {f"{r.service}/{r.name}": r.size for r in releases if r is not None}
        entry.disk += sum(entry.releases.values())
    seen = status.read(settings.environment(stack, name))
    if seen is not None:
        running = agent.is_running(settings.agent)
        entry.state = StatusReport(correct(seen, agent_running=running)).state
        entry.url = seen.url
    return entry


def _folders(settings: Settings, stack: str, name: str) -> list[Path]:
    """Return the folders that belong to one environment only."""
    parts = (settings.home / "environments", settings.data, settings.home / "backups")
    found = [parent / stack / name for parent in (*parts, settings.logs / "run")]
    return [*found, *(settings.sources / stack).glob(f"{name}.*")]


def _size(folder: Path) -> int:
    """Return the disk space of a folder in bytes. Files that disappear meanwhile count nothing."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_blocks * 512  # noqa: PTH118
            except OSError:
                continue
    return total


def check_limits(settings: Settings, loaded: LoadedStack) -> None:
    """Check the bounds before the environment of a branch is deployed. Raises StateError."""
    limits, wanted = loaded.settings.branches, loaded.environment
    if limits is not None and split(wanted)[1] is not None:
        entries = found(settings, loaded.stack.stack, split(wanted)[0])
        if len(entries) >= limits.max and wanted not in [e.environment for e in entries]:
            raise full(entries, limits, wanted)
        check_disk(entries, limits, wanted)


def check_disk(entries: Sequence[BranchEnvironment], limits: Branches, wanted: str) -> None:
    """Check that the environments use less disk space than they may. Raises StateError."""
    releases = {name: size for entry in entries for name, size in entry.releases.items()}
    used = sum(entry.disk - sum(entry.releases.values()) for entry in entries)
    used += sum(releases.values())
    if used >= limits.disk:
        raise StateError(
            f"The environments of branches use {show_size(used)} of disk space; the limit is "
            f"{show_size(limits.disk)}.",
            detail=_listing(entries),
            hint=f"{_removal_hint(split(wanted)[0])} Or raise `disk` of `branches`.",
        )


def full(
    entries: Sequence[BranchEnvironment],
    limits: Branches,
    wanted: str,
    problem: SourceError | None = None,
) -> StateError:
    """Return the error for one environment too many; `problem` is why branches are not known."""
    unknown = f"\nThe branches are not known: {problem}" if problem is not None else ""
    return StateError(
        f"{len(entries)} environments of branches exist, which is the maximum: {wanted} cannot be "
        "created.",
        detail=_listing(entries) + unknown,
        hint=f"{_removal_hint(split(wanted)[0])} Or raise `max` of `branches`, now {limits.max}.",
    )


def _removal_hint(template: str) -> str:
    return (
        "Remove one with its data: `lapwing down --volumes -e ENVIRONMENT`, or those whose branch "
        f"is gone: `lapwing down --gone -e {template}`."
    )


def _listing(entries: Iterable[BranchEnvironment]) -> str:
    return "\n".join(
        f"{e.environment}  deployed {describe_age(e)}, {show_size(e.disk)}" for e in entries
    )


def describe_age(entry: BranchEnvironment) -> str:
    """Return how long ago an environment was deployed."""
    if not entry.deployed:
        return "never"
    seconds = max(0, time.time() - entry.deployed)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


# Branches


def branches(folder: Path, settings: Settings) -> list[str]:
    """List the branches of the remote `origin`, or of the only one, and local ones not pushed yet.

    A local branch that follows the branch of its name was pushed, so it does not count. Raises
    SourceError if the remote cannot be read, or there is no branch: nothing may be removed then.
    """
    git = Git(folder, settings.environ or os.environ, SourceError)
    remotes = git.text("remote").split()
    form = "--format=%(refname) %(upstream:remoteref) %(upstream:remotename)"
    lines = git.text("for-each-ref", form, "refs/heads").splitlines()
    local = [line.split(" ", 2) for line in lines]
    listed, new = list[str](), [name for name, _, _ in local]
    if remotes:
        if "origin" not in remotes and len(remotes) > 1:
            raise SourceError(
                f"The repository of {folder} has several remotes, and none is `origin`.",
                hint="Rename the remote that has the branches: `git remote rename NAME origin`.",
            )
        name = "origin" if "origin" in remotes else remotes[0]
        if token := (settings.environ or os.environ).get("LAPWING_FORGE_TOKEN"):
            git.use_token(git.text("remote", "get-url", name), token)
        lines = git.text("ls-remote", "--heads", name).splitlines()
        listed = [line.partition("\t")[2] for line in lines]
        new = [branch for branch, *upstream in local if upstream != [branch, name]]
    if not (listed if remotes else new):
        raise SourceError(
            f"No branch was found in the remote repository of {folder}.",
            hint="Nothing was removed. Push a branch first, or check `git ls-remote --heads`.",
        )
    return [name.removeprefix("refs/heads/") for name in {*listed, *new}]


def with_branches(
    entries: Iterable[BranchEnvironment], template: str, existing: Collection[str]
) -> list[BranchEnvironment]:
    """Return the entries with whether their branch exists, and its name."""
    names = {environment_of(template, branch): branch for branch in existing}
    return [
        msgspec.structs.replace(e, branch=names.get(e.environment), exists=e.environment in names)
        for e in entries
    ]


def gone(entries: Iterable[BranchEnvironment]) -> list[BranchEnvironment]:
    """Return the environments whose branch is gone, the least recently deployed one first."""
    return sorted((e for e in entries if e.exists is False), key=lambda entry: entry.deployed)


def choose_room(
    entries: Sequence[BranchEnvironment],
    wanted: str,
    limits: Branches,
    problem: SourceError | None = None,
) -> BranchEnvironment | None:
    """Return the environment to remove before another one is created; None if there is room.

    Raises StateError if the branches of all of them exist, or that is not known: for `problem`.
    """
    if len(entries) < limits.max or wanted in [entry.environment for entry in entries]:
        return None
    if not (candidates := gone(entries)):
        raise full(entries, limits, wanted, problem)
    return candidates[0]


def check_checkout(folder: Path, environment: str, settings: Settings) -> None:
    """Check that the commit of the branch of an environment is checked out. Raises UsageError.

    The working tree is deployed, so another one would be deployed under the name of the branch.
    """
    git = Git(folder, settings.environ or os.environ, SourceError)
    template = split(environment)[0]
    current = git.ask("symbolic-ref", "--quiet", "--short", "HEAD")
    names = [current] if current else []
    if not current:  # A detached HEAD, as in CI.
        form = "--format=%(refname:lstrip=2)"
        names = git.text("for-each-ref", "--points-at=HEAD", form, "refs/heads").splitlines()
        form = "--format=%(refname:lstrip=3)"
        names += git.text("for-each-ref", "--points-at=HEAD", form, "refs/remotes").splitlines()
    if environment not in [environment_of(template, name) for name in names]:
        raise UsageError(
            f"{folder} has {f'branch {current}' if current else 'a detached commit'} checked out, "
            f"but {environment} is the environment of another branch.",
            hint="The working tree is deployed: run `git switch BRANCH`, then the command again.",
        )


# Removal


@contextlib.contextmanager
def lock(settings: Settings, ref: EnvironmentRef, *, removal: bool) -> Iterator[None]:
    """Lock the environment of a branch: shared by deployments, exclusive for a removal.

    Other environments are not locked. On a server, `lapwing receive` holds the lock for the
    command that it runs. Raises ServerError on a timeout.
    """
    if settings.server or split(ref.environment)[1] is None:
        yield
        return
    sources = settings.sources / ref.stack
    with branch_lock.hold(sources, ref.environment, removal=removal) as file:
        yield
        if removal:
            file.unlink(missing_ok=True)


def remove(settings: Settings, ref: EnvironmentRef, actor: str) -> None:
    """Remove everything that a stopped environment of a branch has on this machine. Idempotent.

    Raises AgentError if the agent does not release it or files remain, or DesiredStateError.
    """
    if settings.desired.is_dir():
        removal.remove(DesiredRepository(settings.desired), ref.stack, ref.environment, actor)
    state, until = settings.environment(ref.stack, ref.environment), time.monotonic()
    while (state / "state.json").exists() and agent.is_running(settings.agent):
        if time.monotonic() - until > FORGET_TIMEOUT_S:
            raise AgentError(
                f"The agent did not remove the state of {ref} within {FORGET_TIMEOUT_S:.0f} s.",
                hint=f"See {settings.agent / 'agent.log'}, and run the command again.",
            )
        time.sleep(POLL_S)
    SecretStore(settings.secrets).remove_all(ref.stack, ref.environment)
    left: list[str] = []
    for folder in _folders(settings, ref.stack, ref.environment):
        if folder.parent != settings.sources / ref.stack:  # `lapwing receive` removes its files.
            files.remove_tree(folder)
            left += [str(folder)] if folder.exists() else []
    if left:
        raise AgentError(
            f"Not all files of {ref} could be removed.",
            detail="\n".join(left),
            hint="They may belong to the user of a container. Remove these folders as an "
            "administrator, then run the command again.",
        )
