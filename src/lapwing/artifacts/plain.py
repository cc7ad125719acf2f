"""Plain files: a static service without a build, served as they are in git."""

from __future__ import annotations

import shutil
from pathlib import Path

from lapwing.artifacts.build import BuildRequest, Workshop, record
from lapwing.artifacts.release import Release
from lapwing.artifacts.source import Source
from lapwing.errors import BuildError
from lapwing.settings import Settings


class PlainBuilder:
    """Copies the files of the `static` folder."""

    def facts(self, request: BuildRequest, source: Source, settings: Settings) -> list[str]:
        """Nothing but the source decides."""
        return ["plain"]

    def fill(self, workshop: Workshop, bundle: Path) -> Release:
        """Copy the files."""
        request = workshop.request
        work = bundle / "work"
        workshop.copy_source(work)
        take_static(work, request.static or ".", bundle / "app")
        shutil.rmtree(work)
        return record(request, workshop.source)


def take_static(work: Path, static: str, app: Path) -> None:
    """Move the made files to the bundle. Raises BuildError if there are none to serve."""
    made = work / static
    if not made.is_dir():
        there = ", ".join(sorted(p.name for p in work.iterdir() if p.is_dir())) or "no folder"
        raise BuildError(
            f"The build made no folder {static!r}.",
            hint=f"There is: {there}. Set `static:` to the folder that the build makes.",
        )
    if not (made / "index.html").is_file():
        there = ", ".join(sorted(p.name for p in made.iterdir())[:10]) or "nothing"
        raise BuildError(
            f"{static!r} has no index.html.",
            hint=f"There is: {there}. Set `static:` to the folder with the page.",
        )
    made.rename(app)
