"""Build the images of a stack's services, and push, load or save them.

    stack file -> requests -> images -> registry | engine | archive

Everything that can be wrong without a build is checked first. An image is pushed under its
registry's name with the tags that were asked for, by default the commit and `latest`; a source with
uncommitted changes gets neither.
"""

from __future__ import annotations

import asyncio
import errno
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lapwing.build.image import publish
from lapwing.build.image.builder import AMD64, Image, build_image
from lapwing.build.image.engine import (
    build_with_engine,
    check_request,
    running_engine,
)
from lapwing.build.image.hashed_files import LiveImage
from lapwing.build.image.publish import Pushed
from lapwing.errors import BuildError, SourceError, UsageError
from lapwing.registry.attestations import attach, sign_attestations
from lapwing.registry.client import RegistryClient
from lapwing.registry.manifest import Manifest, Platform
from lapwing.registry.push import Progress
from lapwing.registry.registry import HostOptions
from lapwing.registry.signature import Signer
from lapwing.registry.signers import find_signer
from lapwing.settings import Settings
from lapwing.stack.image import LATEST, check_tag, parse, service_image
from lapwing.stack.load import LoadedStack
from lapwing.system.git import Git, read_revision
from lapwing.targets.image_attestations import creation_time, image_attestations
from lapwing.targets.image_requests import buildable_services, dockerfile_request, image_request
from lapwing.targets.image_scan import check_images
from lapwing.targets.live_images import live_images
from lapwing.targets.sources import source_folder


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """Which images to build, and where they go."""

    services: tuple[str, ...] = ()
    platforms: tuple[Platform, ...] = ()
    registry: str | None = None
    tags: tuple[str, ...] = ()
    push: bool = False
    load: bool = False
    archive: Path | None = None
    attestations: bool = True
    """Whether an SBOM and the provenance are pushed beside each image."""
    sign_key: Path | None = None
    """A file with the private key that signs the images."""
    plain_http: bool = False
    scan: bool = True
    """Whether images are scanned before a push, if the stack file has `scan`."""
    uncommitted: bool = False
    """Whether a source with uncommitted changes may be pushed, tagged as such."""
    desired: str | None = None
    """The URL of the desired-state repository; None for that of the environment."""


@dataclass(frozen=True, slots=True)
class ImageResult:
    """A built image: its repository and names, and what a push did.

    `referrers` are what was pushed beside it: its SBOM and its provenance.
    """

    image: Image
    repository: str
    tags: tuple[str, ...]
    seconds: float
    pushed: Pushed = field(default_factory=Pushed)
    referrers: tuple[Manifest, ...] = ()


def build_images(
    loaded: LoadedStack,
    settings: Settings,
    options: ImageOptions,
    report: Callable[[str], None],
    progress: Progress,
) -> list[ImageResult]:
    """Build images of services (all that have a source by default).

    Raises UsageError, and BuildError, SourceError or RegistryError of a build or a push.
    """
    engine = _check_outputs(settings, options)
    results = make_images(loaded, settings, options, report)
    if options.push:
        results = push_images(loaded, results, settings, options, report, progress)
    named = [(r.image, r.repository, r.tags) for r in results]
    if options.archive is not None:
        save_images(named, options.archive, settings, plain_http=options.plain_http)
    if options.load:
        with tempfile.TemporaryDirectory(prefix="lapwing-load-") as folder:
            archive = Path(folder) / "images.tar"
            save_images(named, archive, settings, plain_http=options.plain_http)
            publish.load(archive, engine, settings)
    return results


def make_images(
    loaded: LoadedStack, settings: Settings, options: ImageOptions, report: Callable[[str], None]
) -> list[ImageResult]:
    """Build images; only caches of this machine change. Raises as `build_images`."""
    names = buildable_services(loaded, options.services)
    _check_dockerfiles(loaded, settings, names, options)
    if options.push:
        _check_attestations(loaded, options)
        find_signer(settings, loaded, options.sign_key)
    planned = {name: _names(loaded, settings, name, options) for name in names}
    live = _live_images(loaded, settings, names, options)
    results = []
    for name, (repository, tags) in planned.items():
        started = time.monotonic()
        report(f"building {name}")
        image = _build(loaded, settings, name, options, report, live.get(name, ()))
        results.append(ImageResult(image, repository, tags, time.monotonic() - started))
    return results


