"""Deploying: from a folder to a commit.

    load -> build -> bind resources and secrets -> make the document -> commit

Nothing is changed before the commit but caches (releases, layers), so it can be interrupted at any
moment; after it, the agent goes on alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from lapwing.agent.resources.bind import bind
from lapwing.build.build import BuildRequest, BuildResult, build
from lapwing.desired.repository import DesiredRepository
from lapwing.desired.secrets import SecretStore
from lapwing.errors import SecretError, UsageError
from lapwing.plan import diff, make
from lapwing.plan.diff import Change
from lapwing.plan.make import Built
from lapwing.plan.model import Deployment, Document, Resource
from lapwing.settings import Settings
from lapwing.stack.load import LOCAL, LoadedStack, check_machine

if TYPE_CHECKING:
    from lapwing.desired.secrets import SecretStore

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A deployment that is ready to commit. `expected` is the commit it is based on; without
    `changes` there is nothing to do."""

    document: Document
    expected: str | None
    changes: list[Change]
    built: dict[str, BuildResult]


def check_target(loaded: LoadedStack) -> None:
    """Raises UsageError if this environment is not a machine, StackFileError if the stack has what
    a machine cannot run."""
    if loaded.settings.target != "machine":
        raise UsageError(
            f"Environment {loaded.environment!r} runs on a cluster, and this is for machines.",
            hint=f"`lapwing deploy -e {loaded.environment} --image SERVICE=REF` commits its "
            "manifests.",
        )
    check_machine(loaded)


def prepare(
    loaded: LoadedStack,
    settings: Settings,
    *,
    services: tuple[str, ...] = (),
    hold: bool = False,
    actor: str,
    tell: Tell = lambda _: None,
    built: dict[str, BuildResult] | None = None,
) -> Prepared:
    """Build what is asked for (all services by default) and make the document to commit. What was
    `built` already is taken as it is.

    Raises UsageError, BuildError, SourceError, ResourceError, SecretError or NoSpaceError.
    """
    check_target(loaded)
    wanted = wanted_services(loaded, services)
    if built is None:
        built = build_services(loaded, settings, wanted, tell)
    repository = DesiredRepository(settings.desired)
    where = (loaded.stack.stack, loaded.environment)
    repository.ensure()
    expected = repository.newest(*where)
    current = repository.understood(*where)
    store = SecretStore(settings.secrets)
    dirty_only_locally(loaded, built)
    document = make.make(
        loaded,
        releases={n: Built(r.release.name, r.revision) for n, r in built.items()},
        resources=_bind(loaded, settings, store, current, tell),
        secrets=_secrets(loaded, store, wanted, tell),
        deployment=Deployment(kind="deploy", actor=actor, revision=revision_of(built), hold=hold),
        current=current,
    )
    kept = keep_revisions(document, current)
    return Prepared(kept, expected, diff.diff(kept, current), built)


def commit(prepared: Prepared, settings: Settings) -> str:
    """Commit a prepared deployment; returns the commit.

    Raises ConflictError if another deployment came first: prepare again then.
    """
    return DesiredRepository(settings.desired).commit(prepared.document, expected=prepared.expected)


def wanted_services(loaded: LoadedStack, services: tuple[str, ...]) -> list[str]:
    """The services asked for, all by default. Raises UsageError for one that is not there."""
    known = loaded.stack.services
    for name in services:
        if name not in known:
            from lapwing.errors import did_you_mean

            raise UsageError(
                f"There is no service {name!r} in this stack.",
                hint=did_you_mean(name, known) or f"Its services are {', '.join(known)}.",
            )
    return list(services) or list(known)


def request_of(loaded: LoadedStack, name: str) -> BuildRequest:
    """What to build for a service."""
    service = loaded.stack.services[name]
    assert service.build is not None
    return BuildRequest(
        stack=loaded.stack.stack,
        service=name,
        folder=(loaded.folder / service.build.path).resolve(),
        static=service.static,
        python=service.build.python,
        script=service.build.script,
        env=dict(service.build.env),
        timeout=service.build.timeout,
    )


def build_services(
    loaded: LoadedStack, settings: Settings, wanted: list[str], tell: Tell
) -> dict[str, BuildResult]:
    """Build some services. Raises BuildError, SourceError or NoSpaceError."""
    built = {}
    for request in [request_of(loaded, name) for name in wanted]:
        # One at a time, in this thread: Ctrl-C ends the build under way.
        tell(f"building {request.service}")
        result = build(request, settings)
        how = "unchanged" if result.reused else f"built in {result.seconds:.1f} s"
        tell(f"{request.service}: {result.release.name} ({how})")
        built[request.service] = result
    return built


def _bind(
    loaded: LoadedStack,
    settings: Settings,
    store: SecretStore,
    current: Document | None,
    tell: Tell,
) -> dict[str, Resource]:
    where = (loaded.stack.stack, loaded.environment)
    bound = {}
    for name, wanted in loaded.stack.resources.items():
        before = current.resources.get(name) if current else None

        def keep(url: str, name: str = name) -> str:
            return store.set(*where, f"resource.{name}", url)

        bound[name] = bind(
            name,
            make.resource(name, wanted),
            embedded=wanted.embedded,
            url=settings.resource_url(name),
            current=before,
            keep_url=keep,
        )
        if before is None:
            tell(f"{name}: {_provider(bound[name])}")
    return bound


def _provider(resource: Resource) -> str:
    if resource.provider == "url":
        return f"{resource.kind} at the URL you gave"
    if resource.provider == "binary":
        return f"{resource.kind} by {resource.program}"
    return f"no {resource.kind} server here; the application keeps its data in a folder"


def _secrets(
    loaded: LoadedStack, store: SecretStore, wanted: list[str], tell: Tell
) -> Mapping[str, str]:
    """The versions of all secrets. One that was never set is made up, in `local` and where the
    stack file says `generate`."""
    where = (loaded.stack.stack, loaded.environment)
    versions = store.current(*where)
    for service in wanted:
        for secret in loaded.stack.services[service].secrets:
            name = secret.name
            if name in versions:
                continue
            if loaded.environment != LOCAL and secret.generate is None:
                option = f" -e {loaded.environment}"
                raise SecretError(
                    f"Secret {name} of {service} is not set.",
                    hint=f"Set it with `lapwing secret set {name}{option}`.",
                )
            versions[name] = store.generate(*where, name, secret.generate)
            tell(f"made up a value for the secret {name}")
    return versions


def dirty_only_locally(loaded: LoadedStack, built: Mapping[str, BuildResult]) -> None:
    """Raises UsageError if what was built is in no commit, but for `local`."""
    if loaded.environment == LOCAL:
        return
    for name, result in built.items():
        if result.revision.endswith("-dirty"):
            raise UsageError(
                f"{name} has changes that are not committed; {loaded.environment!r} takes "
                "revisions only.",
                hint="Commit them, or deploy to `local`.",
            )


def revision_of(built: Mapping[str, BuildResult]) -> str:
    """The revision of a deployment: of several, one with uncommitted changes if there is one."""
    revisions = sorted({r.revision for r in built.values()}, key=lambda r: not r.endswith("-dirty"))
    return revisions[0] if revisions else ""


def keep_revisions(document: Document, current: Document | None) -> Document:
    """A service whose release stays keeps the revision it was deployed with, so that a commit
    elsewhere in the repository does not look like a change of it."""
    if current is None:
        return document
    services = dict(document.services)
    for name, service in services.items():
        before = current.services.get(name)
        if before is not None and before.release == service.release:
            services[name] = msgspec.structs.replace(service, revision=before.revision)
    return msgspec.structs.replace(document, services=services)
