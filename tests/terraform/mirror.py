"""Make what `make test-terraform` needs, in a folder: `python -m tests.terraform.mirror FOLDER`.

A mirror of providers in the layout that Terraform installs from, with the schema provider under the
names of the real ones, and checkov in a separate virtual environment (it is no dependency of
Lapwing). Needs go, npm and the registries of both; takes about five minutes on two cores the first
time, and nothing when it is there already.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.terraform import published_schema

CHECKOV = "3.3.30"


@dataclass(frozen=True, slots=True)
class Published:
    """A provider: the version that its stand-in is installed as, and the library with its schema
    (of google 6.50.0, of random 3.7.2 and of mongodbatlas 1.41.1)."""

    name: str
    source: str
    version: str
    library: str


PROVIDERS = (
    Published("google", "hashicorp/google", "6.50.0", "@cdktf/provider-google@16.12.1"),
    Published("random", "hashicorp/random", "3.7.2", "@cdktf/provider-random@12.0.1"),
    Published(
        "mongodbatlas", "mongodb/mongodbatlas", "2.9.0", "@cdktf/provider-mongodbatlas@8.6.2"
    ),
)


def make(folder: Path) -> None:
    """Make the folder whole, or leave what is there."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        program = Path(scratch) / "provider"
        for provider in PROVIDERS:
            place = _place(folder, provider)
            if _is_current(place / "schema.json"):
                continue
            if not program.exists():
                _build(program)
            print(f"Reading the schema of {provider.name} ...", flush=True)
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy2(program, place / f"terraform-provider-{provider.name}_v{provider.version}")
            _schema(provider, Path(scratch), place / "schema.json")
    if not (folder / "checkov/bin/checkov").exists():
        print("Installing checkov ...", flush=True)
        _run("uv", "venv", "--quiet", "--clear", str(folder / "checkov"))
        python = str(folder / "checkov/bin/python")
        _run("uv", "pip", "install", "--quiet", "--python", python, f"checkov=={CHECKOV}")


def _place(folder: Path, provider: Published) -> Path:
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    system = f"{platform.system().lower()}_{machine}"
    return folder / "providers/registry.terraform.io" / provider.source / provider.version / system


def _is_current(schema: Path) -> bool:
    """Return whether a schema exists and is newer than `published_schema.py`, which adds to it."""
    added = Path(published_schema.__file__)
    return schema.exists() and schema.stat().st_mtime > added.stat().st_mtime


def _build(program: Path) -> None:
    print("Building the schema provider ...", flush=True)
    _run("go", "build", "-p", "1", "-o", str(program), ".", cwd=Path(__file__).parent / "provider")


def _schema(provider: Published, scratch: Path, out: Path) -> None:
    _run("npm", "pack", "--silent", provider.library, cwd=scratch)
    (archive,) = scratch.glob(f"cdktf-provider-{provider.name}-*.tgz")
    with tarfile.open(archive) as tar:
        tar.extract("package/.jsii", scratch, filter="data")
    fresh = out.with_suffix(".new")
    written = published_schema.schema(scratch / "package/.jsii", provider.name)
    fresh.write_text(published_schema.as_text(written))
    fresh.replace(out)


def _run(*command: str, cwd: Path | None = None) -> None:
    tool = shutil.which(command[0]) or str(Path(sys.executable).with_name(command[0]))
    subprocess.run([tool, *command[1:]], cwd=cwd, check=True)


if __name__ == "__main__":
    make(Path(sys.argv[1]).absolute())
