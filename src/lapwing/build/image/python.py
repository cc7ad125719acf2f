"""Python in an image: a virtual environment in /opt/venv, the program in /app.

uv resolves and installs for the platform of the image, from wheels only: nothing is compiled, so
an arm64 image is built on an amd64 machine, and the reverse. The environment is made beside the
source and adapted: its `python` is a link to that of the base image, and paths of this machine are
removed. Byte code is compiled by the same version of Python as the base image has, because each
writes another, with a hash of its source instead of a time.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lapwing.build.command import environment
from lapwing.build.context import BuildContext
from lapwing.build.dependencies import Dependencies, satisfies
from lapwing.build.image.base import BaseImage
from lapwing.build.image.contents import (
    APP,
    DOCKERFILE_HINT,
    Program,
    built_files,
    source_files,
)
from lapwing.build.image.layer import FIXED_TIME, Files, Layer, cached, tree
from lapwing.build.python import UV_OPTIONS, check_pip_settings, dependencies_of, uv
from lapwing.build.source import copy
from lapwing.errors import BuildError
from lapwing.inventory.images import ImageLayer
from lapwing.registry.manifest import Platform
from lapwing.system import process
from lapwing.system.files import write_atomic

VENV = "opt/venv"
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
"""uv's names of architectures."""
_GLIBC, _MUSL = "manylinux_2_36", "unknown-linux-musl"
"""Source: uv's `--python-platform`. The slim images have glibc 2.36 or newer."""
_OF_THIS_MACHINE = re.compile(
    r"(pyvenv\.cfg|CACHEDIR\.TAG|\.gitignore|\.lock|lib64"
    r"|bin/(python|activate|deactivate|pydoc)[^/]*"
    r"|lib/[^/]*/site-packages/(_virtualenv\.\w+|__pycache__/_virtualenv.*))"
)
"""Files of a virtual environment that name the machine, or are only for interactive use."""
_NO_WHEEL = re.compile(
    r"Wheels are required for `([^`]+)`|\b([\w.-]+)(?:==\S+)? has no (?:usable )?wheels"
)
_COMPILE = (
    "import compileall as c, py_compile as p, sys; c.compile_dir(sys.argv[1], quiet=2, force=True, "
    "stripdir=sys.argv[1], prependdir=sys.argv[2], "
    "invalidation_mode=p.PycInvalidationMode.UNCHECKED_HASH)"
)


def outline(needs: Dependencies) -> tuple[ImageLayer, ...]:
    """Describe the layers of `PythonContents`."""
    package = (f"/{VENV}",) if needs.package else ()
    return (
        ImageLayer(f"packages of `{needs.lock}`", (f"/{VENV}",)),
        ImageLayer("the program", (f"/{APP}", *package)),
    )


