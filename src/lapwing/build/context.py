"""The contract between the build and the ecosystems: the request, the context, `Ecosystem`.

`builder.py` chooses an ecosystem (`python.py`, `node.py`, `plain.py`) and keys, locks and records
the release. An ecosystem fills one bundle with the context that it is given.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from lapwing.build.command import BuildLog, environment, run
from lapwing.build.release import Release
from lapwing.build.source import Source
from lapwing.settings import Settings


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """What to build: a service's source in `folder`, with its settings from the stack file.

    `static` is the folder of made files for a static service. `timeout` is in seconds. `left_out`
    are files in `folder` that are not part of the source.
    """

    stack: str
    service: str
    folder: Path
    static: str | None = None
    python: str | None = None
    extras: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    script: str = "build"
    run: str | None = None
    env: dict[str, str] = field(default_factory=dict)
    timeout: float = 600.0
    left_out: tuple[str, ...] = ()
    volumes: dict[str, Path] = field(default_factory=dict)
    """Path in the source folder to the place that it is a link to in the release."""


@dataclass(frozen=True, slots=True)
class BuildContext:
    """What a builder works with. `target` is where the bundle will be once it is whole."""

    request: BuildRequest
    source: Source
    settings: Settings
    target: Path
    log: BuildLog
    until: float

    def run(self, *arguments: str, folder: Path, doing: str, env: dict[str, str]) -> None:
        """Run a command of the build; raises BuildError or NoSpaceError."""
        given = environment(self.settings.environ, {**self.request.env, **env})
        run(arguments, folder=folder, environ=given, log=self.log, until=self.until, doing=doing)

    def complete(self, folder: Path, programs: str = "", env: dict[str, str] | None = None) -> None:
        """Run the command of `build: {run: ...}` in `folder`, with `programs` first on the PATH.

        Does nothing without such a command. Raises as `run` does.
        """
        if self.request.run is not None:
            path = os.pathsep.join(filter(None, (programs, self.settings.environ.get("PATH"))))
            self.run(
                "/bin/sh", "-c", self.request.run,
                folder=folder,
                doing="The command `build: {run: ...}`",
                env={"PATH": path or os.defpath, **(env or {})},
            )  # fmt: skip

    def record(self) -> Release:
        """The beginning of the release's record, which a builder completes."""
        return Release(
            name=self.target.name,
            stack=self.request.stack,
            service=self.request.service,
            kind="process" if self.request.static is None else "static",
            revision=self.source.revision,
            built=time.time(),
        )


class Ecosystem(Protocol):
    """Builds one kind of source."""

    def check(self, request: BuildRequest, source: Source, settings: Settings) -> None:
        """Check what is known before the build. Raises BuildError."""

    def facts(self, request: BuildRequest, source: Source, settings: Settings) -> list[str]:
        """What, beside source and request, decides what the release is: tool versions."""

    def fill(self, context: BuildContext, bundle: Path) -> Release:
        """Make the bundle (its `app` folder at least); returns its record."""
