"""The sources of a stack's services: which to build, the build, and whether they are committed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from lapwing.build.builder import BuildResult, build
from lapwing.build.context import BuildRequest
from lapwing.errors import SourceError, UsageError, check_name
from lapwing.plan import host_names
from lapwing.plan.make import Built
from lapwing.plan.model import Document
from lapwing.settings import Settings
from lapwing.stack.load import LOCAL, LoadedStack
from lapwing.stack.migrations import job_of
from lapwing.stack.secret_names import service_settings
from lapwing.system.git import Git, first_names

Progress = Callable[[str], None]
DIRTY = "-dirty"
MAX_NAMED_FILES = 3
_BETWEEN_WORDS = re.compile(r"[\s'\"`=:,;&|()<>]+")


def wanted_services(loaded: LoadedStack, services: tuple[str, ...]) -> list[str]:
    """Return the services to deploy, all by default. Raises UnknownNameError."""
    known = loaded.stack.services
    for name in services:
        check_name("service", name, known, loaded.path)
    jobs = [job_of(name) for name in services if job_of(name) in known and known[name].migrate]
    return [*dict.fromkeys([*jobs, *services])] or list(known)


def container_services(loaded: LoadedStack, names: Iterable[str]) -> list[str]:
    """Return the services that run as containers on the machine."""
    services = loaded.stack.services
    return [n for n in names if services[n].runtime_in(loaded.settings) == "container"]


def source_folder(loaded: LoadedStack, name: str) -> Path:
    """Return the source folder of a service: that of its Dockerfile, if it has no other."""
    service = loaded.stack.services[name]
    path = service.build.path if service.build else PurePosixPath(service.dockerfile or "").parent
    return (loaded.folder / path).resolve()


def settings_files(loaded: LoadedStack, name: str) -> tuple[str, ...]:
    """Return the stack file and those of `env_file`, relative to the source of a service.

    A file whose name is in `command` or `run` of the service is not returned.
    """
    service, folder = loaded.stack.services[name], source_folder(loaded, name)
    build = service.build
    commands = [service.command, *((build.run, build.test) if build else ())]
    words = {PurePosixPath(w).name for c in commands if c for w in _BETWEEN_WORDS.split(c)}
    listed = [(loaded.folder / file).resolve() for file in _env_files(loaded)]
    files = [loaded.path.resolve(), *listed]
    return tuple(
        sorted(
            file.relative_to(folder).as_posix()
            for file in files
            if file.is_relative_to(folder) and file.name not in words
        )
    )


def _env_files(loaded: LoadedStack) -> set[str]:
    """Return the files of `env_file` in all environments, for which a release is the same."""
    assert loaded.source is not None
    given = [s.get("env_file") or () for s in service_settings(loaded.source)]
    listed = [files if isinstance(files, list) else [files] for files in given]
    return {file for files in listed for file in files if isinstance(file, str)}


def request_of(loaded: LoadedStack, name: str, settings: Settings) -> BuildRequest:
    """Return what to build for a service."""
    service = loaded.stack.services[name]
    assert service.build is not None
    return BuildRequest(
        stack=loaded.stack.stack,
        service=name,
        folder=source_folder(loaded, name),
        static=service.static,
        python=service.build.python,
        extras=tuple(service.build.extras),
        groups=tuple(service.build.groups),
        script=service.build.script,
        run=service.build.run,
        env=dict(service.build.env),
        timeout=service.build.timeout,
        left_out=settings_files(loaded, name),
        volumes={
            str(PurePosixPath(path)): settings.volume(
                loaded.stack.stack, loaded.environment, volume, path
            )
            for volume, path in service.volumes.items()
            if not PurePosixPath(path).is_absolute()
        },
    )


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


def releases_of(built: Mapping[str, BuildResult]) -> dict[str, Built]:
    """Return the releases that were built."""
    return {n: Built(r.release.name, r.revision) for n, r in built.items()}


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


def check_env_files(loaded: LoadedStack, settings: Settings) -> None:
    """Check that the files of `env_file` are committed, except for `local`. Raises UsageError."""
    if loaded.environment == LOCAL:
        return
    files = sorted({file for s in loaded.stack.services.values() for file in s.env_file})
    git = Git(loaded.folder, settings.environ, SourceError)
    for file in files:
        if git.changes("--untracked-files=all", "--ignored", "--", file):
            raise UsageError(
                f"{loaded.folder / file} has uncommitted changes, or git ignores it; only commits "
                f"are deployed to {loaded.environment!r}.",
                hint="Run `git commit`, or deploy to `local`.",
            )


def remarks(
    loaded: LoadedStack, settings: Settings, services: tuple[str, ...], document: Document
) -> Iterator[str]:
    """Yield what a user has to know about a deployment of these services."""
    revision = document.deployment.revision
    if changed := describe_uncommitted(loaded, settings, services, revision):
        yield changed
    is_public = settings.server and not settings.trusted_proxies
    if is_public and (untrusted := host_names.describe_untrusted(document)):
        yield untrusted


def describe_uncommitted(
    loaded: LoadedStack, settings: Settings, services: tuple[str, ...], revision: str
) -> str | None:
    """Describe the uncommitted changes that a deployment contains; None if it has none."""
    if not revision.endswith(DIRTY):
        return None
    files: set[str] = set()
    for name in wanted_services(loaded, services):
        service = loaded.stack.services[name]
        if service.build is None and service.dockerfile is None:
            continue
        git = Git(source_folder(loaded, name), settings.environ, SourceError)
        files |= set(git.changes("--untracked-files=normal", "--", "."))
    shown = first_names(files, MAX_NAMED_FILES)
    return f"Uncommitted changes are deployed: {shown}. The revision is {revision}."


def revision_of(built: Mapping[str, BuildResult | Built]) -> str:
    """Return the revision of a deployment, one with uncommitted changes first."""
    found = {r.revision for r in built.values() if r.revision}
    revisions = sorted(found, key=lambda r: not r.endswith(DIRTY))
    return revisions[0] if revisions else ""
