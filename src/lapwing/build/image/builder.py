"""The image builder: a service's source in, an image out, without a container engine.

    source -> base image -> layers for each platform -> config and manifest -> index

Each platform's image has the layers of the base, which stay in its registry until they are copied
or mounted, one layer for the dependencies, named by the lock file, and one for the program. Times
are those of the last commit that changed the source folder, so the same commit has the same digest
in every folder, for every user and in every time zone, and a commit elsewhere changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import msgspec

from lapwing.build.artifact import FileBlob
from lapwing.build.builder import name_service
from lapwing.build.command import environment, open_log
from lapwing.build.context import BuildContext, BuildRequest
from lapwing.build.dependencies import read_dependencies
from lapwing.build.detect import detect
from lapwing.build.image import config as configs
from lapwing.build.image import layer as image_layers
from lapwing.build.image import static
from lapwing.build.image.base import (
    Base,
    BaseImage,
    default_node,
    default_python,
    empty_base,
    read_base,
)
from lapwing.build.image.contents import Contents
from lapwing.build.image.hashed_files import LiveImage, earlier_layers
from lapwing.build.image.layer import Layer
from lapwing.build.image.node import NodeContents
from lapwing.build.image.python import PythonContents
from lapwing.build.node import required_versions
from lapwing.build.source import Source, read_source
from lapwing.registry.client import RegistryClient
from lapwing.registry.manifest import (
    OCI_CONFIG,
    Descriptor,
    Manifest,
    Platform,
    build_index,
    build_manifest,
)
from lapwing.registry.pull import BlobSource, MemoryBlob
from lapwing.registry.registry import HostOptions
from lapwing.settings import Settings
from lapwing.stack.image import Reference
from lapwing.system.git import Change, read_change
from lapwing.system.secret_names import is_secret_file

AMD64 = Platform("linux", "amd64")
ANNOTATION = "org.opencontainers.image"


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """What to build: the build of the service, and how its program is run.

    `base` is the base image, None for the default; `lock` has the digests of tags.
    """

    build: BuildRequest
    command: str | None = None
    base: str | None = None
    port: int | None = None
    user: int | None = None
    route: str = "/"
    spa: bool = True
    platforms: tuple[Platform, ...] = (AMD64,)
    lock: Mapping[str, str] = field(default_factory=dict)
    live: tuple[LiveImage, ...] = ()
    """Images that a static service was live with, the newest first."""


@dataclass(frozen=True, slots=True)
class PlatformImage:
    """The image for one platform.

    `blobs` are those that were built here, `remote` are images with layers of earlier releases; the
    other blobs belong to the base image.
    """

    platform: Platform
    manifest: Manifest
    blobs: Mapping[str, BlobSource]
    remote: Mapping[str, Reference] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        platform: Platform,
        config: bytes,
        layers: Sequence[Layer],
        annotations: Mapping[str, str],
        below: Sequence[Descriptor] = (),
    ) -> PlatformImage:
        """Make the manifest for a configuration and the layers, which are above those of a base."""
        descriptor = Descriptor.of(config, OCI_CONFIG)
        described = [*below, *(layer.descriptor for layer in layers)]
        manifest = build_manifest(descriptor, described, annotations)
        blobs: dict[str, BlobSource] = {descriptor.digest: MemoryBlob(config)}
        remote = {}
        for layer in layers:
            if isinstance(layer.source, Reference):
                remote[layer.descriptor.digest] = layer.source
            else:
                blobs[layer.descriptor.digest] = FileBlob(layer.source, cached=True)
        return cls(platform, manifest, blobs, remote)


@dataclass(frozen=True, slots=True)
class Image:
    """An image: one platform's, or an index of several."""

    service: str
    revision: str
    base: Base
    root: Manifest
    images: tuple[PlatformImage, ...]

    @property
    def is_dirty(self) -> bool:
        """Whether it has uncommitted changes."""
        return self.revision.endswith("-dirty")


def build_image(
    request: ImageRequest,
    settings: Settings,
    report: Callable[[str], None],
    *,
    plain_http: bool = False,
) -> Image:
    """Build the image of a service; nothing is sent.

    Raises BuildError, SourceError, NoSpaceError, or RegistryError for the base image.
    """
    build = request.build
    with name_service(build, settings):
        source = read_source(build.folder, settings.environ, build.left_out)
        change = read_change(build.folder, settings.environ, build.left_out)
        _warn(build, source, report)
        if change.shallow:
            report(
                f"{build.service}: the clone has no history, so each commit makes another image "
                "(in CI, fetch the history: `fetch-depth: 0`)"
            )
        masked = environment(settings.environ, build.env)
        log = open_log(
            settings.logs / "build" / build.stack / build.service,
            f"image-{source.digest[:12]}",
            None,
            masked,
        )
        with contextlib.closing(log):
            until = time.monotonic() + build.timeout
            context = BuildContext(build, source, settings, settings.images, log, until)
            run = _Build(request, context, source, change, report)
            image = run.image(plain_http=plain_http)
        image_layers.remove_old(settings)
    return image


