"""Python: a bundle of the program and a layer with its virtual environment, made by uv.

The layer is named by the lock file, so editing code installs nothing: such a build is a copy. A
project that is a package itself (it has a [build-system]) is installed, without its dependencies,
into the bundle. Bytecode is compiled here and not at the first request.
"""

from __future__ import annotations

import compileall
import hashlib
import sys
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from lapwing.artifacts import layers
from lapwing.artifacts.build import BuildRequest, Workshop, record
from lapwing.artifacts.release import Release
from lapwing.artifacts.source import Source
from lapwing.errors import BuildError
from lapwing.settings import Settings


class PythonBuilder:
    """Builds from uv.lock, requirements.txt or pyproject.toml, in this order."""

    def facts(self, request: BuildRequest, source: Source, settings: Settings) -> list[str]:
        """The version of Python decides too."""
        return ["python", _version(request)]

    def fill(self, workshop: Workshop, bundle: Path) -> Release:
        """Make the layer if needed, copy the program, compile it."""
        request, source = workshop.request, workshop.source
        layer = self._layer(workshop)
        app = bundle / "app"
        workshop.copy_source(app)
        python = workshop.settings.layers / layer / "bin" / "python"
        environment = {
            "VIRTUAL_ENV": str(workshop.settings.layers / layer),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
        }
        if _is_package(source.folder):
            workshop.run(
                uv(), "pip", "install", "--no-deps", "--python", str(python),
                "--target", str(bundle / "lib"), str(app),
                folder=bundle, doing="Installing the project", env=_quiet(),
            )  # fmt: skip
            target = workshop.settings.releases / request.stack / request.service
            environment["PYTHONPATH"] = str(target / bundle_name(bundle) / "lib")
        _compile(bundle)
        made = record(request, source)
        return msgspec.structs.replace(
            made,
            path=(str(workshop.settings.layers / layer / "bin"),),
            environment=environment,
            layers=(layer,),
        )

    def _layer(self, workshop: Workshop) -> str:
        """Install the dependencies, unless a layer has them; returns the layer's name."""
        folder = workshop.source.folder
        lock = next(
            n for n in ("uv.lock", "requirements.txt", "pyproject.toml")
            if n in workshop.source.files
        )  # fmt: skip
        parts = [_version(workshop.request).encode(), lock.encode(), (folder / lock).read_bytes()]
        if lock == "uv.lock":
            parts.append((folder / "pyproject.toml").read_bytes())
        parts += [
            (folder / n).read_bytes()
            for n in workshop.source.files
            if lock == "requirements.txt" and n.endswith(".txt") and n != lock
        ]
        name = f"python-{hashlib.sha256(b'|'.join(parts)).hexdigest()[:16]}"
        target = workshop.settings.layers / name
        layers.make(target, lambda made: self._install(workshop, lock, made))
        return name

    def _install(self, workshop: Workshop, lock: str, venv: Path) -> None:
        folder, request = workshop.source.folder, workshop.request
        venv.rmdir()
        doing = f"Installing what {lock} names"
        workshop.run(
            uv(), "venv", "--quiet", "--relocatable", "--python", _interpreter(request), str(venv),
            folder=folder, doing="Making the virtual environment", env=_quiet(),
        )  # fmt: skip
        python = str(venv / "bin" / "python")
        if lock == "uv.lock":
            workshop.run(
                uv(), "sync", "--frozen", "--no-install-project", "--no-dev", "--compile-bytecode",
                folder=folder, doing=doing,
                env=_quiet() | {"UV_PROJECT_ENVIRONMENT": str(venv), "VIRTUAL_ENV": str(venv)},
            )  # fmt: skip
            return
        install = [uv(), "pip", "install", "--python", python, "--compile-bytecode"]
        if lock == "requirements.txt":
            if "--hash=" in (folder / lock).read_text():
                install.append("--require-hashes")
            install += ["-r", lock]
        else:
            wanted = _project(folder).get("project", {}).get("dependencies", [])
            if not wanted:
                return
            install += [str(d) for d in wanted]
        workshop.run(*install, folder=folder, doing=doing, env=_quiet())


def uv() -> str:
    """The uv program, from its wheel."""
    from uv import find_uv_bin

    return str(find_uv_bin())


def bundle_name(bundle: Path) -> str:
    """The name that a bundle will have once it is whole."""
    return bundle.name.removeprefix(layers.TEMPORARY).rsplit("-", 1)[0]


def _version(request: BuildRequest) -> str:
    return request.python or f"{sys.version_info.major}.{sys.version_info.minor}"


def _interpreter(request: BuildRequest) -> str:
    """The Python that runs Lapwing, unless another version is asked for."""
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    if request.python in (None, own):
        return str(Path(sys.base_prefix) / "bin" / f"python{own}")
    return str(request.python)


def _quiet() -> dict[str, str]:
    return {"UV_NO_PROGRESS": "1", "UV_PYTHON_DOWNLOADS": "automatic", "NO_COLOR": "1"}


def _project(folder: Path) -> dict[str, Any]:
    try:
        return tomllib.loads((folder / "pyproject.toml").read_text())
    except FileNotFoundError:
        return {}
    except tomllib.TOMLDecodeError as error:
        raise BuildError(f"pyproject.toml is not valid: {error}.") from error


def _is_package(folder: Path) -> bool:
    return "build-system" in _project(folder)


def _compile(bundle: Path) -> None:
    """Compile the program; a file that does not compile is the program's own affair."""
    compileall.compile_dir(
        bundle / "app", quiet=2, workers=1, invalidation_mode=_UNCHECKED, stripdir=str(bundle)
    )


_UNCHECKED = __import__("py_compile").PycInvalidationMode.UNCHECKED_HASH
"""Releases never change, so a compiled file need not be compared with its source."""
