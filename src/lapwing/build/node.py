"""Node: an exact installation of the lock file in a layer that it names, then the build script.

The script runs with a copy of the layer's modules, which it may change (`prisma generate` does). A
static service keeps only the files that the build made. A process keeps its program and this copy.
A source whose installation depends on more than the lock (workspaces, packages by path, its
own install scripts) is installed in its bundle instead, each time. The script is run by npm for
every package manager: npm does not look for what another manager wrote into the folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from lapwing.build import layers, managers, node_runtime
from lapwing.build.context import BuildContext, BuildRequest
from lapwing.build.managers import Manager, read_json
from lapwing.build.node_runtime import Node
from lapwing.build.plain import take_static
from lapwing.build.release import Release
from lapwing.build.source import Source, copy
from lapwing.errors import BuildError
from lapwing.settings import Settings

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
MODULES = "node_modules"


class NodeEcosystem:
    """Builds from package.json and a lock file."""

    def check(self, request: BuildRequest, source: Source, settings: Settings) -> None:
        """Check the version of Node, the package manager, and the variables of its settings."""
        node_runtime.choose(settings, required_versions(source.folder, source))
        package = read_json(source.folder / "package.json")
        manager = managers.choose(package, source.folder, source.files)
        managers.required_variables(source.folder, manager, {**settings.environ, **request.env})
        if manager.name != "npm" and manager.version is None:
            manager.find(settings.environ.get("PATH", os.defpath))

    def facts(self, request: BuildRequest, source: Source, settings: Settings) -> list[str]:
        """The version of Node decides too."""
        found = node_runtime.choose(settings, required_versions(source.folder, source))
        return ["node", found.version if found else f"v{node_runtime.OWN}"]

    def fill(self, context: BuildContext, bundle: Path) -> Release:
        """Install the modules if needed, run the build script, keep what is needed to run."""
        static = context.request.static
        work = bundle / ("app" if static is None else "work")
        copy(context.source, work)
        node = node_runtime.choose(context.settings, required_versions(work, context.source))
        package = read_json(work / "package.json")
        manager = managers.choose(package, work, context.source.files)
        build = _Build(context, node or node_runtime.install(context), work, package, manager)
        layer = build.modules(context.request.script)
        build.script(context.request.script)
        context.complete(work, ":".join(build.programs(work)), {"NODE_ENV": "production"})
        used = (layer.name,) if layer else ()
        if static is not None:
            take_static(work, static, bundle / "app")
            return msgspec.structs.replace(context.record(), layers=used)
        return msgspec.structs.replace(
            context.record(),
            path=tuple(build.programs(context.target / "app")),
            environment={"NODE_ENV": "production"},
            layers=used,
        )


def required_versions(folder: Path, source: Source) -> dict[str, str]:
    """Return the versions of Node that a source requires, by the place that states them."""
    names = [name for name in node_runtime.VERSION_FILES if name in source.files]
    texts = {name: (folder / name).read_text("utf-8", errors="replace") for name in names}
    return node_runtime.required(read_json(folder / "package.json"), texts)


@dataclass(frozen=True)
class _Build:
    """The commands of one build, in a folder that holds a copy of the source."""

    context: BuildContext
    node: Node
    work: Path
    package: dict[str, Any]
    manager: Manager

    @property
    def _scripts(self) -> dict[str, Any]:
        return self.package.get("scripts") or {}

    def modules(self, script: str) -> Path | None:
        """Install the modules; returns the layer they were copied from, if they can be in one."""
        files = self.context.source.files
        if not managers.separable(self.manager, self.package, self.work, files):
            self._install(self.work)
            return None
        wanted = ["package.json", self.manager.lock, *self.manager.settings]
        wanted = [name for name in wanted if name in files]
        manager = f"{self.manager.name} {self.manager.version}"
        total = hashlib.sha256(f"{layers.FORMAT}\n{self.node.version}\n{manager}".encode())
        for name in wanted:
            total.update(name.encode() + b"\0" + (self.work / name).read_bytes() + b"\0")
        layer = self.context.settings.layers / f"node-{total.hexdigest()[:16]}"

        def install(made: Path) -> None:
            for name in wanted:
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
        env = {"NODE_ENV": "production"}
        # devEngines may refuse to be run by npm, although another manager made the folder.
        force = ["--force"] * (self.manager.name != "npm" and "devEngines" in self.package)
        self._run(*self.node.npm, "run", *force, name, folder=self.work, doing=doing, env=env)

    def _install(self, folder: Path) -> None:
        environ = {**self.context.settings.environ, **self.context.request.env}
        env = managers.required_variables(folder, self.manager, environ)
        program = self.node.npm
        if self.manager.name != "npm":
            program = (self.manager.find(":".join([*self.programs(folder), self._path])),)
        doing = f"The installation of {self.manager.lock}"
        arguments = (*program, *self.manager.arguments.split())
        self._run(*arguments, folder=folder, doing=doing, env={**self.manager.env, **env})

    def _run(self, *arguments: str, folder: Path, doing: str, env: Mapping[str, str]) -> None:
        given = {"PATH": ":".join([*self.programs(folder), self._path])}
        self.context.run(*arguments, folder=folder, doing=doing, env={**QUIET, **given, **env})

    @property
    def _path(self) -> str:
        return self.context.settings.environ.get("PATH", "/usr/bin:/bin")

    def programs(self, folder: Path) -> list[str]:
        """The folders of the programs of a build in `folder`, for the PATH."""
        own = [str(self.toolchain)] if self.toolchain else []
        return [str(folder / MODULES / ".bin"), *own, str(self.node.program.parent)]

    @cached_property
    def toolchain(self) -> Path | None:
        """The folder of the program of the manager that package.json names, installed if needed."""
        name, version = self.manager.name, self.manager.version
        if version is None or not self.manager.source:
            return None
        target = self.context.settings.toolchains / f"{name}-{version}"

        def install(made: Path) -> None:
            arguments = ("install", "--prefix", str(made), f"{self.manager.source}@{version}")
            path = f"{self.node.program.parent}:{self._path}"
            self.context.run(
                *self.node.npm, *arguments,
                folder=made,
                doing=f"The installation of {name} {version}",
                env={**QUIET, "PATH": path},
            )  # fmt: skip

        layers.make(target, install)
        return target / MODULES / ".bin"
