"""Ship: what CI runs. It builds, tests, scans, and commits to the desired state.

    build -> test -> scan -> push -> fetch, commit on top, push (again after a conflict)

It changes nothing that runs: the agent of the machine (or Argo CD) deploys the commit. Nothing but
caches is changed before the commit, and the commit is one step of git: so it can be interrupted
anywhere, and run again. An unchanged desired state is not committed again.

For a server that is reached over SSH, only the steps before the commit run here: the command line
then runs `lapwing deploy` on the server, which builds the same commit and makes the document.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lapwing.build import scan
from lapwing.build.builder import BuildResult
from lapwing.build.image.builder import Image
from lapwing.build.release import ReleaseStore
from lapwing.build.scan import Finding, Severity
from lapwing.build.testing import run_tests
from lapwing.commands import shipped_document
from lapwing.desired.remote import Remote
from lapwing.desired.repository import DesiredRepository
from lapwing.errors import ConflictError, UsageError
from lapwing.plan.diff import Change
from lapwing.plan.model import Deployment
from lapwing.settings import Settings
from lapwing.stack.load import LoadedStack
from lapwing.stack.scanning import Accepted
from lapwing.system.git import find_revision
from lapwing.targets import (
    bundles,
    cluster_images,
    guards,
    image_scan,
    requirements,
    sources,
)
from lapwing.targets.base import EnvironmentRef
from lapwing.targets.cluster_images import BuiltImages
from lapwing.targets.deployed_tags import update_tags_in
from lapwing.targets.planned import PlannedChange

if TYPE_CHECKING:
    from lapwing.registry.push import Progress

MAX_ATTEMPTS = 10
"""How often a commit to this machine's desired state is tried after a conflict."""

Outcome = Literal["done", "unchanged", "skipped", "failed"]


@dataclass(frozen=True, slots=True)
class ShipOptions:
    """What to ship and how."""

    services: tuple[str, ...] = ()
    remote: str | None = None
    """The URL of the desired-state repository; None for this machine's."""
    scan: bool = True
    fail_on: Severity | None = None
    """The severity from which a finding fails; None for the stack file's."""
    actor: str = "ci"
    commit: bool = True
    by_server: bool = False
    """Whether the server of the environment builds again and makes the commit."""
    registry: str | None = None
    """The registry and folder to push releases to."""
    images: Mapping[str, str] = field(default_factory=dict)
    """On a cluster, the images of services that are not the stack file's."""


