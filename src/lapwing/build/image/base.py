"""Base images: the name, digest and config of the image that a service is built on.

The image is the one of `build: {base: ...}`, or the default for the language (bases.toml). Its
digest comes from the reference itself, or from lapwing.lock beside the stack file, which `lapwing
image pin` writes; only without both is the tag looked up. So a build with a lock file uses the
same base today and in a year. Only manifests and configs are read: layers stay in the registry.

A static service needs no base: its server is one static binary.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from lapwing.build import node_runtime
from lapwing.build.dependencies import EXACT, satisfies
from lapwing.errors import BuildError, ImageMissingError, RegistryError
from lapwing.registry.client import RegistryClient
from lapwing.registry.inspect import read_config
from lapwing.registry.manifest import Manifest, Platform, select_platforms
from lapwing.stack.image import Reference, parse
from lapwing.system import package_data


@dataclass(frozen=True, slots=True)
class BaseImage:
    """A base image for one platform. `config` is its image configuration."""

    manifest: Manifest | None = None
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that it sets."""
        found = (self.config.get("config") or {}).get("Env") or []
        return dict(str(entry).partition("=")[::2] for entry in found)


@dataclass(frozen=True, slots=True)
class Base:
    """A base image by its digest, for some platforms; no `reference` for an empty base."""

    reference: Reference | None
    name: str
    images: Mapping[Platform, BaseImage]


@cache
def _defaults() -> dict[str, Any]:
    return tomllib.loads(package_data.read("build.image", "bases.toml"))


def default_base(language: str, accepts: Callable[[str], bool], required: str) -> str:
    """Return the default base image of a language with the first version that a source `accepts`.

    Raises BuildError, with the `required` version, if it accepts none.
    """
    entry = _defaults()[language]
    for version in entry["versions"]:
        if accepts(version):
            return str(entry["image"].format(version=version))
    raise BuildError(
        f"There is no default base image for {language.capitalize()} {required}.",
        hint="Set `build: {base: IMAGE}` of the service to an image with this version.",
    )


def default_python(required: str | None) -> str:
    """Return the default base image for a version of Python, as `3.12` or `>=3.11,<4`."""
    if required is not None and EXACT.fullmatch(required):
        return str(_defaults()["python"]["image"].format(version=required))

    def accepts(version: str) -> bool:
        numbers = tuple(int(part) for part in version.split("."))
        return required is None or satisfies((*numbers, 99), required)

    return default_base("python", accepts, required or "")


def default_node(required: Collection[str]) -> str:
    """Return the default base image for ranges of versions of Node."""

    def accepts(version: str) -> bool:
        return all(node_runtime.satisfies(f"v{version}.99.99", each) for each in required)

    return default_base("node", accepts, ", ".join(required))


async def find_digest(client: RegistryClient, text: str, lock: Mapping[str, str]) -> Reference:
    """Return a base image by digest: its own, that of the lock, or what the tag names now.

    Raises RegistryError.
    """
    reference = parse(text)
    digest = reference.digest or lock.get(str(reference)) or await client.digest(reference)
    if digest is None:
        raise ImageMissingError(
            f"The image {reference} does not exist.",
            hint="Correct `build: {base: ...}` of the service, or `image` or `version` of the "
            "resource.",
        )
    return reference.at(digest)


async def read_base(
    client: RegistryClient, text: str, lock: Mapping[str, str], platforms: Iterable[Platform]
) -> Base:
    """Read a base image for some platforms.

    Raises RegistryError, also if it is not available for one of them.
    """
    reference = await find_digest(client, text, lock)
    repository = client.repository(reference)
    root = await repository.manifest(reference.wanted)
    images = {}
    for platform in platforms:
        manifest = root
        if root.is_index:
            try:
                child = select_platforms(root, [platform])[0]
            except RegistryError as error:
                raise _other_platform(text, platform, error.hint) from error
            manifest = await repository.manifest(child.digest, child.size)
        config = await read_config(repository, manifest) or {}
        found = Platform(str(config.get("os")), str(config.get("architecture")))
        if (found.os, found.architecture) != (platform.os, platform.architecture):
            raise _other_platform(text, platform, f"The image is for {found}.")
        images[platform] = BaseImage(manifest, config)
    return Base(reference, str(parse(text)), images)


def empty_base(platforms: Iterable[Platform]) -> Base:
    """Return a base without files."""
    return Base(None, "scratch", {platform: BaseImage() for platform in platforms})


def _other_platform(text: str, platform: Platform, hint: str | None) -> RegistryError:
    return RegistryError(f"The base image {text} is not available for {platform}.", hint=hint)