@dataclass(frozen=True)
class PythonContents:
    """The layers of a Python service. `created` is the time of its commit."""

    context: BuildContext
    created: int
    report: Callable[[str], None]

    @cached_property
    def _needs(self) -> Dependencies:
        source = self.context.source
        return dependencies_of(self.context.request, source.folder, source)

    @cached_property
    def _program(self) -> Program:
        run = self.context.request.run
        return source_files(self.context) if run is None else built_files(self.context)

    def environment(self, base: BaseImage) -> Mapping[str, str]:
        """Return the variables of the virtual environment."""
        path = base.environment.get("PATH", "/usr/local/bin:/usr/bin:/bin")
        return {
            "PATH": f"/{VENV}/bin:{path}",
            "VIRTUAL_ENV": f"/{VENV}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
        }

    def layers(self, platform: Platform, base: BaseImage, musl: bool) -> list[Layer]:
        """Install the dependencies, then add the program. Raises BuildError."""
        if self._needs.local:
            raise BuildError(
                f"{self._needs.lock} installs packages from the source folder, which requires a "
                "Dockerfile.",
                hint=DOCKERFILE_HINT.format(service=self.context.request.service),
            )
        python = _Python.of(base, self.context.request.python or self._needs.python)
        compiler = self._interpreter(python)
        machine = MACHINES.get(platform.architecture, platform.architecture)
        target = f"{machine}-{_MUSL if musl else _GLIBC}"
        folder, settings = self.context.source.folder, self.context.settings
        locks = [f"{name}\n{(folder / name).read_text('utf-8')}" for name in self._needs.files]
        return [
            cached(
                settings,
                "python",
                (compiler.version, python.path, target, *self._needs.chosen, *locks),
                lambda scratch: (self._install(scratch, python, compiler, target), FIXED_TIME),
            ),
            cached(
                settings,
                "app",
                (compiler.version, str(self.created), *self._program.facts),
                lambda scratch: (self._add_program(scratch, compiler), self.created),
            ),
        ]

    def _install(
        self, scratch: Path, python: _Python, compiler: _Interpreter, target: str
    ) -> Files:
        """Install the locked packages for the platform `target`."""
        needs, listed = self._needs, scratch / "listed"
        for name in needs.files:
            (listed / name).parent.mkdir(parents=True, exist_ok=True)
            content = (self.context.source.folder / name).read_bytes()
            (listed / name).write_bytes(needs.rewritten.get(name, "").encode() or content)
        venv = self._venv(scratch, compiler)
        checked = ["--require-hashes"] if needs.hashed else []
        wanted = [needs.lock, *needs.chosen]
        if needs.lock == "uv.lock":
            wanted = ["exported.txt"]
            self._uv(
                "export", "--frozen", "--no-dev", "--no-emit-project", "-q", *needs.chosen,
                "-o", *wanted,
                folder=listed,
                doing="Reading uv.lock",
            )  # fmt: skip
        else:
            check_pip_settings(self.context.settings.environ)
        try:
            self._uv(
                "pip", "install", "--python", str(venv / "bin" / "python"),
                "--python-platform", target, "--only-binary", ":all:", *checked, "-r", *wanted,
                folder=listed,
                doing=f"The installation of {needs.lock} for {target}",
            )  # fmt: skip
        except BuildError as error:
            raise self._explain(error, python, target) from error
        self._compile(compiler, f"{venv}/lib", f"/{VENV}/lib")
        return self._adapt(venv, python)

    def _explain(self, error: BuildError, python: _Python, target: str) -> BuildError:
        """Name the package without a wheel, if that is why an installation failed."""
        found = _NO_WHEEL.search(error.detail or "")
        if found is None:
            return error
        return BuildError(
            f"{found[1] or found[2]} has no wheel for {target} and Python {python.version}, and an "
            "image is built without a compiler.",
            log=error.log,
            detail=error.detail,
            hint=DOCKERFILE_HINT.format(service=self.context.request.service),
        )

    def _add_program(self, scratch: Path, compiler: _Interpreter) -> Files:
        """Copy the program, and install it if it is a package."""
        app = scratch / APP
        self._program.copy(app)
        self._compile(compiler, str(app), f"/{APP}")
        found = tree(app, APP)
        if self._needs.package:
            venv = self._venv(scratch, compiler)
            self._install_project(scratch, venv)
            self._compile(compiler, f"{venv}/lib", f"/{VENV}/lib")
            found |= tree(venv, VENV, lambda name: bool(_OF_THIS_MACHINE.fullmatch(name)))
        return found

    def _install_project(self, scratch: Path, venv: Path) -> None:
        """Build a wheel of the source, which has to be one for every platform, and install it."""
        source, wheels = scratch / "source", scratch / "wheels"
        copy(self.context.source, source)  # Building a package writes to its folder.
        self._uv(
            "build", "--wheel", "--out-dir", str(wheels), ".",
            folder=source,
            doing="Building the project",
            env={"SOURCE_DATE_EPOCH": str(FIXED_TIME)},
        )  # fmt: skip
        wheel = next(wheels.glob("*.whl"))
        if not wheel.stem.endswith("-none-any"):
            raise BuildError(
                f"The project is a package with compiled parts ({wheel.name}), which are only for "
                "this machine.",
                hint=DOCKERFILE_HINT.format(service=self.context.request.service),
            )
        self._uv(
            "pip", "install", "--python", str(venv / "bin" / "python"), "--no-deps", "--no-index",
            "--find-links", str(wheels), wheel.name.partition("-")[0],
            folder=source,
            doing="The installation of the project",
        )  # fmt: skip

    def _interpreter(self, python: _Python) -> _Interpreter:
        """Return the Python of the base's version on this machine, which uv downloads if needed.

        Raises BuildError if there is not even one of the same minor version.
        """
        for version in dict.fromkeys((python.exact, python.version)):
            path = self._find(version)
            if path is None:
                with contextlib.suppress(BuildError):
                    self._uv(
                        "python", "install", version,
                        folder=self.context.source.folder,
                        doing=f"The download of Python {version}",
                    )  # fmt: skip
                    path = self._find(version)
            if path is not None:
                if version != python.exact:
                    self.report(
                        f"{self.context.request.service}: byte code was compiled by another Python "
                        f"{version} than the base's {python.exact}; the digest may differ on other "
                        "machines"
                    )
                return _Interpreter(version, path)
        raise BuildError(
            f"Python {python.version} of the base image is not on this machine, and uv cannot "
            "download it.",
            log=self.context.log.path,
            hint=f"Install Python {python.version}, or set `build: {{base: IMAGE}}` of the service "
            "to an image with another Python.",
        )

    def _find(self, version: str) -> str | None:
        """Return the program that uv found, now or earlier, unless it was changed since then."""
        record = self.context.settings.images / f".python-{version}"
        with contextlib.suppress(OSError, ValueError):
            path, stamp = record.read_text("utf-8").split("\n")
            if stamp == _stamp(path):
                return path
        environ = environment(self.context.settings.environ, UV_OPTIONS)
        asked = [uv(), "python", "find", "--no-project", "--system", version]
        done = process.run(asked, environ, timeout=60)
        path = done.stdout.decode().strip()
        if done.status != 0 or not path:
            return None
        write_atomic(record, f"{path}\n{_stamp(path)}".encode())
        return path

    def _venv(self, scratch: Path, compiler: _Interpreter) -> Path:
        venv = scratch / "venv"
        self._uv(
            "venv", "--relocatable", "--no-project", "--python", compiler.path, str(venv),
            folder=scratch,
            doing="Creating the virtual environment",
        )  # fmt: skip
        return venv

    def _adapt(self, venv: Path, python: _Python) -> Files:
        """Let a virtual environment use the Python of the base image."""
        found = tree(venv, VENV, lambda name: bool(_OF_THIS_MACHINE.fullmatch(name)))
        made = venv.with_name("made")
        made.mkdir()
        home, name = python.path.rsplit("/", 1)
        (made / "pyvenv.cfg").write_text(f"home = {home}\ninclude-system-site-packages = false\n")
        for link, to in {"python": python.path, "python3": "python", name: "python"}.items():
            if not (made / link).is_symlink():
                (made / link).symlink_to(to)
            found[f"{VENV}/bin/{link}"] = made / link
        return {**found, f"{VENV}/pyvenv.cfg": made / "pyvenv.cfg"}

    def _compile(self, compiler: _Interpreter, folder: str, shown: str) -> None:
        self.context.run(
            compiler.path, "-I", "-S", "-c", _COMPILE, folder, shown,
            folder=Path(folder),
            doing="Compiling to byte code",
            env={"PYTHONHASHSEED": "0"},
        )  # fmt: skip

    def _uv(
        self, *arguments: str, folder: Path, doing: str, env: Mapping[str, str] | None = None
    ) -> None:
        self.context.run(
            uv(), *arguments, folder=folder, doing=doing, env={**UV_OPTIONS, **(env or {})}
        )


