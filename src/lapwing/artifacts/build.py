"""Build: the source of a service in, an immutable release out.

A release is keyed by everything that decides what it is: the content of the source, the settings of
the build, the versions of the tools, the format of the bundle. What has the same key is not built
again, and the service keeps its release. How a language is built is in `python.py` and `node.py`;
each is a `Builder`.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import msgspec

from lapwing.artifacts import layers
from lapwing.artifacts.release import Release, ReleaseStore
from lapwing.artifacts.run import BuildLog, environment, run
from lapwing.artifacts.source import Source, read_source
from lapwing.errors import BuildError, NoSpaceError
from lapwing.settings import Settings

FORMAT = 1
"""Part of every key: raise it when the same source would make another bundle."""
KEPT_LOGS = 20


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """What to build: a service's source in `folder`, with its settings from the stack file.

    `static` is the folder of made files for a static service. `timeout` is in seconds.
    """

    stack: str
    service: str
    folder: Path
    static: str | None = None
    python: str | None = None
    script: str = "build"
    env: dict[str, str] = field(default_factory=dict)
    timeout: float = 600.0


@dataclass(frozen=True, slots=True)
class BuildResult:
    """A release, whether it was there already, and the revision of the source just now (the
    release remembers the one it was first built from)."""

    release: Release
    reused: bool
    revision: str
    seconds: float
    log: Path | None = None


@dataclass(frozen=True, slots=True)
class Workshop:
    """What a builder works with."""

    request: BuildRequest
    source: Source
    settings: Settings
    log: BuildLog
    until: float

    def run(self, *arguments: str, folder: Path, doing: str, env: dict[str, str]) -> None:
        """Run a command of the build; raises BuildError or NoSpaceError."""
        given = environment(self.settings.environ, {**self.request.env, **env})
        run(arguments, folder=folder, environ=given, log=self.log, until=self.until, doing=doing)

    def copy_source(self, target: Path) -> None:
        """Copy the files of the source to a folder."""
        for name in self.source.files:
            origin, copied = self.source.folder / name, target / name
            if origin.is_dir() and not origin.is_symlink():
                continue
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(origin, copied, follow_symlinks=False)


class Builder(Protocol):
    """Builds one kind of source."""

    def facts(self, request: BuildRequest, source: Source, settings: Settings) -> list[str]:
        """What, beside source and request, decides what the release is: tool versions."""

    def fill(self, workshop: Workshop, bundle: Path) -> Release:
        """Make the bundle (its `app` folder at least); returns its record, which the caller
        completes."""


def build(
    request: BuildRequest,
    settings: Settings,
    on_line: Callable[[str], None] | None = None,
) -> BuildResult:
    """Build a service, unless the same was built before.

    Raises SourceError, BuildError or NoSpaceError; nothing is changed then.
    """
    began = time.monotonic()
    source = read_source(request.folder)
    builder = choose(request, source)
    name = f"{request.service}-{_key(request, source, builder, settings)}"
    store = ReleaseStore(settings.releases)
    if store.has(request.stack, request.service, name):
        found = store.get(request.stack, request.service, name)
        if all((settings.layers / layer).is_dir() for layer in found.layers):
            return BuildResult(found, True, source.revision, time.monotonic() - began)
        layers.remove(store.folder(request.stack, request.service, name))
    log = _log(settings, request, name, on_line)
    try:
        workshop = Workshop(request, source, settings, log, time.monotonic() + request.timeout)
        target = store.folder(request.stack, request.service, name)

        def fill(folder: Path) -> None:
            record = builder.fill(workshop, folder)
            done = msgspec.structs.replace(
                record,
                name=name,
                built=time.time(),
                size=sum(p.lstat().st_size for p in folder.rglob("*")),
            )
            (folder / "release.json").write_bytes(
                msgspec.json.format(msgspec.json.encode(done), indent=2)
            )

        layers.make(target, fill)
    except (BuildError, NoSpaceError) as error:
        error.message = f"{request.service}: {error.message}"
        raise
    finally:
        log.close()
    release = store.get(request.stack, request.service, name)
    return BuildResult(release, False, source.revision, time.monotonic() - began, log.path)


def choose(request: BuildRequest, source: Source) -> Builder:
    """The builder for a source. Raises BuildError if nothing recognises it."""
    from lapwing.artifacts.node import NodeBuilder
    from lapwing.artifacts.plain import PlainBuilder
    from lapwing.artifacts.python import PythonBuilder

    files = set(source.files)
    if "package.json" in files:
        return NodeBuilder()
    if files & {"pyproject.toml", "requirements.txt", "uv.lock"}:
        return PythonBuilder()
    if request.static is not None:
        return PlainBuilder()
    raise BuildError(
        f"{request.service}: nothing in {request.folder} says how to build it.",
        hint="Lapwing looks for pyproject.toml, requirements.txt, uv.lock or package.json.",
    )


def _key(request: BuildRequest, source: Source, builder: Builder, settings: Settings) -> str:
    facts = [
        str(FORMAT),
        request.stack,
        request.service,
        source.digest,
        str(request.static),
        str(request.python),
        request.script,
        repr(sorted(request.env.items())),
        *builder.facts(request, source, settings),
    ]
    return hashlib.sha256("\0".join(facts).encode()).hexdigest()[:12]


def _log(
    settings: Settings,
    request: BuildRequest,
    name: str,
    on_line: Callable[[str], None] | None,
) -> BuildLog:
    folder = settings.logs / "build" / request.stack / request.service
    folder.mkdir(parents=True, exist_ok=True)
    for old in sorted(folder.glob("*.log"))[: -KEPT_LOGS + 1]:
        old.unlink(missing_ok=True)
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    return BuildLog(folder / f"{stamp}-{name}.log", on_line)


def record(request: BuildRequest, source: Source) -> Release:
    """The beginning of a release's record, which a builder completes."""
    return Release(
        name="",
        stack=request.stack,
        service=request.service,
        kind="static" if request.static is not None else "process",
        revision=source.revision,
        built=0.0,
    )
