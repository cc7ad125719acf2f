"""Detect the ecosystem of a source from the names of its files."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from lapwing.errors import BuildError

Kind = Literal["python", "node", "plain"]

PYTHON = ("uv.lock", "requirements.txt", "pyproject.toml", "setup.py")
"""What says which packages a Python source needs, the most exact first."""
FOREIGN_LOCKS = {
    "poetry.lock": "poetry export -o requirements.txt",
    "pdm.lock": "pdm export --prod -o requirements.txt",
    "Pipfile.lock": "pipenv requirements --hash > requirements.txt",
    "Pipfile": "pipenv lock && pipenv requirements --hash > requirements.txt",
}
"""Files of other tools that uv cannot install from, and the command that writes one that it can."""
NODE = "package.json"
NODE_LOCKS = {
    "package-lock.json": "npm",
    "pnpm-lock.yaml": "pnpm",
    "yarn.lock": "yarn",
    "bun.lock": "bun",
    "bun.lockb": "bun",
}
"""Lock files of Node sources, and the package manager that writes each."""


def detect(files: Collection[str], *, static: bool) -> Kind:
    """How to build a source with these files; `static` for a service of made files.

    A process with both Python and Node files is a Python one with tools for its assets. A static
    service is built by Node, or copied.

    Raises BuildError if nothing recognises it, or a lock file is missing.
    """
    python = any(name in files for name in (*PYTHON, *FOREIGN_LOCKS))
    if python and not static:
        return "python"
    if NODE in files:
        _check_node(files)
        return "node"
    if static:
        return "plain"
    raise BuildError(
        "The language of the source is not recognized.",
        hint=f"Lapwing looks for {', '.join(PYTHON)} and {NODE}, at the top of the folder that "
        "`build:` names. Is the file there, and not ignored by git?",
    )


def _check_node(files: Collection[str]) -> None:
    if any(name.startswith("node_modules/") for name in files):
        raise BuildError(
            "git does not ignore node_modules.",
            hint="Add `node_modules/` to .gitignore, and if it was committed run "
            "`git rm -r -q --cached node_modules`. Lapwing installs from the lock file.",
        )
    if not NODE_LOCKS.keys() & set(files):
        raise BuildError(
            f"There is a {NODE}, but no package-lock.json or lock file of another package manager.",
            hint="Run `npm install` and commit package-lock.json, so that every build installs the "
            "same. (If the file exists, remove it from .gitignore.)",
        )
