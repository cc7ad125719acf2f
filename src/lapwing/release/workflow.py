"""A release from the project's file to its steps.

    preflight -> decide -> the steps of this project -> run

A dry run takes the same way and stops before each change.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from lapwing.errors import ReleaseError, UsageError
from lapwing.registry.chart import PackagedChart, parse_chart
from lapwing.registry.client import RegistryClient
from lapwing.registry.copy import CopyOptions
from lapwing.registry.manifest import parse_platform
from lapwing.registry.push import Progress
from lapwing.registry.signature import Signer
from lapwing.release.chart import find_helm, package_chart
from lapwing.release.chart_push import FOLDER, CheckChart, PushChart
from lapwing.release.forge_steps import (
    CheckForge,
    CheckPrevious,
    CreateDraft,
    Publish,
    UploadFile,
)
from lapwing.release.forges import Forge, ReleaseFile
from lapwing.release.git import Checkout
from lapwing.release.image_steps import CheckRegistry, TagImage
from lapwing.release.line import Line
from lapwing.release.mirror_steps import MirrorImage
from lapwing.release.policy import Rules
from lapwing.release.run import Step
from lapwing.release.sbom import (
    Component,
    image_component,
    may_lack_packages,
    read_components,
    sbom,
)
from lapwing.release.steps import CreateTag, MakeFiles, ReleaseState
from lapwing.stack.image import HUB, LATEST, Reference, built_image, digest_of, parse
from lapwing.stack.project import Released
from lapwing.stack.release_rules import mirrored_name

_STATED = re.compile(r"version(?:__)?[\"']?\s*[:=]\s*[\"']?v?(\d[^\s\"',;]*)", re.I)
_ASSET_NAME = re.compile(r"(?!\.)[A-Za-z0-9._-]+(?<!\.)")
"""File names that GitHub leaves unchanged. Source: its documentation of release assets."""
MAX_FILE_BYTES = 2 * 1024**3
"""GitHub accepts no larger files."""


@dataclass(frozen=True, slots=True)
class ReleaseContext:
    """What the steps work with.

    Without a `forge` only tags are made; `registry` is the registry and folder for images;
    `previous` is the tag of the last version, if there is one. `find_signer` returns what
    signs charts and mirrored images, if anything does.
    """

    checkout: Checkout
    images: RegistryClient
    progress: Progress
    environ: Mapping[str, str]
    find_signer: Callable[[], Signer | None]
    forge: Forge | None = None
    registry: str | None = None
    previous: str | None = None


def read_rules(released: Released, checkout: Checkout, commit: str, line: Line) -> Rules:
    """Return the rules in a project's file.

    Raises ReleaseError if the version file is missing or has no version.
    """
    release = released.delivery.release
    file = release.version_file
    stated = None
    if release.policy == "stated" and file is None:
        raise UsageError(
            "The policy `stated` requires a `version_file`.",
            hint="Add `version_file:` to `release:` in the file.",
        )
    if file is not None:
        content = checkout.content(commit, file)
        if content is None:
            raise ReleaseError(
                f"{file} is not in the commit.", hint="Correct `version_file`, or commit the file."
            )
        stated = stated_version(content.decode(errors="replace"))
        if stated is None:
            raise ReleaseError(
                f"No version found in {file}.",
                hint='The file needs a line such as `version = "1.2.3"`.',
            )
    return Rules(release.policy, release.features, release.docs, stated, line)


def stated_version(text: str) -> str | None:
    """Return the first version in a file, as in `version = "1.2.3"`, or the whole file."""
    if "\n" not in text.strip() and re.fullmatch(r"\s*v?\d[\w.+-]*\s*", text):
        return text.strip().removeprefix("v")
    found = _STATED.search(text)
    return found[1] if found else None


def release_steps(
    released: Released, state: ReleaseState, context: ReleaseContext
) -> Iterator[Step]:
    """Yield the steps of a release, in order.

    Each is made after the one before it was checked, because which files there are to upload is
    known then.
    """
    images: list[TagImage | MirrorImage] = [*_tagged_images(released, state, context)]
    images += _mirrored_images(released, state, context)
    if context.forge is not None:
        if context.previous is not None:
            yield CheckPrevious("previous", state, context.forge, context.previous)
        yield CheckForge("forge", state, context.forge)
    if images:
        yield CheckRegistry("registry", context.images, images)
    lint = "" if find_helm(context.environ) else "not linted, because helm is not installed"
    yield MakeFiles("chart", state, lambda: _chart(released, state, context), lint)
    registry = released.delivery.registry
    packages = [file for name, file in state.files.items() if registry and name.endswith(".tgz")]
    charts = [parse_chart(file.content, file.name) for file in packages]
    target = _chart_target(charts, registry)
    yield MakeFiles("sbom", state, lambda: [_sbom(released, state)])
    if released.delivery.release.files:
        yield MakeFiles("files", state, lambda: _own_files(released))
    if target is not None:
        yield CheckChart("chart registry", context.images, charts[0], target, context.find_signer)
    yield CreateTag("tag", state, f"{released.name} {state.version}")
    if context.forge is not None:
        yield CreateDraft("release", state, context.forge)
        for file in state.files:
            yield UploadFile(f"upload {file}", state, context.forge, file)
    yield from images
    if target is not None:
        sbom_name = _sbom_name(released, state)
        yield PushChart(
            "push chart",
            context.images,
            charts[0],
            target,
            context.find_signer,
            state,
            sbom_name,
            context.progress,
        )
    if context.forge is not None:
        yield Publish("publish", state, context.forge)


def _chart(
    released: Released, state: ReleaseState, context: ReleaseContext
) -> list[ReleaseFile] | str:
    chart = package_chart(released, state.checkout, state.head, state.version, context.environ)
    return chart if isinstance(chart, str) else _with_checksum(chart)


def _chart_target(charts: list[PackagedChart], registry: str | None) -> Reference | None:
    """Return where the chart is pushed: below the file's registry; None without chart or registry.

    None on Docker Hub, too: its repositories have no folders.
    """
    if not charts or registry is None:
        return None
    target = charts[0].reference(f"{registry.rstrip('/').lower()}/{FOLDER}")
    return None if target.registry == HUB else target


def _with_checksum(file: ReleaseFile) -> list[ReleaseFile]:
    """Return a file, and the one for `sha256sum -c`."""
    line = f"{digest_of(file.content).removeprefix('sha256:')}  {file.name}\n"
    return [file, ReleaseFile(f"{file.name}.sha256", line.encode(), "text/plain")]


def _sbom(released: Released, state: ReleaseState) -> ReleaseFile:
    checkout, head = state.checkout, state.head
    services: dict[str, list[Component]] = {}
    incomplete: list[str] = []

    def add(service: str, folder: str) -> None:
        def read(name: str) -> str | None:
            content = checkout.content(head, str(PurePosixPath(folder, name)))
            return None if content is None else content.decode(errors="replace")

        services[service] = read_components(read)
        if may_lack_packages(read):
            incomplete.append(service)

    images = {_pinned(parse(entry.image), state) for entry in released.delivery.mirror}
    if released.stacks:
        for name, service in released.stacks[0].stack.services.items():
            if service.build is not None:
                add(name, service.build.path)
            elif service.image is not None:
                images.add(_pinned(parse(service.image, lower=True), state))
    else:
        add(released.name, ".")
    found = [image_component(reference) for reference in sorted(images, key=str)]
    commit = (head, checkout.committed_at(head))
    content = sbom(released.name, state.version, commit, services, found, incomplete)
    return ReleaseFile(_sbom_name(released, state), content, "application/vnd.cyclonedx+json")


def _sbom_name(released: Released, state: ReleaseState) -> str:
    return f"{released.name}-{state.version}.cdx.json"


def _pinned(image: Reference, state: ReleaseState) -> Reference:
    """Return a mirrored image with its digest in this release."""
    return replace(image, digest=state.pins.get(str(image), image.digest))


def _own_files(released: Released) -> list[ReleaseFile]:
    """Return the files that the project's file names, from the disk.

    They are built, not committed.
    """
    files: list[ReleaseFile] = []
    for pattern in released.delivery.release.files:
        found = sorted(path for path in released.folder.glob(pattern) if path.is_file())
        if not found:
            raise ReleaseError(
                f"No file matches {pattern!r} in {released.folder}.",
                hint="Build the files before `lapwing release`.",
            )
        for path in found:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise ReleaseError(f"{path} is larger than 2 GiB, the limit of forges.")
            if not _ASSET_NAME.fullmatch(path.name):
                raise ReleaseError(
                    f"Invalid name for a release file: {path.name!r}.",
                    hint="Use letters, digits, `.`, `_` and `-`; forges replace the others.",
                )
            files += _with_checksum(ReleaseFile(path.name, path.read_bytes()))
    return files


def _tagged_images(
    released: Released, state: ReleaseState, context: ReleaseContext
) -> Iterator[TagImage]:
    """Yield a step for each image that CI pushed for this commit.

    Without a `registry` in the file nothing was pushed. An image in the file is the team's own if
    it is below that registry and not a mirrored one.
    """
    registry = released.delivery.registry
    if registry is None or not released.stacks:
        return
    folder = f"{registry.rstrip('/')}/"
    mirrored = {
        parse(f"{folder}{mirrored_name(e, parse(e.image))}", lower=True).name
        for e in released.delivery.mirror
    }
    for name, service in released.stacks[0].stack.services.items():
        if service.image is None:
            source = built_image(registry, name, state.head)
        else:
            source = _named_image(service.image, state.head)
            if not source.name.startswith(folder.lower()) or source.name in mirrored:
                continue
        yield TagImage(f"image {name}", context.images, source, state.version, context.progress)


def _named_image(image: str, commit: str) -> Reference:
    """Return the image in a stack file.

    Without a version, the one that CI tagged with the commit.
    """
    found = parse(image, lower=True, default_tag=None)
    is_moving = found.digest is None and found.tag in (None, LATEST)
    return found.tagged(commit) if is_moving else found


def _mirrored_images(
    released: Released, state: ReleaseState, context: ReleaseContext
) -> Iterator[MirrorImage]:
    for entry in released.delivery.mirror:
        source = parse(entry.image)
        if context.registry is None:
            raise ReleaseError(
                f"No registry to mirror {entry.image} to.",
                hint="Add `registry: HOST/FOLDER` to the file.",
            )
        name = f"{context.registry.rstrip('/')}/{mirrored_name(entry, source)}"
        target = parse(name, lower=True, default_tag=None)
        options = CopyOptions(tuple(parse_platform(text) for text in entry.platforms))
        yield MirrorImage(
            f"mirror {source.repository}",
            context.images,
            source,
            target,
            state,
            options,
            context.find_signer,
            context.progress,
        )
