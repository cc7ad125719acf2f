"""Release: find the project, its forge and its registry, and run the steps.

The destination follows from the remote: the forge's address, the owner and the repository. A stack
file may name the forge (`release: {forge: ...}`) where the remote does not show it.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from lapwing.errors import ForgeError, ReleaseError
from lapwing.registry.client import RegistryClient
from lapwing.registry.push import Progress
from lapwing.release import remote
from lapwing.release.forges import open_forge
from lapwing.release.git import Checkout
from lapwing.release.notes import notes
from lapwing.release.policy import Decision, Policy, decide
from lapwing.release.preflight import Preflight, run_preflight
from lapwing.release.remote import ForgeKind, RemoteRepository
from lapwing.release.run import Report, StepResult, preview_steps, run_steps
from lapwing.release.steps import ReleaseState
from lapwing.release.workflow import ReleaseContext, read_rules, release_steps
from lapwing.settings import Settings
from lapwing.stack import project
from lapwing.stack.image import is_loopback
from lapwing.stack.project import Released


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

    def decide(self) -> Decision:
        """Choose the next version. Raises ReleaseError if there can be none."""
        history = self.preflight.history
        return decide(history, read_rules(self.released, self.checkout, history.head))


def prepare(settings: Settings, folder: Path, policy: Policy | None = None) -> PreparedRelease:
    """Read the project of a folder and check its repository; `policy` overrides the file's.

    Raises StackFileError, UsageError, or ReleaseError if the next version is unknown.
    """
    released = project.read(project.find(folder))
    if policy is not None:
        release = released.delivery.release.model_copy(update={"policy": policy})
        delivery = released.delivery.model_copy(update={"release": release})
        released = replace(released, delivery=delivery)
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
    preflight = run_preflight(checkout, released.delivery.release.branches)
    if problem is not None:
        preflight.problems.append(problem)
    return PreparedRelease(released, checkout, preflight, kind, repository)


async def run(
    settings: Settings,
    prepared: PreparedRelease,
    decision: Decision,
    progress: Progress,
    report: Report,
    *,
    dry_run: bool,
) -> list[StepResult]:
    """Release a version, or complete its release; with `dry_run`, only check.

    Raises the first problem that prevents the release, ReleaseStopped if a step fails.
    """
    released, preflight = prepared.released, prepared.preflight
    kind, repository = prepared.kind, prepared.repository
    if decision.next is None:
        return []
    if preflight.problems and not dry_run:
        raise preflight.problems[0]
    registry = released.delivery.registry
    compare, last = None, preflight.history.last
    if repository is not None and last is not None:
        compare = f"{repository.page}/compare/{last.tag}...{decision.next.tag}"
    head = preflight.history.head
    rules = read_rules(released, prepared.checkout, head)
    state = ReleaseState(
        decision.next.tag,
        head,
        notes(decision, rules, compare),
        prepared.checkout,
        preflight.remote or "",
    )
    async with AsyncExitStack() as stack:
        forge = None
        if kind is not None and repository is not None:
            forge = await stack.enter_async_context(open_forge(settings, repository, kind))
            own_registry = remote.forge_registry(repository, kind)
            registry = registry or own_registry
            login = _with_tokens(settings, registry, own_registry, settings.forge_token(kind))
        else:
            login = _with_tokens(settings, registry)
        images = await stack.enter_async_context(RegistryClient(login))
        context = ReleaseContext(
            prepared.checkout, images, progress, settings.environ, forge, registry
        )
        steps = release_steps(released, state, context)
        if preflight.problems:
            return await preview_steps(steps, preflight.problems, report)
        return await run_steps(steps, dry_run=dry_run, report=report)


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
