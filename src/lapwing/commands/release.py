"""Release: find the project, its forge and its registry, choose the version, and run the steps.

The destination follows from the remote: the forge's address, the owner and the repository. A stack
file may name the forge (`release: {forge: ...}`) where the remote does not show it.

    for each project: prepare -> pull requests of the commits -> decide -> steps

It starts again if another job took the version. Of several projects in a repository one is released
after the other; a failure does not prevent the others, and the next run completes what failed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from lapwing.errors import ForgeError, LapwingError, ReleaseError
from lapwing.registry.client import RegistryClient
from lapwing.registry.push import Progress
from lapwing.registry.signers import find_signer
from lapwing.release import remote
from lapwing.release.forge_steps import published_state
from lapwing.release.forges import open_forge
from lapwing.release.git import Checkout
from lapwing.release.line import line_of
from lapwing.release.notes import notes
from lapwing.release.policy import Decision, Policy, Rules, decide
from lapwing.release.preflight import Preflight, run_preflight
from lapwing.release.pull_requests import with_pull_requests
from lapwing.release.remote import ForgeKind, RemoteRepository
from lapwing.release.run import (
    Outcome,
    ReleaseStopped,
    Skipped,
    StepResult,
    preview_steps,
    run_steps,
)
from lapwing.release.steps import ReleaseState, TagTaken, read_pins
from lapwing.release.version import NONE, Version
from lapwing.release.workflow import ReleaseContext, read_rules, release_steps
from lapwing.settings import Settings
from lapwing.stack import project
from lapwing.stack.image import is_loopback
from lapwing.stack.project import Released

MAX_ATTEMPTS = 5
"""Versions that other jobs may take before a release gives up."""


@dataclass(frozen=True, slots=True)
class PreparedRelease:
    """What was found before a release.

    Without `kind` there is no forge. With it, but without `repository`, the remote is not on a
    forge, and the preflight has the problem.
    """

    released: Released
    checkout: Checkout
    preflight: Preflight
    kind: ForgeKind | None
    repository: RemoteRepository | None

    def rules(self) -> Rules:
        """Return the rules of the project's file. Raises ReleaseError."""
        preflight = self.preflight
        return read_rules(self.released, self.checkout, preflight.history.head, preflight.line)


class Reporter(Protocol):
    """Reports the progress of a release, whose version may be decided more than once."""

    def begin(self, project: str, *, several: bool) -> None:
        """Report the project that is released next, and whether there are several."""
        ...

    def decided(self, decision: Decision, hints: Sequence[str]) -> None:
        """Report the version, and hints for people."""
        ...

    def step(self, result: StepResult) -> None:
        """Report the outcome of a step."""
        ...


async def release(
    settings: Settings,
    folder: Path,
    policy: Policy | None,
    progress: Progress,
    reporter: Reporter,
    *,
    dry_run: bool,
) -> None:
    """Release the commit of a folder, or complete its release; with `dry_run`, only check.

    Raises the problem that prevents the release, ReleaseStopped if a step fails; for several
    projects ReleaseError with the failures, after all of them were tried.
    """
    projects = find_projects(folder, policy)
    failures: dict[str, LapwingError] = {}
    for released in projects:
        reporter.begin(released.name, several=len(projects) > 1)
        try:
            await _release_project(settings, released, progress, reporter, dry_run)
        except (LapwingError, ReleaseStopped) as failure:
            if len(projects) == 1:
                raise
            error = failure.error if isinstance(failure, ReleaseStopped) else failure
            failures[released.name] = error
    if failures:
        raise _failed_projects(failures, len(projects))


def _failed_projects(failures: Mapping[str, LapwingError], total: int) -> ReleaseError:
    """Return the error that lists the failures by project."""
    listed: list[str] = []
    for name, error in failures.items():
        listed.append(f"{name}: {error}")
        listed += [f"  {line}" for line in (error.detail or "").splitlines()]
        listed += [f"  {error.hint}"] if error.hint else []
    return ReleaseError(
        f"{len(failures)} of {total} projects cannot be released: {', '.join(failures)}.",
        hint="Correct the causes and run `lapwing release` again: completed steps are not "
        "repeated.",
        detail="\n".join(listed),
    )


def find_projects(folder: Path, policy: Policy | None = None) -> list[Released]:
    """Read what is released from a folder; `policy` overrides the file's.

    Raises StackFileError or UsageError.
    """
    released = project.read(project.find(folder))
    if policy is not None:
        release = released.delivery.release.model_copy(update={"policy": policy})
        delivery = released.delivery.model_copy(update={"release": release})
        released = replace(released, delivery=delivery)
    return released.projects()


async def _release_project(
    settings: Settings, released: Released, progress: Progress, reporter: Reporter, dry_run: bool
) -> None:
    for _ in range(MAX_ATTEMPTS):
        prepared = prepare(settings, released)
        try:
            async with AsyncExitStack() as stack:
                await _release(stack, settings, prepared, progress, reporter, dry_run)
                return
        except TagTaken:
            continue
    raise ReleaseError(
        f"Other jobs created the next version {MAX_ATTEMPTS} times.",
        hint="Run the command again.",
    )


