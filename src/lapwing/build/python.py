"""Python: a bundle of the program and its virtual environment, made by uv.

Dependencies are installed once for each lock file, in a layer. A release has its own copy of that
environment, so editing code installs nothing. A project that is a package itself (it has a
[build-system]) is installed into this copy, with its console scripts. Bytecode is compiled here and
not at the first request.
"""

from __future__ import annotations

import compileall
import hashlib
import os
import py_compile
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from lapwing.build import layers
from lapwing.build.context import BuildContext, BuildRequest
from lapwing.build.dependencies import Dependencies, read_dependencies, satisfies
from lapwing.build.release import VENV, Release, has_python
from lapwing.build.source import Source, copy
from lapwing.errors import BuildError
from lapwing.settings import Settings
from lapwing.system.files import remove_tree

UV_OPTIONS = {
    "UV_NO_PROGRESS": "1",
    "NO_COLOR": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    # By default, the files of a layer would be hard links to those of uv's cache.
    "UV_LINK_MODE": "copy",
}
PIP_INDEXES = {"index-url": "UV_DEFAULT_INDEX", "extra-index-url": "UV_INDEX"}
"""pip's settings of the package index, and the variable in which uv has the same."""
UV_INDEXES = {
    "UV_DEFAULT_INDEX",
    "UV_INDEX",
    "UV_INDEX_URL",
    "UV_EXTRA_INDEX_URL",
    "UV_CONFIG_FILE",
}
SYSTEM_PIP_CONFIGS = (Path("/etc/xdg/pip/pip.conf"), Path("/etc/pip.conf"))


class PythonEcosystem:
    """Builds from uv.lock, requirements.txt, pyproject.toml or setup.py, in this order."""

    def check(self, request: BuildRequest, source: Source, settings: Settings) -> None:
        """Check that the packages can be installed from the files of the source."""
        needs = dependencies_of(request, source.folder, source)
        if needs.lock != "uv.lock":
            check_pip_settings(settings.environ)

    def facts(self, request: BuildRequest, source: Source, settings: Settings) -> list[str]:
        """The Python that runs it decides too."""
        needs = dependencies_of(request, source.folder, source)
        return ["python", interpreter(request.python or needs.python), *needs.chosen]

    def fill(self, context: BuildContext, bundle: Path) -> Release:
        """Copy the program, make the layer if needed, compile."""
        app, scratch = bundle / "app", bundle / "scratch"
        copy(context.source, app)
        needs = dependencies_of(context.request, app, context.source)
        if needs.local or needs.package or needs.rewritten:
            copy(context.source, scratch)  # Building a package writes to its folder.
            for name, text in needs.rewritten.items():
                (scratch / name).write_text(text)
        build = _Build(context, needs, scratch if scratch.exists() else app)
        layer = build.layer()
        layers.clone(layer, bundle / VENV, writable=context.request.run is not None)
        if needs.package:
            build.install_project(bundle / VENV)
        remove_tree(scratch)
        context.complete(app, str(bundle / VENV / "bin"), {"VIRTUAL_ENV": str(bundle / VENV)})
        _compile(app)
        venv = context.target / VENV
        return msgspec.structs.replace(
            context.record(),
            path=(str(venv / "bin"),),
            environment={
                "VIRTUAL_ENV": str(venv),
                "PYTHONDONTWRITEBYTECODE": "1",
                "PYTHONUNBUFFERED": "1",
            },
            layers=(layer.name,),
        )


def dependencies_of(request: BuildRequest, folder: Path, source: Source) -> Dependencies:
    """Read what a service needs from a copy of its source. Raises BuildError."""
    return read_dependencies(folder, set(source.files), request.extras, request.groups)


