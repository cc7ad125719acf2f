"""Plan a deployment to a machine: from source to a document.

    bind resources and secrets -> build -> make the document

Only caches (releases, layers) change, so it can be interrupted at any moment.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath

import msgspec

from lapwing.agent.resources.bind import bind, variable
from lapwing.build.builder import BuildResult, build, check
from lapwing.build.context import BuildRequest
from lapwing.desired.repository import DesiredRepository
from lapwing.desired.secrets import SecretStore
from lapwing.errors import (
    LapwingError,
    RequirementsError,
    ResourceError,
    SecretError,
    SourceError,
    UsageError,
    check_name,
)
from lapwing.plan import make
from lapwing.plan.make import Built
from lapwing.plan.model import Deployment, Document, Resource
from lapwing.settings import Settings
from lapwing.stack.load import LOCAL, LoadedStack, check_machine
from lapwing.system import x509
from lapwing.system.git import Git
from lapwing.targets.planned import PlannedChange

Progress = Callable[[str], None]
DIRTY = "-dirty"
MAX_NAMED_FILES = 3


def check_target(loaded: LoadedStack) -> None:
    """Check that an environment is a machine that can run the stack.

    Raises UsageError or StackFileError.
    """
    if loaded.settings.target != "machine":
        name = loaded.environment
        raise UsageError(
            f"Environment {name!r} is on a cluster, not on a machine.",
            hint=f"Run `lapwing deploy -e {name} --image SERVICE=REF`.",
        )
    check_machine(loaded)


def plan(
    loaded: LoadedStack,
    settings: Settings,
    *,
    services: tuple[str, ...] = (),
    hold: bool = False,
    actor: str,
    progress: Progress = lambda _: None,
    build_all: Callable[[list[str]], Mapping[str, Built]] | None = None,
) -> PlannedChange:
    """Build services (all by default) and plan the commit.

    `build_all` returns their releases; by default they are built as processes. Raises UsageError,
    BuildError, SourceError, NoSpaceError, and as `find_requirements`.
    """
    check_target(loaded)
    wanted = wanted_services(loaded, services)
    repository = DesiredRepository(settings.desired)
    repository.ensure()
    where = (loaded.stack.stack, loaded.environment)
    requirements = find_requirements(
        loaded,
        settings,
        repository.latest_valid(*where),
        wanted,
        progress,
        sources=wanted,
    )
    check_reachable(loaded, container_services(loaded, wanted), requirements.resources)
    build_all = build_all or partial(build_releases, loaded, settings, progress=progress)
    releases = build_all(wanted)
    check_committed(loaded, {name: built.revision for name, built in releases.items()})
    expected, current = repository.newest(*where), repository.latest_valid(*where)
    document = make.make(
        loaded,
        releases=releases,
        resources=requirements.resources,
        secrets=requirements.secrets,
        deployment=Deployment(
            kind="deploy", actor=actor, revision=revision_of(releases), hold=hold
        ),
        current=current,
    )
    return PlannedChange(keep_revisions(document, current), expected, current)


def wanted_services(loaded: LoadedStack, services: tuple[str, ...]) -> list[str]:
    """Return the services to deploy, all by default. Raises UnknownNameError."""
    known = loaded.stack.services
    for name in services:
        check_name("service", name, known, loaded.path)
    return list(services) or list(known)


def container_services(loaded: LoadedStack, names: Iterable[str]) -> list[str]:
    """Return the services that run as containers on the machine."""
    services = loaded.stack.services
    return [n for n in names if services[n].runtime_in(loaded.settings) == "container"]


def check_reachable(
    loaded: LoadedStack, contained: Iterable[str], resources: Mapping[str, Resource]
) -> None:
    """Check that containers reach what they need. Raises ResourceError.

    A server process listens on the loopback address, which in a container is the container's own.
    """
    for name in contained:
        for need in loaded.stack.services[name].needs:
            if resources[need].provider in ("binary", "embedded"):
                raise ResourceError(
                    f"{name} runs as a container and cannot reach {need}, which is "
                    f"{_provider(resources[need])}.",
                    hint=f"Set {variable(need)} to a URL that containers reach, or use `runtime: "
                    f"process` for {name}.",
                )


def request_of(loaded: LoadedStack, name: str, settings: Settings) -> BuildRequest:
    """Return what to build for a service."""
    service = loaded.stack.services[name]
    assert service.build is not None
    return BuildRequest(
        stack=loaded.stack.stack,
        service=name,
        folder=(loaded.folder / service.build.path).resolve(),
        static=service.static,
        python=service.build.python,
        extras=tuple(service.build.extras),
        groups=tuple(service.build.groups),
        script=service.build.script,
        run=service.build.run,
        env=dict(service.build.env),
        timeout=service.build.timeout,
        volumes={
            str(PurePosixPath(path)): settings.volume(
                loaded.stack.stack, loaded.environment, volume, path
            )
            for volume, path in service.volumes.items()
            if not PurePosixPath(path).is_absolute()
        },
    )


def build_releases(
    loaded: LoadedStack, settings: Settings, wanted: list[str], progress: Progress
) -> dict[str, Built]:
    """Build services as processes. Raises as `build_services`, and UsageError for a container."""
    if contained := container_services(loaded, wanted):
        raise UsageError(
            f"{contained[0]} runs as a container, which this command does not support.",
            hint=f"Use `lapwing deploy -e {loaded.environment}`.",
        )
    return releases_of(build_services(loaded, settings, wanted, progress))


def releases_of(built: Mapping[str, BuildResult]) -> dict[str, Built]:
    """Return the releases that were built."""
    return {n: Built(r.release.name, r.revision) for n, r in built.items()}


def build_services(
    loaded: LoadedStack, settings: Settings, wanted: list[str], progress: Progress
) -> dict[str, BuildResult]:
    """Build services one after the other. Raises BuildError, SourceError or NoSpaceError."""
    built = {}
    for request in [request_of(loaded, name, settings) for name in wanted]:
        # One at a time, in this thread, so that Ctrl-C ends the current build.
        progress(f"building {request.service}")
        result = build(request, settings)
        how = "unchanged" if result.reused else f"built in {result.seconds:.1f} s"
        progress(f"{request.service}: {result.release.name} ({how})")
        built[request.service] = result
    return built


@dataclass(frozen=True, slots=True)
class Requirements:
    """What a deployment needs in addition to releases: bound resources, versions of secrets."""

    resources: Mapping[str, Resource]
    secrets: Mapping[str, str]


def find_requirements(
    loaded: LoadedStack,
    settings: Settings,
    current: Document | None,
    wanted: list[str],
    progress: Progress = lambda _: None,
    *,
    sources: Collection[str] = (),
) -> Requirements:
    """Bind resources and find secrets; generate values only where the stack file asks for it.

    `sources` are services that will be built: what would refuse their source is checked, too.
    Raises ResourceError, SecretError, SourceError, BuildError or UsageError, or RequirementsError
    if several are not met. Then no value was generated.
    """
    store = SecretStore(settings.secrets)
    where = (loaded.stack.stack, loaded.environment)
    problems: list[LapwingError] = []
    bound = _bind(loaded, settings, current, problems, partial(store.set, *where))
    versions = store.current(*where)
    unset = _find_unset(loaded, wanted, versions, problems)
    _check_certificate(loaded, store, versions, problems)
    _check_sources(loaded, settings, sources, problems)
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise RequirementsError(problems)
    for name, (length, _) in unset.items():
        versions[name] = store.generate(*where, name, length)
        progress(f"generated the secret {name}")
    for name, resource in bound.items():
        if current is None or name not in current.resources:
            progress(f"{name}: {_provider(resource)}")
    return Requirements(bound, versions)


def missing_requirements(loaded: LoadedStack, settings: Settings) -> list[LapwingError]:
    """Return what the next deployment of every service would lack. Changes nothing."""
    problems: list[LapwingError] = []
    repository = DesiredRepository(settings.desired)
    where = (loaded.stack.stack, loaded.environment)
    current = repository.latest_valid(*where) if settings.desired.is_dir() else None
    _bind(loaded, settings, current, problems, lambda _name, _url: "")
    store = SecretStore(settings.secrets)
    versions = store.current(*where)
    _find_unset(loaded, list(loaded.stack.services), versions, problems)
    _check_certificate(loaded, store, versions, problems)
    _check_sources(loaded, settings, loaded.stack.services, problems)
    return problems


def _check_sources(
    loaded: LoadedStack, settings: Settings, names: Iterable[str], problems: list[LapwingError]
) -> None:
    """Check what can be known of sources of processes before they are built."""
    contained = container_services(loaded, names)
    for name in [n for n in names if n not in contained]:
        try:
            source = check(request_of(loaded, name, settings), settings)
            check_committed(loaded, {name: source.revision})
        except LapwingError as error:
            if str(error) not in map(str, problems):  # Such as: git is not installed.
                problems.append(error)


def _find_unset(
    loaded: LoadedStack,
    wanted: list[str],
    versions: Mapping[str, str],
    problems: list[LapwingError],
) -> dict[str, tuple[int | None, str]]:
    """Return the secrets without a value: the length to generate, and a service that has it."""
    unset = {
        secret.name: (secret.generate, service)
        for service in wanted
        for secret in loaded.stack.services[service].secrets
        if secret.name not in versions
    }
    for name, (length, service) in unset.items():
        if length is None:
            hint = (
                f"Set it with `{_setting(loaded, name)}`, or write `{{name: {name}, "
                "generate: 32}` in the stack file for a generated value."
            )
            problems.append(SecretError(f"Secret {name} of {service} is not set.", hint=hint))
    return unset


def _setting(loaded: LoadedStack, secret: str) -> str:
    option = "" if loaded.environment == LOCAL else f" -e {loaded.environment}"
    return f"lapwing secret set {secret}{option}"


def _check_certificate(
    loaded: LoadedStack,
    store: SecretStore,
    versions: Mapping[str, str],
    problems: list[LapwingError],
) -> None:
    """Check that clients will accept the certificate of `tls: {certificate: FILE, key: NAME}`."""
    tls = loaded.settings.tls
    if tls is None or tls.certificate is None or tls.key is None:
        return
    setting = f"{_setting(loaded, tls.key)} < FILE"
    if tls.key not in versions:
        hint = f"Set it with `{setting}`: the private key in PEM format."
        problems.append(SecretError(f"Secret {tls.key} of `tls` is not set.", hint=hint))
        return
    try:
        chain = make.read_pem(loaded, tls.certificate, "certificate")
        key = store.get(loaded.stack.stack, loaded.environment, tls.key, versions[tls.key])
    except LapwingError as error:
        problems.append(error)
        return
    hosts = [*loaded.settings.host_names, *loaded.settings.redirects]
    if fault := x509.find_fault(chain, key, hosts):
        hint = f"Replace the file, and set its key with `{setting}`. Nothing was changed."
        message = f"The certificate {tls.certificate} cannot be used: {fault}."
        problems.append(UsageError(message, hint=hint))


def _bind(
    loaded: LoadedStack,
    settings: Settings,
    current: Document | None,
    problems: list[LapwingError],
    keep: Callable[[str, str], str],
) -> dict[str, Resource]:
    """Bind the resources; `keep` stores a URL under a name."""
    bound = {}
    for name, wanted in loaded.stack.resources.items():
        try:
            bound[name] = bind(
                name,
                make.resource(name, wanted),
                embedded=wanted.embedded,
                url=settings.resource_url(name),
                current=current.resources.get(name) if current else None,
                keep_url=partial(keep, f"resource.{name}"),
            )
        except ResourceError as error:
            problems.append(error)
    return bound


def _provider(resource: Resource) -> str:
    if resource.provider == "url":
        return f"{resource.kind} at the given URL"
    if resource.provider == "binary":
        return f"{resource.kind} by {resource.program}"
    return f"no {resource.kind} server found; the application stores its data in a folder"


def check_committed(loaded: LoadedStack, revisions: Mapping[str, str]) -> None:
    """Check that sources are committed, by service, except for `local`. Raises UsageError."""
    if loaded.environment == LOCAL:
        return
    for name, revision in revisions.items():
        if revision.endswith(DIRTY):
            raise UsageError(
                f"{name} has uncommitted changes; only commits are deployed to "
                f"{loaded.environment!r}.",
                hint="Run `git commit`, or deploy to `local`.",
            )


def describe_uncommitted(
    loaded: LoadedStack, settings: Settings, services: tuple[str, ...], revision: str
) -> str | None:
    """Describe the uncommitted changes that a deployment contains; None if it has none."""
    if not revision.endswith(DIRTY):
        return None
    files: set[str] = set()
    for name in wanted_services(loaded, services):
        if loaded.stack.services[name].build is None:
            continue
        folder = request_of(loaded, name, settings).folder
        git = Git(folder, settings.environ, SourceError)
        files |= set(git.changes("--untracked-files=normal", "--", "."))
    shown = ", ".join(sorted(files)[:MAX_NAMED_FILES])
    more = len(files) - MAX_NAMED_FILES
    rest = f" and {more} more" if more > 0 else ""
    return f"Uncommitted changes are deployed: {shown}{rest}. The revision is {revision}."


def revision_of(built: Mapping[str, BuildResult | Built]) -> str:
    """Return the revision of a deployment, one with uncommitted changes first."""
    found = {r.revision for r in built.values() if r.revision}
    revisions = sorted(found, key=lambda r: not r.endswith(DIRTY))
    return revisions[0] if revisions else ""


def keep_revisions(document: Document, current: Document | None) -> Document:
    """Keep the revision of each service whose release stays.

    So a commit elsewhere in the repository is no change of the service.
    """
    if current is None:
        return document
    services = dict(document.services)
    for name, service in services.items():
        before = current.services.get(name)
        if before is not None and before.release == service.release:
            services[name] = msgspec.structs.replace(service, revision=before.revision)
    return msgspec.structs.replace(document, services=services)