def prepare(settings: Settings, released: Released) -> PreparedRelease:
    """Check the repository of a project. Raises ReleaseError if the next version is unknown."""
    checkout = Checkout(released.folder, settings.environ)
    name = checkout.remote(checkout.branch())
    problem: ReleaseError | None = None
    kind: ForgeKind | None = None
    repository: RemoteRepository | None = None
    forge = released.delivery.release.forge
    if name is not None and (forge is None or forge.kind != "none"):
        url = checkout.url(name)
        try:
            repository = remote.parse_remote(url, web=forge.url if forge else None)
            stated = forge.kind if forge is not None and forge.kind != "none" else None
            kind = stated or remote.forge_kind(repository)
            _check_encrypted(repository, stated=forge is not None and forge.url is not None)
            token = settings.forge_token(kind)
            if token is not None:
                checkout.use_token(url, token)
        except ReleaseError as error:
            problem = error
    lines = [line_of(branch) for branch in released.delivery.release.branches]
    preflight = run_preflight(checkout, lines, released.prefix, released.paths)
    if problem is not None:
        preflight.problems.append(problem)
    return PreparedRelease(released, checkout, preflight, kind, repository)


async def _release(
    stack: AsyncExitStack,
    settings: Settings,
    prepared: PreparedRelease,
    progress: Progress,
    reporter: Reporter,
    dry_run: bool,
) -> None:
    preflight, rules, forge = prepared.preflight, prepared.rules(), None
    if prepared.kind is not None and prepared.repository is not None:
        opened = open_forge(settings, prepared.repository, prepared.kind)
        forge = await stack.enter_async_context(opened)
        try:
            if not preflight.problems:  # Such as: the connection is not encrypted.
                preflight.history = await with_pull_requests(preflight.history, rules, forge)
        except LapwingError as error:
            preflight.problems.append(error)
    decision = decide(preflight.history, rules)
    reporter.decided(decision, preflight.hints)
    last = preflight.history.last
    if decision.next is None:
        if forge is not None and last is not None and not preflight.problems:
            found = await published_state(forge, last.tag)
            if isinstance(found, Skipped):
                reporter.step(StepResult("previous", Outcome.SKIPPED, found.reason))
        return
    if preflight.problems and not dry_run:
        raise preflight.problems[0]
    state = _state(prepared, decision, rules)
    registry, login = _registry(settings, prepared)
    images = await stack.enter_async_context(RegistryClient(login))
    context = ReleaseContext(
        prepared.checkout,
        images,
        progress,
        settings.environ,
        partial(find_signer, settings, next(iter(prepared.released.stacks), None)),
        forge,
        registry,
        last.tag if last else None,
    )
    steps = release_steps(prepared.released, state, context)
    if preflight.problems:
        await preview_steps(steps, preflight.problems, reporter.step)
    else:
        await run_steps(steps, dry_run=dry_run, report=reporter.step)


def _state(prepared: PreparedRelease, decision: Decision, rules: Rules) -> ReleaseState:
    """Return what the steps share before the first of them. `decision` has a version."""
    preflight, next_ = prepared.preflight, decision.next or NONE
    history, last = preflight.history, preflight.history.last
    compare = None
    if prepared.repository is not None and last is not None:
        compare = f"{prepared.repository.page}/compare/{last.tag}...{next_.tag}"
    return ReleaseState(
        next_,
        history.head,
        notes(decision, rules, compare),
        prepared.checkout,
        preflight.remote or "",
        history.newer(next_),
        decision.resumed,
        _pins(prepared, next_),
        _pins(prepared, last) if last else {},
    )


def _pins(prepared: PreparedRelease, version: Version) -> dict[str, str]:
    """Return the digests of mirrored images in a version's tag, if it has one at the remote."""
    preflight, checkout = prepared.preflight, prepared.checkout
    found = preflight.objects.get(version.tag)
    if found is None or preflight.remote is None or not prepared.released.delivery.mirror:
        return {}
    if not checkout.has(found):
        checkout.fetch_tag(preflight.remote, version.tag)
    return read_pins(checkout.message(found))


def _registry(settings: Settings, prepared: PreparedRelease) -> tuple[str | None, Settings]:
    """Return the registry and folder for images, and the settings with its token."""
    registry = prepared.released.delivery.registry
    kind, repository = prepared.kind, prepared.repository
    if kind is None or repository is None:
        return registry, _with_tokens(settings, registry)
    own = remote.forge_registry(repository, kind)
    registry = registry or own
    return registry, _with_tokens(settings, registry, own, settings.forge_token(kind))


def _with_tokens(
    settings: Settings, registry: str | None, own: str | None = None, token: str | None = None
) -> Settings:
    """Add the tokens for the release's registry and for the forge's own registry.

    Jobs of Gitea's runners have a token that cannot push images, so LAPWING_REGISTRY_TOKEN has
    precedence.
    """
    given = settings.environ.get("LAPWING_REGISTRY_TOKEN")
    for where, value in ((registry, given), (own, token)):
        if where and value:
            settings = settings.with_registry_token(where.partition("/")[0], value)
    return settings


def _check_encrypted(repository: RemoteRepository, *, stated: bool) -> None:
    """Allow http only for loopback, or where the file has the forge's `http://` address."""
    parts = urlsplit(repository.web)
    if parts.scheme == "http" and not stated and not is_loopback(parts.netloc):
        raise ForgeError(
            f"The connection to {repository.web} is not encrypted: the token could be intercepted.",
            hint="Use an https remote, or, if http is intended, write "
            f"`forge: {{kind: gitea, url: {repository.web}}}`.",
        )
