"""Ship: what CI runs. It builds, tests, scans, and commits to the desired state; it touches no
runtime. Who deploys is the agent of the machine (or Argo CD), because of that commit.

    build -> test -> scan -> push -> fetch, commit on top, push (again if somebody else was faster)

Nothing is changed before the commit but caches, and the commit is one step of git: so it can be
interrupted anywhere, and run again. What is wanted already is not committed again.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from lapwing.build import scan, verdict
from lapwing.build.build import BuildResult
from lapwing.build.release import ReleaseStore
from lapwing.build.scan import Finding, Severity
from lapwing.build.source import revision as revision_of
from lapwing.build.trial import run_tests
from lapwing.desired.remote import Remote
from lapwing.desired.repository import DesiredRepository
from lapwing.errors import ConflictError, ScanError, SecretError, UsageError
from lapwing.plan import diff, make
from lapwing.plan.diff import Change
from lapwing.plan.make import Built
from lapwing.plan.model import Deployment, Document, Resource
from lapwing.settings import Settings
from lapwing.stack.load import LoadedStack
from lapwing.stack.scanning import Accepted
from lapwing.targets import bundles as deploy

if TYPE_CHECKING:
    from lapwing.registry.push import Progress

ATTEMPTS = 10
"""How often a commit on this machine is made when others come first."""

Tell = Callable[[str], None]
Outcome = Literal["done", "unchanged", "skipped"]


class BuildStep(Protocol):
    """Makes a release of each service: from source today, as images one day."""

    def __call__(
        self, loaded: LoadedStack, settings: Settings, wanted: list[str], tell: Tell
    ) -> dict[str, BuildResult]:
        """Build the services that are wanted. Raises BuildError or SourceError."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to ship and how. `remote` is the address of the desired state, None for this machine's.
    Findings of severity `fail_on` and above stop it; None is what the stack file says. Without
    `scanned` nothing is scanned, without `committed` nothing is committed. Releases are pushed to
    below `registry`, if it is given."""

    services: tuple[str, ...] = ()
    remote: str | None = None
    scanned: bool = True
    fail_on: Severity | None = None
    actor: str = "ci"
    committed: bool = True
    registry: str | None = None
    images: Mapping[str, str] = field(default_factory=dict)
    """On a cluster, the images of services that are not the stack file's."""


