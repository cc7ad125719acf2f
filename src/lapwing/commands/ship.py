"""Ship: what CI runs. It builds, tests, scans, and commits to the desired state.

    build -> test -> scan -> push -> fetch, commit on top, push (again after a conflict)

It changes nothing that runs: the agent of the machine (or Argo CD) deploys the commit. Nothing but
caches is changed before the commit, and the commit is one step of git: so it can be interrupted
anywhere, and run again. An unchanged desired state is not committed again.

For a server that is reached over SSH, only the steps before the commit run here: the command line
then runs `lapwing deploy` on the server, which builds the same commit and makes the document. The
steps for a cluster are in `ship_images`.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from msgspec import UNSET

from lapwing.commands import shipped_document, shipped_releases
from lapwing.commands.shipment import Shipment, ShipOptions, ShipResult
from lapwing.desired.repository import DesiredRepository
from lapwing.errors import ConflictError, UsageError
from lapwing.plan.make import Built
from lapwing.settings import Settings
from lapwing.stack.load import LoadedStack
from lapwing.targets import branch_environments, bundles, guards, requirements, sources
from lapwing.targets.base import EnvironmentRef
from lapwing.targets.cluster_images import BuiltImages
from lapwing.targets.planned import PlannedChange

if TYPE_CHECKING:
    from lapwing.registry.push import Progress

MAX_ATTEMPTS = 10
"""How often a commit to this machine's desired state is tried after a conflict."""


def ship(
    loaded: LoadedStack,
    settings: Settings,
    options: ShipOptions,
    report: Callable[[str], None],
    progress: Progress,
) -> ShipResult:
    """Commit a revision to the desired state. `progress` shows what is sent to a registry.

    Raises BuildError, TestsFailed, ScanError, ConflictError after many attempts, and what a
    deployment raises. Then nothing was committed.
    """
    if options.remote is not None:
        check_url(options.remote)
    if loaded.settings.target == "kubernetes":
        from lapwing.commands.ship_images import ship_images

        images_run = Shipment(loaded, settings, options, report)
        ship_images(images_run, progress)
        return images_run.result
    if options.images:
        raise UsageError(
            f"--image needs an environment on a cluster; {loaded.environment!r} is a machine.",
            hint="Omit --image: a machine runs releases built from source.",
        )
    ref = EnvironmentRef(loaded.stack.stack, loaded.environment)
    is_local = options.commit and options.remote is None and not options.by_server
    guard = branch_environments.lock(settings, ref, removal=False)
    with guard if is_local else contextlib.nullcontext():
        return _ship_to_machine(loaded, settings, options, report, progress)


def _ship_to_machine(
    loaded: LoadedStack,
    settings: Settings,
    options: ShipOptions,
    report: Callable[[str], None],
    progress: Progress,
) -> ShipResult:
    run = _MachineShipment(loaded, settings, options, report)
    bundles.check_target(loaded)
    names = sources.wanted_services(loaded, options.services)
    contained = sources.container_services(loaded, names)
    registry = options.registry or loaded.stack.registry
    if contained and not options.by_server and (options.remote is None or registry is None):
        raise UsageError(
            f"{contained[0]} runs as a container, which `lapwing ship` does not support on this "
            "machine.",
            hint=f"Use `lapwing deploy -e {loaded.environment}`, or set `desired` and `registry`.",
        )
    built = [name for name in names if name not in contained]
    if options.commit and not options.by_server:
        branch_environments.check_limits(settings, loaded)
        run.check_requirements(names)
    run.result.built = sources.build_services(loaded, settings, built, report)
    sources.check_committed(loaded, {n: b.revision for n, b in run.result.built.items()})
    images = BuiltImages(loaded)
    if not options.by_server and registry is not None:
        images, run.contained = shipped_releases.build_containers(
            loaded, settings, contained, registry, report, options.remote
        )
        run.result.images = images.references
    run.add_step("build", "done", f"{len(names)} services")
    run.test(run.result.built)
    run.scan(names, [each.image for each in images.results])
    if options.commit and registry is not None:
        run.push(registry, images, progress)
    if not options.by_server:
        run.commit_document()
    return run.result