def push_images(
    loaded: LoadedStack,
    results: Sequence[ImageResult],
    settings: Settings,
    options: ImageOptions,
    report: Callable[[str], None],
    progress: Progress,
) -> list[ImageResult]:
    """Scan and push images; what the registry has is skipped. Raises RegistryError or ScanError."""
    signer = find_signer(settings, loaded, options.sign_key)
    if options.scan:
        made = [result.image for result in results]
        check_images(loaded, made, settings, report, plain_http=options.plain_http)
    done = []
    for result in results:
        started = time.monotonic()
        report(f"pushing {result.image.service} to {result.repository}")
        pushing = _push(loaded, result, settings, options, signer, progress)
        pushed, referrers = asyncio.run(pushing)
        seconds = result.seconds + time.monotonic() - started
        done.append(replace(result, seconds=seconds, pushed=pushed, referrers=referrers))
    return done


def build_for(
    loaded: LoadedStack,
    settings: Settings,
    name: str,
    platform: Platform,
    report: Callable[[str], None],
) -> ImageResult:
    """Build the image of a service for one platform, to be loaded into an engine."""
    options = ImageOptions(platforms=(platform,))
    started = time.monotonic()
    if loaded.stack.services[name].dockerfile is not None:
        check_request(dockerfile_request(loaded, name, platform), settings)
    image = _build(loaded, settings, name, options, report)
    return ImageResult(image, "", (), time.monotonic() - started)


def _check_outputs(settings: Settings, options: ImageOptions) -> str:
    """Check before the first build where images go; return the engine for --load.

    Raises UsageError or BuildError.
    """
    if options.load and len(_platforms(options)) > 1:
        raise UsageError(
            "`--load` supports images for one platform only.", hint="Give one --platform."
        )
    if options.archive is not None and not options.archive.absolute().parent.is_dir():
        raise _unwritable(options.archive, os.strerror(errno.ENOENT))
    return running_engine(settings) if options.load else ""


def _check_attestations(loaded: LoadedStack, options: ImageOptions) -> None:
    """Check that signatures, which are attestations with keyless, are pushed. Raises UsageError."""
    signing = loaded.stack.signing
    if signing is not None and signing.keyless is not None and not options.attestations:
        raise UsageError(
            f"{loaded.path.name} has `signing: {{keyless: ...}}`, whose signatures are "
            "attestations: `--no-attestations` would push unsigned images.",
            hint="Omit `--no-attestations`, or set `signing: {key: ...}`.",
        )


def _check_dockerfiles(
    loaded: LoadedStack, settings: Settings, names: list[str], options: ImageOptions
) -> None:
    """Check the services with a Dockerfile, and that there is an engine for them."""
    files = [name for name in names if loaded.stack.services[name].dockerfile is not None]
    if files and len(_platforms(options)) > 1:
        raise UsageError(
            f"{files[0]} has a Dockerfile, which is built for one platform.",
            hint="Give one --platform, or name services without a Dockerfile.",
        )
    for name in files:
        check_request(dockerfile_request(loaded, name, _platforms(options)[0]), settings)


def _unwritable(archive: Path, why: str) -> BuildError:
    return BuildError(
        f"{archive} cannot be written: {why}.",
        hint="Choose a file in a folder that exists: `-o FILE`.",
    )


def _build(
    loaded: LoadedStack,
    settings: Settings,
    name: str,
    options: ImageOptions,
    report: Callable[[str], None],
    live: Sequence[LiveImage] = (),
) -> Image:
    """Build the image of a service that was live with the images `live`."""
    platforms = _platforms(options)
    if loaded.stack.services[name].dockerfile is None:
        request = replace(image_request(loaded, settings, name, platforms), live=tuple(live))
        return build_image(request, settings, report, plain_http=options.plain_http)
    return build_with_engine(dockerfile_request(loaded, name, platforms[0]), settings, report)


