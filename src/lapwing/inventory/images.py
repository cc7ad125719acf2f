"""The images that are built from the source of a stack.

Which services have one follows from the stack file; of what layers it consists follows from the
source, which the builder reads (`lapwing.build.image.outline`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from lapwing.stack.load import LoadedStack


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """The image of a service that is built from source, and what builds it.

    `program` is a Python or Node.js program that Lapwing installs on a base image, `static` are
    files with their server, `dockerfile` is built by a container engine. `base` is empty unless the
    stack file names one.
    """

    service: str
    kind: Literal["program", "static", "dockerfile"]
    base: str = ""


@dataclass(frozen=True, slots=True)
class ImageLayer:
    """A layer: what it contains, and the paths in the image that its files are at or below."""

    content: str
    paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ImageOutline:
    """What an image consists of: the layers on its base image, the lowest first, and its user.

    `base` is empty for an image without one; `user` is empty for that of the base image.
    """

    service: str
    base: str
    layers: tuple[ImageLayer, ...]
    user: str


def built_images(loaded: LoadedStack) -> Iterator[BuiltImage]:
    """Yield the image of each service that has a source and runs as a container."""
    for name, service in loaded.stack.services.items():
        if service.image is not None:
            continue
        if loaded.settings.target == "machine" and service.runtime_in(loaded.settings) == "process":
            continue
        if service.dockerfile is not None:
            yield BuiltImage(name, "dockerfile")
        elif service.build is not None:
            kind: Literal["program", "static"] = "static" if service.static else "program"
            yield BuiltImage(name, kind, service.build.base or "")