@dataclass(slots=True)
class _MachineShipment(Shipment):
    """One run of ship for an environment on a machine."""

    artifacts: dict[str, str] = field(default_factory=dict)
    """Where the releases were pushed, by service: references by digest."""
    contained: dict[str, Built] = field(default_factory=dict)
    """The releases of services that run as containers on the machine."""

    def check_requirements(self, names: list[str]) -> None:
        """Find missing resources and secrets, or an unreachable remote, before the build."""
        if self.options.remote is not None:
            self.remote(self.options.remote).fetch()
            return
        loaded, repository = self.loaded, DesiredRepository(self.settings.desired)
        current = repository.latest_valid(loaded.stack.stack, loaded.environment)
        requirements.find_requirements(loaded, self.settings, current, names, sources=names)

    def push(self, registry: str, images: BuiltImages, progress: Progress) -> None:
        """Push the releases and images of a machine."""
        releases = {name: result.release for name, result in self.result.built.items()}
        tags = {name: result.revision for name, result in self.result.built.items()}
        self.artifacts = asyncio.run(
            shipped_releases.push(releases, tags, registry, self.settings, self.report, progress)
        )
        images.deliver(self.settings, self.report, progress)
        number = len(releases) + len(images.results)
        self.add_step("push", "done", f"{number} releases to {registry}")

    def commit_document(self) -> None:
        """Commit the document of the environment, again after a conflict."""
        if not self.options.commit:
            self.add_step("commit", "skipped", "`--check`")
            return

        url = self.options.remote
        folder = None if url else self.loaded.folder

        def attempt(repository: DesiredRepository) -> str | None:
            plan = self._plan(repository)
            if folder is not None:
                guards.check_folder(folder, plan.before)
                ref = EnvironmentRef(self.loaded.stack.stack, self.loaded.environment)
                guards.check_restore(self.settings, ref)
            if not plan.changes:
                return None
            if self.result.changes:
                self.report("another commit came first; trying again on top of it")
            self.result.changes = plan.changes
            return guards.commit(repository, guards.check(repository, plan, "deploy"), folder)

        if url is not None:
            commit = self.remote(url).commit(attempt)
        else:
            commit = _retry_conflicts(lambda: attempt(DesiredRepository(self.settings.desired)))
        self.add_commit(commit)

    def _plan(self, repository: DesiredRepository) -> PlannedChange:
        """Plan the commit on top of what the repository has."""
        loaded, options, built = self.loaded, self.options, self.result.built
        if options.remote is None:
            return bundles.plan(
                loaded,
                self.settings,
                services=options.services,
                actor=options.actor,
                preparation=bundles.Preparation(lambda _names: sources.releases_of(built)),
            )
        releases = {
            name: replace(release, artifact=self.artifacts.get(name, UNSET))
            for name, release in sources.releases_of(built).items()
        }
        releases |= self.contained
        return shipped_document.plan_document(loaded, repository, releases, options.actor)


def _retry_conflicts(attempt: Callable[[], str | None]) -> str | None:
    for _ in range(MAX_ATTEMPTS - 1):
        with contextlib.suppress(ConflictError):
            return attempt()
    return attempt()


def check_url(url: str) -> None:
    """Check the URL of a repository. Raises UsageError for a password, which would be visible."""
    if re.search(r"://[^/@]*:[^/@]*@", url):
        raise UsageError(
            "The URL of the desired-state repository has a password in it, which others could see.",
            hint="Remove it, and set LAPWING_DESIRED_TOKEN, or use git's credential helpers.",
        )
    if not url or url.startswith("-"):
        raise UsageError(
            f"Invalid URL of a desired-state repository: {url!r}.",
            hint="Pass a URL that `git clone` accepts.",
        )
