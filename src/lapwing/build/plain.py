"""Plain files: a static service without a build, served as they are in git."""

from __future__ import annotations

from pathlib import Path

from lapwing.build.context import BuildContext, BuildRequest
from lapwing.build.release import Release
from lapwing.build.source import Source, copy
from lapwing.errors import BuildError
from lapwing.settings import Settings
from lapwing.system.files import real_path, remove_tree

PAGE = "index.html"


class PlainEcosystem:
    """Copies the files of the `static` folder."""

    def check(self, request: BuildRequest, source: Source, settings: Settings) -> None:
        """Allow every source: its files are only copied."""

    def facts(self, request: BuildRequest, source: Source, settings: Settings) -> list[str]:
        """Nothing but the source decides."""
        return ["plain"]

    def fill(self, context: BuildContext, bundle: Path) -> Release:
        """Copy the files."""
        work = bundle / "work"
        copy(context.source, work)
        context.complete(work)
        take_static(work, context.request.static or ".", bundle / "app")
        return context.record()


def take_static(work: Path, static: str, app: Path) -> None:
    """Move the folder of made files to `app`, and remove the rest of the work.

    Raises BuildError if there is nothing to serve, or a link leads out of it.
    """
    made = work / static
    if not made.is_dir():
        raise BuildError(
            f"There is no folder {static!r} after the build.",
            hint=f"There is: {_names(work, folders=True)}. Set `static:` to the folder that the "
            "build makes.",
        )
    if not real_path(made).is_relative_to(real_path(work)):
        raise BuildError(f"The folder {static!r} is outside of the service's folder.")
    if not (made / PAGE).is_file():
        raise BuildError(
            f"The folder {static!r} has no {PAGE}.",
            hint=f"There is: {_names(made)}. Set `static:` to the folder with the page.",
        )
    root = real_path(made)
    for path in made.rglob("*"):
        if path.is_symlink() and not real_path(path).is_relative_to(root):
            raise BuildError(
                f"{path.relative_to(work)} is a symbolic link out of the folder {static!r}.",
                hint="Copy the file in the build instead of linking it.",
            )
    root.rename(app)
    remove_tree(work)


def _names(folder: Path, *, folders: bool = False) -> str:
    found = [p.name + "/" * p.is_dir() for p in sorted(folder.iterdir())]
    shown = [n for n in found if (n.endswith("/") or not folders) and n != "node_modules/"]
    return ", ".join(shown[:10]) + (", ..." if len(shown) > 10 else "") if shown else "nothing"