@dataclass(slots=True)
class ShipResult:
    """What was done: each step with its outcome, and the commit, if one was needed."""

    built: dict[str, BuildResult] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)
    """On a cluster, the images that were built, by service."""
    steps: list[tuple[str, Outcome, str]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    accepted: list[tuple[Finding, Accepted]] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    commit: str | None = None


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
    run = _Shipment(loaded, settings, options, report)
    if loaded.settings.target == "kubernetes":
        run.ship_images(progress)
        return run.result
    if options.images:
        raise UsageError(
            f"--image needs an environment on a cluster; {loaded.environment!r} is a machine.",
            hint="Omit --image: a machine runs releases built from source.",
        )
    bundles.check_target(loaded)
    names = sources.wanted_services(loaded, options.services)
    contained = sources.container_services(loaded, names)
    if contained and not options.by_server:
        raise UsageError(
            f"{contained[0]} runs as a container, which `lapwing ship` does not support on this "
            "machine.",
            hint=f"Use `lapwing deploy -e {loaded.environment}`.",
        )
    built = [name for name in names if name not in contained]
    if options.commit and not options.by_server:
        run.check_requirements(names)
    run.result.built = sources.build_services(loaded, settings, built, report)
    sources.check_committed(loaded, {n: b.revision for n, b in run.result.built.items()})
    run.add_step("build", "done", f"{len(built)} services")
    run.test(run.result.built)
    run.scan(names)
    registry = options.registry or loaded.stack.registry
    if options.commit and registry is not None:
        asyncio.run(run.push(registry, progress))
    if not options.by_server:
        run.commit_document()
    return run.result


@dataclass(slots=True)
class _Shipment:
    """One run of ship."""

    loaded: LoadedStack
    settings: Settings
    options: ShipOptions
    report: Callable[[str], None]
    result: ShipResult = field(default_factory=ShipResult)

    def add_step(self, name: str, outcome: Outcome, text: str) -> None:
        self.result.steps.append((name, outcome, text))

    def check_requirements(self, names: list[str]) -> None:
        """Find missing resources and secrets before anything is built."""
        loaded, remote = self.loaded, self.options.remote

        def check(repository: DesiredRepository) -> None:
            current = repository.latest_valid(loaded.stack.stack, loaded.environment)
            if remote is None:
                requirements.find_requirements(loaded, self.settings, current, names, sources=names)
            else:
                shipped_document.bound_resources(loaded, current)
                shipped_document.secret_versions(loaded, current, names)

        if remote is None:
            check(DesiredRepository(self.settings.desired))
        else:
            self._remote(remote).commit(check)

    def test(self, built: Mapping[str, BuildResult]) -> None:
        """Run the tests of the services that have one."""
        tested = []
        for name, result in built.items():
            build = self.loaded.stack.services[name].build
            assert build is not None
            if build.test is None:
                continue
            self.report(f"testing {name}")
            request = sources.request_of(self.loaded, name, self.settings)
            run_tests(request, result.release, build.test, self.settings)
            tested.append(name)
        if tested:
            self.add_step("test", "done", ", ".join(tested))
        else:
            self.add_step("test", "skipped", "no service has a `build: {test: ...}`")

    def scan(self, names: Iterable[str], made: Iterable[Image] = ()) -> None:
        """Scan the sources of services, and images, for known vulnerabilities. Raises ScanError."""
        if not self.options.scan:
            self.add_step("scan", "skipped", "`--scan off`")
            return
        loaded, result, rules = self.loaded, self.result, self.loaded.stack.scan
        scanner = scan.find_scanner(self.settings.environ)
        for name in scan.IGNORE_FILES:
            if (loaded.folder / name).exists():
                self.report(f"{name} is ignored; use `scan: {{accept: [...]}}` in the stack file")
        for name in names:
            self.report(f"scanning {name} with {scanner.name}")
            result.findings += scanner.scan(sources.source_folder(loaded, name))
        result.findings += image_scan.scan_images(scanner, made, self.settings, self.report)
        result.findings = list(dict.fromkeys(result.findings))
        fail_on = self.options.fail_on or rules.fail_on
        found = image_scan.check_findings(
            loaded, result.findings, scanner.name, fail_on, self.report
        )
        result.accepted = found.accepted
        for entry in found.unused if not self.options.services else ():
            self.report(
                f"{entry.id} is accepted until {entry.until}, but was not found: remove the entry"
            )
        text = f"{scanner.name}: {len(result.findings)} findings, none {fail_on} or above"
        if found.accepted:
            text += f" except {len(found.accepted)} accepted"
        self.add_step("scan", "done", text)

    async def push(self, registry: str, progress: Progress) -> None:
        """Push each release to `registry`/<stack>/<service>, tagged by revision and `latest`."""
        from lapwing.build import artifact as bundle
        from lapwing.registry.client import RegistryClient
        from lapwing.stack import image

        built, store = self.result.built, ReleaseStore(self.settings.releases)
        async with RegistryClient(self.settings) as client:
            for name, result in built.items():
                release = result.release
                repository = f"{registry}/{release.stack}/{name}"
                target = image.parse(repository, lower=True, default_tag=None)
                self.report(f"pushing {release.name} to {target.name}")
                folder = store.folder(release.stack, name, release.name)
                with tempfile.TemporaryDirectory(prefix="lapwing-push-") as temporary:
                    archive = Path(temporary) / "release.tar"
                    bundle.pack(release, folder, archive)
                    tags = (result.revision, image.LATEST)
                    await bundle.push(
                        release, archive, client.repository(target, write=True), tags, progress
                    )
        self.add_step("push", "done", f"{len(built)} releases to {registry}")

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
            commit = self._remote(url).commit(attempt)
        else:
            commit = _retry_conflicts(lambda: attempt(DesiredRepository(self.settings.desired)))
        self._add_commit(commit)

    def ship_images(self, progress: Progress) -> None:
        """Build, test, scan and push the images of an environment on a cluster, and commit."""
        from lapwing.targets import manifests

        loaded, options = self.loaded, self.options
        remote = self._remote(manifests.desired_url(loaded, options.remote))
        sources.wanted_services(loaded, options.services)
        built = self._build_images()
        chosen = manifests.Images({**options.images, **built.references}, built.revisions)
        revision = find_revision(loaded.folder, self.settings.environ)
        deployment = Deployment(actor=options.actor, revision=revision)

        plans: list[PlannedChange] = []

        def attempt(repository: DesiredRepository) -> str | None:
            plan = manifests.plan(repository, loaded, options.services, chosen, deployment)
            plans.append(plan)
            checked = guards.check(repository, plan, "deploy")
            if not options.commit:
                return None
            self.result.changes = plan.changes
            if manifests.is_unchanged(repository, plan):
                return None
            built.deliver(self.settings, self.report, progress)
            return guards.commit(repository, checked)

        self.report(f"committing the manifests of {loaded.environment}")
        commit = remote.commit(attempt)
        if not options.commit:
            self.add_step("commit", "skipped", "`--check`")
            return
        registry = options.registry or loaded.registry
        if commit and registry is not None:
            update_tags_in(registry, plans[-1], self.settings, self.report)
        if commit and built.results:
            text = f"{len(built.results)} images to {built.destination.registry}"
            self.add_step("push", "done", text)
        self._add_commit(commit)

    def _build_images(self) -> BuiltImages:
        """Build the images of services without `image:`, and test and scan their sources."""
        loaded, options = self.loaded, self.options
        names = cluster_images.to_build(loaded, options.services, options.images)
        destination = cluster_images.registry_of(loaded, options.registry)
        if not names or destination is None:
            text = "no `registry` is set to push to" if names else "every service has an image"
            for name in ("build", "test", "scan"):
                self.add_step(name, "skipped", text)
            return BuiltImages(loaded)
        built = cluster_images.build(
            loaded, self.settings, names, destination, self.report, options.remote
        )
        self.add_step("build", "done", f"{len(names)} images")
        tested = [n for n in names if (b := loaded.stack.services[n].build) and b.test]
        self.test(sources.build_services(loaded, self.settings, tested, self.report))
        self.scan(names, [each.image for each in built.results])
        self.result.images = built.references
        return replace(built, options=replace(built.options, scan=False))

    def _remote(self, url: str) -> Remote:
        return Remote(url, self.settings.remotes, self.settings.environ)

    def _add_commit(self, commit: str | None) -> None:
        self.result.commit = commit
        if commit:
            self.add_step("commit", "done", commit)
        else:
            self.add_step("commit", "unchanged", "the desired state is unchanged")

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
        return shipped_document.plan_document(loaded, repository, built, options.actor)


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
