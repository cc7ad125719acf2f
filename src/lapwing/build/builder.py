"""Build: the source of a service in, an immutable release out.

A release is keyed by everything that decides what it is: the content of the source, the settings of
the build, the versions of the tools, the format of the bundle. The same key is not built again, and
 the service keeps its release. How a language is built is in `python.py` and `node.py`;
each is an `Ecosystem`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from lapwing.build import layers
from lapwing.build.command import open_log
from lapwing.build.context import BuildContext, BuildRequest, Ecosystem
from lapwing.build.detect import detect
from lapwing.build.node import NodeEcosystem
from lapwing.build.plain import PlainEcosystem
from lapwing.build.precompress import precompress
from lapwing.build.python import PythonEcosystem
from lapwing.build.release import INITIAL, RECORD, VENV, Release, ReleaseStore, has_python
from lapwing.build.source import Source, list_source, read_source
from lapwing.errors import BuildError, NoSpaceError, SourceError
from lapwing.settings import Settings
from lapwing.system.files import FULL, real_path

FORMAT = 3
"""Part of every key: raise it when the same source would make another bundle."""


@dataclass(frozen=True, slots=True)
class BuildResult:
    """The outcome of a build; `reused` if the release already existed.

    `revision` is that of the source now; the release records the one it was first built from.
    """

    release: Release
    reused: bool
    revision: str
    seconds: float
    log: Path | None = None


def build(
    request: BuildRequest,
    settings: Settings,
    on_line: Callable[[str], None] | None = None,
) -> BuildResult:
    """Build a service, unless the same was built before.

    Raises SourceError, BuildError or NoSpaceError; nothing is changed then.
    """
    began = time.monotonic()
    log: Path | None = None
    with name_service(request, settings):
        source = read_source(request.folder, settings.environ, request.left_out)
        builder = choose(request, source)
        name = f"{request.service}-{_key(request, source, builder, settings)}"
        store = ReleaseStore(settings.releases)
        target = store.folder(request.stack, request.service, name)
        reused = layers.renew(target) and _whole(store, target)
        if not reused:
            log = _make(request, source, builder, settings, target, on_line)
            reused = log is None
        release = store.get(request.stack, request.service, name)
    return BuildResult(release, reused, source.revision, time.monotonic() - began, log)


def check(request: BuildRequest, settings: Settings) -> Source:
    """Check what is known before a build, and return the source, without its digest.

    Raises SourceError or BuildError.
    """
    with name_service(request, settings):
        source = list_source(request.folder, settings.environ, request.left_out)
        choose(request, source).check(request, source, settings)
        return source


def choose(request: BuildRequest, source: Source) -> Ecosystem:
    """The builder for a source. Raises BuildError if nothing recognises it."""
    builders: dict[str, type[Ecosystem]] = {
        "python": PythonEcosystem,
        "node": NodeEcosystem,
        "plain": PlainEcosystem,
    }
    kind = detect(set(source.files), static=request.static is not None)
    if kind != "python" and (request.extras or request.groups):
        raise BuildError(
            "`extras` and `groups` of `build:` are for Python sources.",
            hint="Remove them from the stack file.",
        )
    return builders[kind]()


def _make(
    request: BuildRequest,
    source: Source,
    builder: Ecosystem,
    settings: Settings,
    target: Path,
    on_line: Callable[[str], None] | None,
) -> Path | None:
    """Make a release; return its log, or None if another process built it meanwhile."""
    log: Path | None = None

    def fill(bundle: Path) -> None:
        nonlocal log
        given = {**settings.environ, **request.env}
        folder = settings.logs / "build" / request.stack / request.service
        with contextlib.closing(open_log(folder, target.name, on_line, given)) as written:
            log = written.path
            until = time.monotonic() + request.timeout
            context = BuildContext(request, source, settings, target, written, until)
            try:
                release = builder.fill(context, bundle)
                if request.static is not None:
                    precompress(bundle / "app")
                _link_volumes(request, bundle, target)
                write_record(bundle, release)
            except BuildError as error:
                error.log = log
                raise

    layers.make(target, fill)
    return log


def _link_volumes(request: BuildRequest, bundle: Path, target: Path) -> None:
    """Replace the paths of volumes by links, and keep what the source has there as first content.

    The links are relative, so that the state folder can be moved.
    """
    app = bundle / "app"
    for path, place in request.volumes.items():
        link = app / path
        if not real_path(link.parent).is_relative_to(real_path(app)):
            raise BuildError(
                f"The path of volume {path} follows a symbolic link out of the source folder."
            )
        link.parent.mkdir(parents=True, exist_ok=True)
        if link.is_symlink() or link.exists():
            first = bundle / INITIAL / path
            first.parent.mkdir(parents=True, exist_ok=True)
            link.rename(first)
        link.symlink_to(os.path.relpath(place, (target / "app" / path).parent))


def write_record(bundle: Path, release: Release) -> None:
    """Write the record of a bundle. Its size is what it alone takes: no files of its layer."""
    found = (path.lstat() for path in bundle.rglob("*"))
    size = sum(about.st_size for about in found if about.st_nlink == 1)
    record = msgspec.json.encode(msgspec.structs.replace(release, size=size))
    (bundle / RECORD).write_bytes(msgspec.json.format(record, indent=2) + b"\n")


def _whole(store: ReleaseStore, target: Path) -> bool:
    """Return whether a release is complete.

    A release that lost its record or its Python is removed, so that it is built again.
    """
    stack, service = target.parent.parent.name, target.parent.name
    release = store.find(stack, service, target.name)
    if release is not None and has_python(target / VENV):
        return True
    with layers.lock(target):
        layers.discard(target)
    return False


def _key(request: BuildRequest, source: Source, builder: Ecosystem, settings: Settings) -> str:
    facts = [
        str(FORMAT),
        request.stack,
        request.service,
        source.digest,
        str(request.static),
        str(request.python),
        request.script,
        str(request.run),
        repr(sorted(request.env.items())),
        *(f"{path}={place.relative_to(settings.home)}" for path, place in request.volumes.items()),
        *builder.facts(request, source, settings),
        *(("precompressed",) if request.static is not None else ()),
    ]
    return hashlib.sha256("\0".join(facts).encode()).hexdigest()[:12]


@contextlib.contextmanager
def name_service(request: BuildRequest, settings: Settings) -> Iterator[None]:
    """Put the service before the message of each failure, and map OSError to LapwingError."""
    try:
        yield
    except (BuildError, SourceError, NoSpaceError) as error:
        name = f"{request.service}: "
        if not error.message.startswith(name):  # An image includes a build for a machine.
            error.message = name + error.message
            error.args = (error.message,)
        raise
    except OSError as error:
        if error.errno in FULL:
            raise NoSpaceError(
                f"{request.service}: the disk is full. The build was undone.",
                hint=f"Free some space on the disk of {settings.home} and try again.",
            ) from error
        what = f" to {error.filename}" if error.filename else ""
        raise BuildError(
            f"{request.service}: access{what} failed: {error.strerror or error}.",
            hint=f"Lapwing has to write to {settings.home} and to read {request.folder}.",
        ) from error
