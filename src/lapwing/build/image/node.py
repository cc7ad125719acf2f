"""Node.js in an image: the program in /app, its production dependencies in /app/node_modules.

npm installs what package-lock.json names for the platform of the image, with the optional packages
of that platform. Install scripts are not run, because they would prepare packages for this machine;
the packages that have one are reported.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lapwing.build import node_runtime
from lapwing.build.context import BuildContext
from lapwing.build.image.base import BaseImage
from lapwing.build.image.contents import APP, DOCKERFILE_HINT, Program, built_files
from lapwing.build.image.layer import FIXED_TIME, Files, Layer, cached, tree
from lapwing.build.managers import NPM, choose, read_json, required_variables, separable
from lapwing.build.node import MODULES, QUIET, required_versions
from lapwing.errors import BuildError
from lapwing.inventory.images import ImageLayer
from lapwing.registry.manifest import Platform

_CPUS = {"amd64": "x64", "arm64": "arm64"}
"""npm's names of architectures."""
_FILES = ("package.json", "package-lock.json", ".npmrc")
LAYERS = (
    ImageLayer("packages of `package-lock.json`", (f"/{APP}/{MODULES}",)),
    ImageLayer("the program", (f"/{APP}",)),
)
"""The layers of `NodeContents`."""


@dataclass(frozen=True)
class NodeContents:
    """The layers of a Node.js service. `created` is the time of its commit."""

    context: BuildContext
    created: int
    report: Callable[[str], None]

    @cached_property
    def _program(self) -> Program:
        return built_files(self.context)

    def environment(self, base: BaseImage) -> Mapping[str, str]:
        """Return the variables of a production process."""
        path = base.environment.get("PATH", "/usr/local/bin:/usr/bin:/bin")
        return {"PATH": f"/{APP}/{MODULES}/.bin:{path}", "NODE_ENV": "production"}

    def layers(self, platform: Platform, base: BaseImage, musl: bool) -> list[Layer]:
        """Install the dependencies, then add the program. Raises BuildError."""
        folder, settings = self.context.source.folder, self.context.settings
        self._check_node(base)
        package = self._package()
        cpu = _CPUS.get(platform.architecture, platform.architecture)
        target = ("--os=linux", f"--cpu={cpu}", f"--libc={'musl' if musl else 'glibc'}")
        names = [name for name in _FILES if (folder / name).is_file()]
        facts = [f"{name}\n{(folder / name).read_text('utf-8')}" for name in names]

        def install(scratch: Path) -> tuple[Files, int]:
            for name in names:
                (scratch / name).write_bytes((folder / name).read_bytes())
            # The project's own scripts (`prepare` above all) would not find their files here.
            bare = {key: value for key, value in package.items() if key != "scripts"}
            (scratch / "package.json").write_text(json.dumps(bare, indent=2))
            self._install(scratch, *target)
            (scratch / MODULES).mkdir(exist_ok=True)
            return tree(scratch / MODULES, f"{APP}/{MODULES}"), FIXED_TIME

        def add_program(scratch: Path) -> tuple[Files, int]:
            self._program.copy(scratch / APP)
            return tree(scratch / APP, APP), self.created

        self._report_scripts(read_json(folder / "package-lock.json"))
        return [
            cached(settings, "node", (*target, *facts), install),
            cached(settings, "app", (str(self.created), *self._program.facts), add_program),
        ]

    def _package(self) -> dict[str, Any]:
        """Read package.json. Raises BuildError if npm cannot install its packages elsewhere."""
        source, service = self.context.source, self.context.request.service
        hint = DOCKERFILE_HINT.format(service=service)
        package = read_json(source.folder / "package.json")
        manager = choose(package, source.folder, source.files)
        if manager.name != "npm":
            raise BuildError(
                f"Without a Dockerfile, `lapwing image build` supports npm only; {service} uses "
                f"{manager.name} ({manager.lock}).",
                hint=hint,
            )
        if not separable(manager, package, source.folder, source.files):
            raise BuildError(
                "package.json has workspaces, packages by path or its own install scripts, which "
                "requires a Dockerfile.",
                hint=hint,
            )
        return package

    def _check_node(self, base: BaseImage) -> None:
        """Check that the base has a Node that the source accepts. Raises BuildError."""
        stated = base.environment.get("NODE_VERSION")
        source = self.context.source
        for place, wanted in required_versions(source.folder, source).items():
            if stated and not node_runtime.satisfies(f"v{stated}", wanted):
                raise BuildError(
                    f"The base image has Node {stated}; {place} requires {wanted}.",
                    hint="Set `build: {base: IMAGE}` of the service to an image with this Node.",
                )

    def _report_scripts(self, lock: Mapping[str, object]) -> None:
        packages = lock.get("packages")
        names = [
            path.rpartition(f"{MODULES}/")[2]
            for path, found in (packages.items() if isinstance(packages, dict) else ())
            if path
            and isinstance(found, dict)
            and found.get("hasInstallScript")
            and not any(found.get(key) for key in ("dev", "optional", "devOptional"))
        ]
        if names:
            self.report(
                f"{self.context.request.service}: the install scripts of {', '.join(names)} are "
                "not run; if a package needs its script, build with a Dockerfile"
            )

    def _install(self, folder: Path, *target: str) -> None:
        settings = self.context.settings
        environ = {**settings.environ, **self.context.request.env}
        node = node_runtime.choose(settings, {}) or node_runtime.install(self.context)
        path = settings.environ.get("PATH", "/usr/bin:/bin")
        self.context.run(
            *node.npm, "ci", "--omit=dev", "--ignore-scripts", *target,
            folder=folder,
            doing="The installation of package-lock.json",
            env={
                **QUIET,
                **required_variables(folder, NPM, environ),
                "PATH": f"{node.program.parent}:{path}",
            },
        )  # fmt: skip
