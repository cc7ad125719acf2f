"""The contract between the image builder and the language builders: `Contents`.

`contents_of` chooses one by the same rules as a build for a machine. The files of the program are
those of that build (npm scripts, `build: {run: ...}`), or of the source where nothing is run.
Dependencies are installed again, for the platform of the image and not for this machine.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lapwing.build.builder import build
from lapwing.build.context import BuildContext
from lapwing.build.image.base import BaseImage
from lapwing.build.image.layer import Layer
from lapwing.build.release import ReleaseStore
from lapwing.build.source import copy
from lapwing.registry.manifest import Platform

APP = "app"
"""The folder of the program in an image."""
DOCKERFILE_HINT = (
    "Build it with a Dockerfile: run `lapwing image dockerfile {service}`, save what it prints in "
    "the source folder, add what is missing, and set `dockerfile: Dockerfile` of the service."
)


class Contents(Protocol):
    """The layers of one service, and what its program needs to run."""

    def layers(self, platform: Platform, base: BaseImage, musl: bool) -> list[Layer]:
        """Make the layers for a platform, those that change the least first.

        `musl`: the base has this C library, not glibc. Raises BuildError.
        """

    def environment(self, base: BaseImage) -> Mapping[str, str]:
        """Return the variables of the program beside those of every image."""


@dataclass(frozen=True, slots=True)
class Program:
    """The files of a service's program: `facts` decide them, `copy` copies them to a new folder."""

    facts: tuple[str, ...]
    copy: Callable[[Path], object]


def source_files(context: BuildContext) -> Program:
    """Return the files of the source, for a service whose build runs no command."""
    return Program((context.source.digest,), lambda target: copy(context.source, target))


def built_files(context: BuildContext) -> Program:
    """Return the files that the build for a machine makes. Raises as `build` does."""
    settings, request = context.settings, context.request
    release = build(request, settings).release
    folder = ReleaseStore(settings.releases).folder(release.stack, release.service, release.name)
    left_out = shutil.ignore_patterns("__pycache__", "node_modules")

    def copy_built(target: Path) -> None:
        shutil.copytree(folder / "app", target, symlinks=True, ignore=left_out)
        for path in (target, *target.rglob("*")):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)  # A release is read-only; here more is written beside it.

    return Program((release.name,), copy_built)