def _stamp(program: str) -> str:
    """Return what changes with the file of a program. Raises OSError."""
    about = Path(program).stat()
    return f"{about.st_ino} {about.st_size} {about.st_mtime_ns}"


@dataclass(frozen=True, slots=True)
class _Interpreter:
    """A Python on this machine, found by a version."""

    version: str
    path: str


@dataclass(frozen=True, slots=True)
class _Python:
    """The Python of a base image: `3.12`, `3.12.7`, and where its program is."""

    version: str
    exact: str
    path: str

    @classmethod
    def of(cls, base: BaseImage, wanted: str | None) -> _Python:
        """Find the Python of a base image by the variable that the official images set.

        Another base has it where Linux distributions do, in the version that is `wanted`. Raises
        BuildError if it is not known or not the wanted one.
        """
        stated = base.environment.get("PYTHON_VERSION", "")
        found = re.match(r"\d+(\.\d+)+", stated or wanted or "")
        if found is None:
            raise BuildError(
                "The base image does not state its version of Python (PYTHON_VERSION).",
                hint='Set `build: {python: "3.12"}` of the service to the version that it has.',
            )
        numbers = tuple(int(part) for part in found[0].split("."))
        if wanted is not None and not satisfies(numbers, wanted):
            raise BuildError(
                f"The base image has Python {found[0]}; the source requires {wanted}.",
                hint="Set `build: {base: IMAGE}` of the service to an image with this Python.",
            )
        version = ".".join(found[0].split(".")[:2])
        folder = "/usr/local/bin" if stated else "/usr/bin"
        return cls(version, found[0], f"{folder}/python{version}")