def _live_images(
    loaded: LoadedStack, settings: Settings, names: Iterable[str], options: ImageOptions
) -> Mapping[str, Sequence[LiveImage]]:
    """Return the images that static services were live with; the desired state is read once."""
    services = loaded.stack.services
    static = [n for n in names if services[n].static is not None and not services[n].dockerfile]
    if not static:
        return {}
    registry = options.registry or loaded.registry
    live = live_images(loaded, settings, registry, options.desired)
    return {name: live.get(name, ()) for name in static}


def _names(
    loaded: LoadedStack, settings: Settings, name: str, options: ImageOptions
) -> tuple[str, tuple[str, ...]]:
    """Return the repository and the tags of a service's image. Raises UsageError."""
    registry = options.registry or loaded.registry
    if options.push and registry is None:
        raise UsageError(
            "No registry to push to.",
            hint="Set `registry: HOST/FOLDER` in the stack file, or give --registry.",
        )
    repository = service_image(registry, name).name if registry else f"{loaded.stack.stack}/{name}"
    folder = source_folder(loaded, name)
    revision = read_revision(folder, settings.environ)
    dirty = revision.endswith("-dirty")
    if dirty and options.push and not (options.tags or options.uncommitted):
        raise UsageError(
            f"{name} has uncommitted changes, so its image cannot be tagged with a commit.",
            hint="Run `git commit`, or choose a tag for it: `--tag NAME`.",
        )
    commit = Git(folder, settings.environ, SourceError).text("rev-parse", "HEAD")
    own = (commit, LATEST) if not dirty else (revision,) if options.push else (revision, LATEST)
    tags = options.tags or own
    return repository, tuple(check_tag(tag) for tag in dict.fromkeys(tags))


def _platforms(options: ImageOptions) -> tuple[Platform, ...]:
    """Return the platforms: those asked for, that of the engine for --load, else linux/amd64."""
    if options.platforms:
        return tuple(dict.fromkeys(options.platforms))
    return (local_platform(),) if options.load and not options.push else (AMD64,)


def local_platform() -> Platform:
    """Return the platform of the containers of this machine."""
    is_arm = platform.machine() in ("aarch64", "arm64")
    return Platform("linux", "arm64" if is_arm else "amd64")


async def _push(
    loaded: LoadedStack,
    result: ImageResult,
    settings: Settings,
    options: ImageOptions,
    signer: Signer | None,
    progress: Progress,
) -> tuple[Pushed, tuple[Manifest, ...]]:
    target, image = parse(result.repository, default_tag=None), result.image
    attestations = []
    if options.attestations:
        folder = source_folder(loaded, image.service)
        attestations = image_attestations(
            image, loaded, target, folder, settings, signed=signer is not None
        )
    hosts = {target.api: HostOptions(plain_http=options.plain_http)}
    async with RegistryClient(settings, plain_http=options.plain_http, hosts=hosts) as client:
        # Sign before the push: an identity that cannot sign pushes nothing.
        if signer is not None:
            repository = client.repository(target, write=True)
            digest = image.root.digest
            attestations = await sign_attestations(repository, digest, attestations, signer)
        pushed = await publish.push_image(client, image, target, result.tags, progress)
        about = creation_time(image)
        referrers = await attach(client, target, image.root, attestations, signer, progress, about)
        return pushed, tuple(referrers)


def save_images(
    named: Iterable[tuple[Image, str, Sequence[str]]],
    archive: Path,
    settings: Settings,
    *,
    plain_http: bool = False,
) -> None:
    """Write images, each with its repository and tags, to one archive.

    Raises BuildError or RegistryError.
    """

    async def run() -> None:
        async with RegistryClient(settings, plain_http=plain_http) as client:
            await publish.write_archive(client, named, archive, settings)

    try:
        asyncio.run(run())
    except OSError as error:
        raise _unwritable(archive, error.strerror or str(error)) from error