def base_name(request: ImageRequest, source: Source) -> str | None:
    """Return the base image of a service as it is written; None if it needs none.

    Raises BuildError if the source is not recognized, or no default has the Python that it needs.
    """
    build, files = request.build, set(source.files)
    if request.base is not None or build.static is not None:
        return request.base
    if detect(files, static=False) == "node":
        return default_node(list(required_versions(source.folder, source).values()))
    return default_python(build.python or read_dependencies(source.folder, files).python)


@dataclass(frozen=True, slots=True)
class _Build:
    """One build of an image."""

    request: ImageRequest
    context: BuildContext
    source: Source
    change: Change
    report: Callable[[str], None]

    def image(self, *, plain_http: bool) -> Image:
        base, earlier = asyncio.run(self._read_registries(plain_http))
        contents, platforms = self._contents(earlier), self.request.platforms
        musl = "alpine" in base.name
        images = tuple(
            self._platform_image(contents, base, platform, musl=musl) for platform in platforms
        )
        root = images[0].manifest if len(images) == 1 else index_of(images)
        return Image(self.request.build.service, self.source.revision, base, root, images)

    @property
    def _created(self) -> int:
        """The time of the files: browsers revalidate by it, also without a commit."""
        dirty = self.source.revision.endswith("-dirty")
        return int(time.time()) if dirty else self.change.time

    def _contents(self, earlier: Sequence[Layer]) -> Contents:
        build, files = self.request.build, set(self.source.files)
        if build.static is not None:
            return static.StaticContents(
                self.context, self._created, self.request.route, self.request.spa, earlier
            )
        if detect(files, static=False) == "python":
            return PythonContents(self.context, self._created, self.report)
        return NodeContents(self.context, self._created, self.report)

    async def _read_registries(self, plain_http: bool) -> tuple[Base, list[Layer]]:
        """Read the base image, and the layers of earlier releases that a static service keeps."""
        request, name = self.request, base_name(self.request, self.source)
        hosts = {each.reference.api: HostOptions(plain_http=plain_http) for each in request.live}
        settings = self.context.settings
        async with RegistryClient(settings, plain_http=plain_http, hosts=hosts) as client:
            base = empty_base(request.platforms)
            if name is not None:
                base = await read_base(client, name, request.lock, request.platforms)
            return base, await earlier_layers(client, request.live, self.change.time, self.report)

    def _platform_image(
        self, contents: Contents, base: Base, platform: Platform, *, musl: bool
    ) -> PlatformImage:
        start = base.images[platform]
        layers = contents.layers(platform, start, musl)
        labels = image_labels(self.request.build.service, self.source, self.change, base)
        config = configs.image_config(
            start.config,
            platform,
            [layer.diff_id for layer in layers],
            self._run(contents.environment(start), labels),
        )
        return PlatformImage.of(platform, config, layers, labels, _base_layers(start))

    def _run(self, variables: Mapping[str, str], labels: Mapping[str, str]) -> configs.Run:
        request = self.request
        command: Sequence[str] = static.COMMAND
        if request.build.static is None:
            command = configs.exec_form(request.command or "")
        return configs.Run(
            command,
            "/" + (static.FILES if request.build.static is not None else "app"),
            self.change.time,
            user=request.user or configs.USER,
            port=request.port,
            environment=variables,
            labels=labels,
        )


def image_labels(
    service: str, source: Source, change: Change, base: Base | None = None
) -> dict[str, str]:
    """Return the annotations and labels of an image, which say what it was built from."""
    dirty = source.revision.endswith("-dirty")
    found = {
        "title": service,
        "created": configs.timestamp(change.time),
        "revision": source.revision if dirty else change.commit,
    }
    if base is not None and base.reference is not None:
        found |= {"base.name": base.name, "base.digest": base.reference.wanted}
    return {f"{ANNOTATION}.{key}": value for key, value in sorted(found.items())}


def _warn(build: BuildRequest, source: Source, report: Callable[[str], None]) -> None:
    """Report files with secrets that git tracks and that get into the image."""
    for name in source.files:
        included = build.static is None or PurePosixPath(name).is_relative_to(build.static)
        if included and is_secret_file(name):
            report(f"{build.service}: {name} is in git, so the image contains it")


def _base_layers(base: BaseImage) -> list[Descriptor]:
    """Return the layers of a base with OCI's media types, because one manifest has one format."""
    layers = () if base.manifest is None else base.manifest.layers
    docker = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    return [
        msgspec.structs.replace(layer, media_type=image_layers.MEDIA_TYPE)
        if layer.media_type == docker
        else layer
        for layer in layers
    ]


def index_of(images: Iterable[PlatformImage]) -> Manifest:
    """Build the index of an image for several platforms."""
    return build_index(_child(image) for image in images)


def _child(image: PlatformImage) -> Descriptor:
    manifest = image.manifest
    return Descriptor(
        media_type=manifest.media_type,
        digest=manifest.digest,
        size=len(manifest.raw),
        platform=image.platform,
    )