@dataclass(slots=True)
class Shipped:
    """What was done: each step with its outcome, and the commit, if one was needed."""

    built: dict[str, BuildResult] = field(default_factory=dict)
    steps: list[tuple[str, Outcome, str]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    accepted: list[tuple[Finding, Accepted]] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    commit: str | None = None


def ship(
    loaded: LoadedStack,
    settings: Settings,
    wanted: Wanted,
    tell: Tell,
    progress: Progress,
    build: BuildStep = deploy.build_services,
) -> Shipped:
    """Bring a revision to the desired state. `progress` is told of what is sent to a registry.

    Raises BuildError, TestsFailed, ScanError, ConflictError after many attempts, and what a
    deployment raises. Nothing was committed then.
    """
    if wanted.remote is not None:
        check_url(wanted.remote)
    if loaded.settings.target == "kubernetes":
        return _ship_manifests(loaded, settings, wanted, tell)
    if wanted.images:
        raise UsageError("--image is for a cluster; a machine gets what is built from source.")
    deploy.check_target(loaded)
    names = deploy.wanted_services(loaded, wanted.services)
    shipped = Shipped()
    shipped.built = build(loaded, settings, names, tell)
    deploy.dirty_only_locally(loaded, shipped.built)
    shipped.steps.append(("build", "done", f"{len(names)} services"))
    _test(loaded, settings, shipped, tell)
    _scan(loaded, settings, wanted, shipped, tell)
    if wanted.committed:
        registry = wanted.registry or loaded.stack.registry
        if registry is not None:
            asyncio.run(_push(settings, registry, shipped, tell, progress))
        _commit(loaded, settings, wanted, shipped, tell)
    else:
        shipped.steps.append(("commit", "skipped", "`--check`"))
    return shipped


def _ship_manifests(loaded: LoadedStack, settings: Settings, wanted: Wanted, tell: Tell) -> Shipped:
    """Commit the manifests of a cluster's environment. Its images were built, tested and scanned
    where they were made; the steps say so."""
    from lapwing.targets import manifests

    url = manifests.address_of(loaded, wanted.remote)
    deploy.wanted_services(loaded, wanted.services)
    revision = revision_of(loaded.folder, settings.environ)
    deployment = Deployment(actor=wanted.actor, revision=revision)
    made_elsewhere = "its images are made elsewhere"
    shipped = Shipped(steps=[(n, "skipped", made_elsewhere) for n in ("build", "test", "scan")])

    def attempt(repository: DesiredRepository) -> str | None:
        made = manifests.prepare(repository, loaded, wanted.services, wanted.images, deployment)
        manifests.refuse_offline(loaded, made)
        if not wanted.committed:
            return None
        shipped.changes = made.changes
        return manifests.commit(repository, made)

    tell(f"committing the manifests of {loaded.environment}")
    shipped.commit = Remote(url, settings.remotes, settings.environ).commit(attempt)
    if not wanted.committed:
        shipped.steps.append(("commit", "skipped", "`--check`"))
    elif shipped.commit is None:
        shipped.steps.append(("commit", "unchanged", "this is wanted already"))
    else:
        shipped.steps.append(("commit", "done", shipped.commit))
    return shipped


def _test(loaded: LoadedStack, settings: Settings, shipped: Shipped, tell: Tell) -> None:
    tested = []
    for name, result in shipped.built.items():
        build = loaded.stack.services[name].build
        assert build is not None
        if build.test is None:
            continue
        tell(f"testing {name}")
        run_tests(deploy.request_of(loaded, name), result.release, build.test, settings)
        tested.append(name)
    outcome: Outcome = "done" if tested else "skipped"
    told = ", ".join(tested) or "no service has a `build: {test: ...}`"
    shipped.steps.append(("test", outcome, told))


def _scan(
    loaded: LoadedStack, settings: Settings, wanted: Wanted, shipped: Shipped, tell: Tell
) -> None:
    if not wanted.scanned:
        shipped.steps.append(("scan", "skipped", "`--scan off`"))
        return
    scanner = scan.find_scanner(settings.environ)
    for name in scan.IGNORE_FILES:
        if (loaded.folder / name).exists():
            tell(f"{name} is not read; `scan: {{accept: [...]}}` in the stack file is")
    for name in shipped.built:
        tell(f"scanning {name} with {scanner.name}")
        shipped.findings += scanner.scan(deploy.request_of(loaded, name).folder)
    rules, today = loaded.stack.scan, datetime.datetime.now(datetime.UTC).date()
    fail_on = wanted.fail_on or rules.fail_on
    found = verdict.judge(shipped.findings, fail_on, rules.accept, today)
    shipped.accepted = found.accepted
    for entry in found.unused if not wanted.services else ():
        tell(f"{entry.id} is accepted until {entry.until}, and was not found: the entry can go")
    if found.stopping:
        raise ScanError(
            f"{scanner.name} found {len(found.stopping)} vulnerabilities of severity {fail_on} or "
            "above. Nothing was shipped.",
            hint="Take versions without them and lock them. `scan: {accept: [...]}` in the stack "
            "file accepts one until a day.",
            detail="\n".join(verdict.line(*each) for each in found.stopping),
        )
    told = f"{scanner.name}: {len(shipped.findings)} findings, none {fail_on} or above"
    if found.accepted:
        told += f" but {len(found.accepted)} accepted"
    for finding, entry in found.accepted:
        tell(f"accepted until {entry.until}: {verdict.line(finding)} ({entry.reason})")
    shipped.steps.append(("scan", "done", told))


async def _push(
    settings: Settings, registry: str, shipped: Shipped, tell: Tell, progress: Progress
) -> None:
    """Push each release to `registry`/<stack>/<service>, tagged by its revision and `latest`."""
    from lapwing.build import artifact as bundle
    from lapwing.registry.client import RegistryClient
    from lapwing.stack import image

    async with RegistryClient(settings) as client:
        for name, result in shipped.built.items():
            release = result.release
            goal = image.parse(f"{registry}/{release.stack}/{name}", lower=True, default_tag=None)
            tell(f"pushing {release.name} to {goal.name}")
            folder = ReleaseStore(settings.releases).folder(release.stack, name, release.name)
            with tempfile.TemporaryDirectory(prefix="lapwing-push-") as place:
                archive = Path(place) / "release.tar"
                bundle.pack(folder, archive)
                target = client.repository(goal, write=True)
                tags = (result.revision, image.LATEST)
                await bundle.push(release, archive, target, tags, progress)
    shipped.steps.append(("push", "done", f"{len(shipped.built)} releases to {registry}"))


def _commit(
    loaded: LoadedStack, settings: Settings, wanted: Wanted, shipped: Shipped, tell: Tell
) -> None:
    """Commit on top of what there is, again and again if others are faster."""

    def attempt(repository: DesiredRepository) -> str | None:
        expected, document, changes = _document(loaded, settings, wanted, shipped, repository)
        if not changes:
            return None
        if shipped.changes:
            tell("another commit came first; trying again on top of it")
        shipped.changes = changes
        return repository.commit(document, expected=expected)

    if wanted.remote is not None:
        made = Remote(wanted.remote, settings.remotes, settings.environ).commit(attempt)
    else:
        made = _insist(lambda: attempt(DesiredRepository(settings.desired)))
    shipped.commit = made
    shipped.steps.append(
        ("commit", "done", made) if made else ("commit", "unchanged", "this is wanted already")
    )


def _insist(attempt: Callable[[], str | None]) -> str | None:
    """Commit here, some times. Raises ConflictError."""
    for _ in range(ATTEMPTS - 1):
        with contextlib.suppress(ConflictError):
            return attempt()
    return attempt()


def check_url(url: str) -> str:
    """The address, if it may be one. Raises UsageError: a password in it would be seen."""
    if re.search(r"://[^/@]*:[^/@]*@", url):
        raise UsageError(
            "The address of the desired state has a password in it, which others could see.",
            hint="Take it out, and give the token as LAPWING_DESIRED_TOKEN, or use git's "
            "credential helpers.",
        )
    if not url or url.startswith("-"):
        raise UsageError(f"{url!r} is not the address of a git repository.")
    return url


def _document(
    loaded: LoadedStack,
    settings: Settings,
    wanted: Wanted,
    shipped: Shipped,
    repository: DesiredRepository,
) -> tuple[str | None, Document, list[Change]]:
    """What to commit, on top of which commit, and what it changes."""
    if wanted.remote is None:
        prepared = deploy.prepare(
            loaded, settings, services=wanted.services, actor=wanted.actor, built=shipped.built
        )
        return prepared.expected, prepared.document, prepared.changes
    where = (loaded.stack.stack, loaded.environment)
    expected, current = repository.newest(*where), repository.understood(*where)
    document = make.make(
        loaded,
        releases={n: Built(r.release.name, r.revision) for n, r in shipped.built.items()},
        resources=_bound(loaded, current),
        secrets=_known(loaded, current, list(shipped.built)),
        deployment=Deployment(actor=wanted.actor, revision=deploy.revision_of(shipped.built)),
        current=current,
    )
    kept = deploy.keep_revisions(document, current)
    return expected, kept, diff.diff(kept, current)


def _bound(loaded: LoadedStack, current: Document | None) -> dict[str, Resource]:
    """The resources as the machine bound them: CI cannot know what is installed there."""
    there = current.resources if current else {}
    for name in loaded.stack.resources:
        if name not in there:
            raise UsageError(
                f"Resource {name} is not bound in {loaded.environment!r} yet.",
                hint="Run `lapwing deploy` on the machine once: it knows what is installed there.",
            )
    return {name: there[name] for name in loaded.stack.resources}


def _known(loaded: LoadedStack, current: Document | None, names: list[str]) -> dict[str, str]:
    """The versions of secrets as the machine has them: CI never sees one."""
    known: dict[str, str] = {}
    for service in (current.services if current else {}).values():
        known |= service.secrets
    for name in names:
        for secret in loaded.stack.services[name].secret_names:
            if secret not in known:
                raise SecretError(
                    f"Secret {secret} of {name} is not set in {loaded.environment!r}.",
                    hint=f"On the machine: `lapwing secret set {secret} -e {loaded.environment}`, "
                    "then `lapwing deploy` once.",
                )
    return known
