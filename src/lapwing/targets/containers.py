"""Images of the services that run as containers on this machine: built or pulled, then checked.

    build: -> the daemonless builder or a Dockerfile -> loaded into the engine
    image: -> pulled by the engine, and pinned by its digest

An image that was built here is known by its ID and kept by a tag of ours, so that the engine's own
clean-up does not remove it.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from lapwing.agent.container_request import image_repository
from lapwing.agent.containers import registry_login
from lapwing.agent.engine import Engine, find_socket
from lapwing.build.image.config import PORT
from lapwing.errors import BuildError, EngineError, EngineUnreachableError
from lapwing.plan.make import Built
from lapwing.plan.model import Container, Resource, ResourceContainer, Service
from lapwing.plan.names import release_of
from lapwing.registry.manifest import Platform
from lapwing.settings import Settings
from lapwing.stack.image import parse
from lapwing.stack.load import LoadedStack
from lapwing.targets import bundles, images, sources

Progress = Callable[[str], None]


class Pulled:
    """The images that one command pulls, each once."""

    def __init__(self, settings: Settings, progress: Progress) -> None:
        self._settings = settings
        self._progress = progress
        self._known: dict[str, dict[str, Any]] = {}

    def image(self, image: str) -> dict[str, Any]:
        """Pull an image and return what the engine states about it. Raises EngineError."""
        if image not in self._known:
            self._progress(f"pulling {image}")
            pull = partial(_pull, settings=self._settings, image=image, progress=self._progress)
            self._known[image] = _run(self._settings, pull)
        return self._known[image]


def preparation(loaded: LoadedStack, settings: Settings, progress: Progress) -> bundles.Preparation:
    """Return how a deployment to this machine is prepared."""
    return bundles.Preparation(
        partial(build_releases, loaded, settings, progress=progress),
        partial(pin_images, settings, progress=progress),
    )


def build_releases(
    loaded: LoadedStack, settings: Settings, wanted: list[str], progress: Progress
) -> dict[str, Built]:
    """Build services as they run on this machine: as processes, or as images of containers."""
    contained = sources.container_services(loaded, wanted)
    others = [name for name in wanted if name not in contained]
    built = sources.build_services(loaded, settings, others, progress)
    return sources.releases_of(built) | prepare(loaded, settings, contained, progress)


def prepare(
    loaded: LoadedStack, settings: Settings, names: list[str], progress: Progress
) -> dict[str, Built]:
    """Build or pull the images of services, so that the engine has them.

    Raises BuildError, SourceError, RegistryError or EngineError.
    """
    found, pulled = {}, Pulled(settings, progress)
    for name in names:
        try:
            found[name] = _prepare(loaded, settings, name, progress, pulled)
        except EngineUnreachableError as error:
            error.message = f"{name} runs as a container. {error.message}"
            raise
    return found


def pin_images(
    settings: Settings, resources: Mapping[str, Resource], progress: Progress
) -> dict[str, Resource]:
    """Pull the images of resources that are deployed for the first time, and pin their digests.

    Raises EngineError, RegistryError or BuildError.
    """
    pinned, pulled = dict(resources), Pulled(settings, progress)
    for name, resource in resources.items():
        container = resource.container
        if not isinstance(container, ResourceContainer) or container.digest is not None:
            continue
        platform = _run(settings, lambda engine: engine.platform())
        image = container.image
        inspected = pulled.image(image)
        reference = _pinned(image, inspected.get("RepoDigests") or [inspected["Id"]])
        _check_platform(name, reference, inspected, platform)
        container = msgspec.structs.replace(container, digest=reference)
        pinned[name] = msgspec.structs.replace(resource, container=container)
    return pinned


def _prepare(
    loaded: LoadedStack, settings: Settings, name: str, progress: Progress, pulled: Pulled
) -> Built:
    """Prepare one image. The engine is asked first: without it, nothing is built."""
    platform = _run(settings, lambda engine: engine.platform())
    service = loaded.stack.services[name]
    if service.image is not None:
        image = service.image
        inspected = pulled.image(image)
        digests = inspected.get("RepoDigests") or [inspected["Id"]]
        reference, revision = _pinned(image, digests), ""
        release = release_of(reference) if "@" in reference else f"{name}@{_short(reference)}"
    else:
        progress(f"building {name}")
        built = images.build_for(loaded, settings, name, Platform(*platform), progress)
        tag = built.image.root.digest.partition(":")[2][:12]
        repository = image_repository(settings, loaded.stack.stack, name)
        inspected = _load(settings, built, f"{repository}:{tag}", progress)
        reference, revision, release = inspected["Id"], built.image.revision, f"{name}@{tag}"
        progress(f"{name}: {release}")
    _check_platform(name, reference, inspected, platform)
    config = inspected.get("Config") or {}
    listens = service.kind == "web"
    container = Container(
        port=(service.port or PORT) if listens else None,
        user=service.user or _user(name, reference, str(config.get("User") or "")),
        scratch=service.scratch,
    )
    folder = config.get("WorkingDir") or "/"
    return Built(release, revision, reference, container, folder)


def pull_service(name: str, service: Service, settings: Settings, pulled: Pulled) -> Service:
    """Pull the image of a service that was built elsewhere; fill in what it states.

    That is its user, and the folder that relative paths of volumes are below. Raises EngineError or
    BuildError.
    """
    image = service.image or ""
    platform = _run(settings, lambda engine: engine.platform())
    inspected = pulled.image(image)
    _check_platform(name, image, inspected, platform)
    config = inspected.get("Config") or {}
    assert service.container is not None
    user = service.container.user or _user(name, image, str(config.get("User") or ""))
    folder = PurePosixPath(config.get("WorkingDir") or "/")
    return msgspec.structs.replace(
        service,
        container=msgspec.structs.replace(service.container, user=user),
        volumes={volume: str(folder / path) for volume, path in service.volumes.items()},
    )


def _run(settings: Settings, work: Callable[[Engine], Any]) -> Any:
    async def run() -> Any:
        async with Engine(find_socket(settings.environ)) as engine:
            return await work(engine)

    return asyncio.run(run())


async def _pull(
    engine: Engine, settings: Settings, image: str, progress: Progress
) -> dict[str, Any]:
    """Pull an image, so that a tag is up to date.

    One that was built on this machine is not replaced by an image of the same name in a registry,
    and one that cannot be pulled is used as the engine has it.
    """
    before = await engine.image(image)
    if before is not None and ("@" in image or not before.get("RepoDigests")):
        return before
    try:
        await engine.pull(str(parse(image)), await registry_login(settings, image), progress)
    except EngineUnreachableError:
        raise
    except EngineError as error:
        if before is None:
            raise EngineError(
                f"Image {image} is not on this machine and cannot be pulled.",
                detail=error.message,
                hint="Check `image:`, and log in to its registry with `docker login` if it is "
                "private.",
            ) from error
        progress(f"{image} was not pulled ({error.message}); using the one on this machine")
    found = await engine.image(image)
    if found is None:
        raise EngineError(f"The engine pulled {image}, but does not have it.", hint="Try again.")
    return found


def _load(
    settings: Settings, built: images.ImageResult, name: str, progress: Progress
) -> dict[str, Any]:
    """Load an image into the engine, unless it is there."""
    found = _run(settings, lambda engine: engine.image(name))
    if found is None:
        progress(f"loading {name}")
        with tempfile.TemporaryDirectory(prefix="lapwing-load-") as folder:
            archive = Path(folder) / "image.tar"
            repository, _, tag = name.rpartition(":")
            images.save_images([(built.image, repository, [tag])], archive, settings)
            _run(settings, lambda engine: engine.load(archive))
        found = _run(settings, lambda engine: engine.image(name))
    if found is None:
        raise EngineError(f"The engine loaded {name}, but does not have it.", hint="Try again.")
    inspected: dict[str, Any] = found
    return inspected


def _pinned(image: str, digests: list[str]) -> str:
    """Return the reference by digest that has the name of `image`, else the first or the ID."""
    if "@" in image:
        return image
    wanted = parse(image)
    for digest in digests:
        if "@" in digest and parse(digest).name == wanted.name:
            return digest
    return digests[0]


def _short(digest: str) -> str:
    return digest.partition(":")[2][:12]


def _check_platform(
    name: str, image: str, inspected: dict[str, Any], platform: tuple[str, str]
) -> None:
    found = (str(inspected.get("Os", "")), str(inspected.get("Architecture", "")))
    if found != platform:
        raise BuildError(
            f"The image of {name} is for {'/'.join(found)}, and this machine runs "
            f"{'/'.join(platform)}: {image}.",
            hint="Use an image that is built for this platform.",
        )


def _user(name: str, image: str, text: str) -> int:
    """Return the numeric user of an image. Raises BuildError if it is root or a name."""
    user = text.partition(":")[0]
    if user.isdecimal() and int(user) > 0:
        return int(user)
    who = "root" if user in ("", "0") else f"the user {user!r}"
    raise BuildError(
        f"The image of {name} runs as {who}: {image}.",
        hint=f"Set `user:` of {name} to a number other than 0, such as `user: 1000`.",
    )
