"""What to build for the services of a stack: requests to the builder and to a container engine.

    stack file -> services with a source -> ImageRequest | DockerfileRequest

This module also writes a Dockerfile for a service that has none.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import PurePosixPath

from lapwing.build.context import BuildRequest
from lapwing.build.image.builder import AMD64, ImageRequest, base_name
from lapwing.build.image.config import PORT
from lapwing.build.image.dockerfile import render_dockerfile
from lapwing.build.image.engine import DockerfileRequest
from lapwing.build.image.outline import dockerfile_outline, outline
from lapwing.build.source import list_source, read_source
from lapwing.errors import BuildError, SourceError, UsageError
from lapwing.inventory.images import BuiltImage, ImageOutline, built_images
from lapwing.registry.manifest import Platform
from lapwing.settings import Settings
from lapwing.stack.image import parse
from lapwing.stack.image_lock import read_lock
from lapwing.stack.load import LoadedStack
from lapwing.targets.sources import request_of, source_folder, wanted_services


def dockerfile_request(loaded: LoadedStack, name: str, platform: Platform) -> DockerfileRequest:
    """Return what to build for a service with a Dockerfile."""
    service = loaded.stack.services[name]
    file, build = PurePosixPath(service.dockerfile or ""), service.build
    request = BuildRequest(loaded.stack.stack, name, source_folder(loaded, name))
    if build is None:
        return DockerfileRequest(request, file.name, platform, service.secret_names)
    request = replace(request, env=dict(build.env), timeout=build.timeout)
    return DockerfileRequest(
        request,
        str(file),
        platform,
        service.secret_names,
        target=build.target,
        build_secrets=tuple(build.secrets),
    )


def write_dockerfile(loaded: LoadedStack, settings: Settings, name: str) -> str:
    """Return a Dockerfile for a service that has none, on the base that lapwing.lock pins.

    Raises UsageError or BuildError.
    """
    buildable_services(loaded, (name,))
    if loaded.stack.services[name].build is None:
        raise UsageError(f"{name} already has a Dockerfile.", hint="Change that file.")
    request = image_request(loaded, settings, name, ())
    source = read_source(request.build.folder, settings.environ)
    base = base_name(request, source) or ""
    digest = request.lock.get(str(parse(base))) if base and "@" not in base else None
    secrets = loaded.stack.services[name].secret_names
    return render_dockerfile(request, source, f"{base}@{digest}" if digest else base, secrets)


def outlines(loaded: LoadedStack, settings: Settings) -> tuple[ImageOutline, ...]:
    """Describe the images of services, without those whose source is missing or unknown."""
    found = []
    for image in built_images(loaded):
        with contextlib.suppress(BuildError, SourceError, OSError):
            found.append(_outline(loaded, settings, image))
    return tuple(found)


def _outline(loaded: LoadedStack, settings: Settings, image: BuiltImage) -> ImageOutline:
    if image.kind == "dockerfile":
        wanted = dockerfile_request(loaded, image.service, AMD64)
        text = (wanted.build.folder / wanted.dockerfile).read_text("utf-8", errors="replace")
        return dockerfile_outline(image.service, text, wanted.build.env, wanted.target)
    request = image_request(loaded, settings, image.service, ())
    source = list_source(request.build.folder, settings.environ, request.build.left_out)
    return outline(request, source)


def image_request(
    loaded: LoadedStack, settings: Settings, name: str, platforms: tuple[Platform, ...]
) -> ImageRequest:
    """Return what to build for a service."""
    service = loaded.stack.services[name]
    build = service.build
    listens = service.kind in ("web", "static")
    return ImageRequest(
        # On a machine the paths of volumes are links in the release; an image has folders there.
        build=replace(request_of(loaded, name, settings), volumes={}),
        command=service.command,
        base=build.base if build else None,
        port=(service.port or PORT) if listens else None,
        user=service.user,
        route=service.route or "/",
        spa=service.spa,
        platforms=platforms,
        lock=read_lock(loaded.folder),
    )


def buildable_services(loaded: LoadedStack, wanted: tuple[str, ...]) -> list[str]:
    """Return the services to build, by default all with a source. Raises UsageError."""
    services = loaded.stack.services
    names = wanted_services(loaded, wanted)
    found = [name for name in names if services[name].build or services[name].dockerfile]
    for name in wanted:
        if name not in found:
            raise UsageError(
                f"{name} has no source in this stack, so no image is built for it.",
                hint="Set `build:` of the service to its source folder.",
            )
    if not found:
        raise UsageError(
            "No service of this stack has a source.", hint="Set `build:` of a service."
        )
    return found
