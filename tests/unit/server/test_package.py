"""The wheel that a server gets is this installation."""

from __future__ import annotations

import subprocess
import venv
import zipfile
from pathlib import Path

from lapwing import __version__
from lapwing.build.python import uv
from lapwing.server import package


def test_wheel_can_be_installed(tmp_path: Path) -> None:
    made = package.build()
    wheel = tmp_path / made.name
    wheel.write_bytes(made.data)
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    install = ["pip", "install", "--python", str(python), "--no-deps", "--no-index", "-q"]
    subprocess.run([uv(), *install, str(wheel)], check=True)
    code = "import lapwing; from importlib.metadata import entry_points as e;"
    code += "print(lapwing.__version__, [x.value for x in e(name='lapwing')])"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == __version__
    assert "lapwing.cli.main:main" in done.stdout


def test_same_installation_gives_the_same_wheel() -> None:
    first, second = package.build(), package.build()
    assert first == second
    assert first.folder.startswith(f"{__version__}-")


def test_requirements_have_hashes_and_name_no_host() -> None:
    text = package.REQUIREMENTS.read_text()
    assert "--hash=sha256:" in text
    assert "://" not in text


def test_wheel_has_no_compiled_file(tmp_path: Path) -> None:
    wheel = tmp_path / "made.whl"
    wheel.write_bytes(package.build().data)
    with zipfile.ZipFile(wheel) as opened:
        assert not [name for name in opened.namelist() if name.endswith(".pyc")]