class _Build:
    """The commands of one build, in a folder that holds a copy of the source."""

    def __init__(self, context: BuildContext, needs: Dependencies, folder: Path) -> None:
        self._context = context
        self._needs = needs
        self._folder = folder
        self._python = interpreter(context.request.python or needs.python)

    def layer(self) -> Path:
        """The layer of the dependencies, which is made unless it is there."""
        total = hashlib.sha256(f"{layers.FORMAT}\n{self._python}\n{sys.platform}\n".encode())
        for name in self._needs.files:
            total.update(name.encode() + b"\0" + (self._folder / name).read_bytes() + b"\0")
        total.update(repr(self._needs.chosen).encode() if self._needs.chosen else b"")
        if self._needs.local:
            total.update(self._context.source.digest.encode())
        layer = self._context.settings.layers / f"python-{total.hexdigest()[:16]}"
        if not has_python(layer):
            with layers.lock(layer):
                layers.discard(layer)
        layers.make(layer, self._install)
        return layer

    def install_project(self, venv: Path) -> None:
        """Install the source itself, without its dependencies."""
        self._uv(
            "pip", "install", "--no-deps", "--compile-bytecode",
            "--python", str(venv / "bin" / "python"), ".",
            doing="The installation of the project",
        )  # fmt: skip

    def _install(self, venv: Path) -> None:
        if self._needs.lock != "uv.lock":  # That one names the index of each package.
            check_pip_settings(self._context.settings.environ)
        self._uv(
            "venv", "--relocatable", "--allow-existing", "--no-project",
            "--python", self._python, str(venv),
            doing="Creating the virtual environment",
        )  # fmt: skip
        python = ("--python", str(venv / "bin" / "python"))
        doing = f"The installation of {self._needs.lock}"
        if self._needs.lock == "uv.lock":
            members = ("--all-packages",) if self._needs.workspace else ()
            self._uv(
                "sync", "--frozen", "--no-install-project", "--no-dev", "--no-editable",
                "--compile-bytecode", *members, *self._needs.chosen, *python,
                doing=doing,
                env={"UV_PROJECT_ENVIRONMENT": str(venv)},
            )  # fmt: skip
            return
        install = ("pip", "install", "--compile-bytecode", *python)
        if self._needs.lock == "requirements.txt":
            checked = ("--require-hashes",) if self._needs.hashed else ()
            self._uv(*install, *checked, "-r", "requirements.txt", doing=doing)
        else:
            self._uv(*install, "-r", self._needs.lock, *self._needs.chosen, doing=doing)

    def _uv(self, *arguments: str, doing: str, env: dict[str, str] | None = None) -> None:
        self._context.run(
            uv(), *arguments, folder=self._folder, doing=doing, env=UV_OPTIONS | (env or {})
        )


def check_pip_settings(environ: Mapping[str, str]) -> None:
    """Raise BuildError if pip has an index and uv has none.

    uv does not read pip's settings, and would install packages with the names of a company's own
    from the public index.
    """
    user = Path(environ.get("HOME", "/nonexistent"))
    config = Path(environ.get("XDG_CONFIG_HOME") or user / ".config")
    if UV_INDEXES & environ.keys() or any(
        folder.joinpath("uv", "uv.toml").is_file() for folder in (config, Path("/etc"))
    ):
        return
    files = [*SYSTEM_PIP_CONFIGS, user / ".pip" / "pip.conf", config / "pip" / "pip.conf"]
    if given := environ.get("PIP_CONFIG_FILE"):
        files = [] if given == os.devnull else [*files, Path(given)]
    for setting, variable in PIP_INDEXES.items():
        line = re.compile(rf"^{setting}\s*[=:]".replace("-", "[-_]"), re.MULTILINE)
        places = [str(f) for f in files if f.is_file() and line.search(f.read_text("utf-8"))]
        name = f"PIP_{setting}".upper().replace("-", "_")
        places += [name] * bool(environ.get(name))
        if places:
            raise BuildError(
                f"pip's setting {setting} (in {places[-1]}) is not used: uv installs the packages.",
                hint=f"Set {variable} to the same URL, in the environment of this command.",
            )


def uv() -> str:
    """Return the uv program, from its wheel. Raises BuildError if it is missing."""
    from uv import find_uv_bin

    try:
        return str(find_uv_bin())
    except FileNotFoundError as error:
        raise BuildError(
            "The program `uv` was not found in its Python package.",
            hint=f"Install it again: `{sys.executable} -m pip install --force-reinstall uv`.",
            detail=str(error).strip(),
        ) from error


def interpreter(wanted: str | None) -> str:
    """Return the path of the Python that runs Lapwing if it matches, else the version for uv.

    The path is below the base prefix: a release must not depend on Lapwing's virtual environment.
    """
    if wanted is not None and not satisfies(sys.version_info[:3], wanted):
        return wanted
    own = Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    return str(own) if own.exists() else sys.executable


def _compile(app: Path) -> None:
    """Compile the program; files with syntax errors are left out.

    A release never changes, so a compiled file is not compared with its source.
    """
    compileall.compile_dir(
        app,
        quiet=2,
        stripdir=str(app.parent),
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
