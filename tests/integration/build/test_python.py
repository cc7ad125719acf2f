"""Python sources, built by the real uv."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lapwing.build.builder import BuildResult
from lapwing.build.python import uv
from lapwing.errors import BuildError

from .conftest import Yard

MakeYard = Callable[[dict[str, str]], Yard]
SIX = {"requirements.txt": "six==1.17.0\n", "app.py": "import six\nprint(six.__version__)\n"}
PACKAGE = """
[project]
name = "shop"
version = "1"
requires-python = ">=3.11"
dependencies = ["six==1.17.0"]
[project.scripts]
shop = "shop:main"
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
"""


def run(yard: Yard, result: BuildResult, *command: str) -> str:
    """Run a command as a replica would, and return what it prints."""
    release = result.release
    environ = {"PATH": os.pathsep.join([*release.path, "/usr/bin", "/bin"]), **release.environment}
    done = subprocess.run(
        command, cwd=yard.app(result), env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_requirements(make_yard: MakeYard) -> None:
    yard = make_yard(SIX)
    result = yard.build()
    assert not result.reused
    assert result.release.kind == "process"
    assert result.revision == yard.tree.git("rev-parse", "HEAD")[:12] == result.release.revision
    assert run(yard, result, "python", "app.py") == "1.17.0"
    assert result.log is not None
    assert "six==1.17.0" in result.log.read_text()
    assert any("six" in line for line in yard.heard)
    assert yard.left() == []


def test_flask_by_its_program(make_yard: MakeYard) -> None:
    page = "from flask import Flask\napp = Flask(__name__)\n@app.get('/x')\ndef x(): return 'x'\n"
    yard = make_yard({"requirements.txt": "flask\n", "app.py": page})
    assert "/x" in run(yard, yard.build(), "flask", "routes")


def test_nothing_changed(make_yard: MakeYard) -> None:
    yard = make_yard(SIX)
    first = yard.build()
    commit = yard.tree.commit()
    again = yard.build()
    assert again.reused
    assert again.log is None
    assert again.release == first.release
    assert again.revision == commit[:12] != first.revision


def test_an_edit_keeps_the_layer(make_yard: MakeYard) -> None:
    yard = make_yard(SIX)
    first = yard.build()
    yard.tree.write({"app.py": "print('edited')\n"})
    second = yard.build()
    assert second.release.name != first.release.name
    assert second.release.layers == first.release.layers
    assert second.revision.endswith("-dirty")
    assert second.log is not None
    assert "six" not in second.log.read_text()
    assert run(yard, second, "python", "app.py") == "edited"
    assert run(yard, first, "python", "app.py") == "1.17.0"
    yard.tree.git("checkout", "-q", ".")
    assert yard.build().release == first.release


def test_a_changed_lock_makes_a_layer(make_yard: MakeYard) -> None:
    yard = make_yard(SIX)
    first = yard.build()
    yard.tree.write({"requirements.txt": "six==1.16.0\n"})
    second = yard.build()
    assert second.release.layers != first.release.layers
    assert run(yard, second, "python", "app.py") == "1.16.0"
    assert run(yard, first, "python", "app.py") == "1.17.0"


def test_settings_of_the_build_decide_too(make_yard: MakeYard) -> None:
    yard = make_yard(SIX)
    names = {yard.build().release.name, yard.build(env={"A": "1"}).release.name}
    names |= {yard.build(service="worker").release.name, yard.build(stack="t").release.name}
    assert len(names) == 4
    assert len(yard.layers()) == 1


def test_compiled_and_read_only(make_yard: MakeYard) -> None:
    yard = make_yard(SIX | {"broken.py": "def\n"})
    app = yard.app(yard.build())
    assert [p.name.split(".")[0] for p in app.rglob("*.pyc")] == ["app"]
    assert not any(p.stat().st_mode & 0o222 for p in [app, *app.rglob("*")])


def test_release_runs_without_its_layer(make_yard: MakeYard) -> None:
    yard = make_yard(SIX)
    first = yard.build()
    yard.layers()[0].rename(yard.settings.home / "lost")
    assert yard.build().reused
    assert run(yard, first, "python", "app.py") == "1.17.0"


def test_lost_python_makes_layer_and_release_again(make_yard: MakeYard) -> None:
    yard = make_yard(SIX)
    release = yard.app(yard.build()).parent
    for folder in (yard.layers()[0], release / "venv"):
        python = folder / "bin" / "python"
        python.parent.chmod(0o755)
        python.unlink()
        python.symlink_to("/nonexistent/python")
    assert run(yard, yard.build(), "python", "app.py") == "1.17.0"


def test_a_damaged_record_is_built_again(make_yard: MakeYard) -> None:
    yard = make_yard(SIX)
    first = yard.build()
    (yard.app(first).parent / "release.json").write_text("{")
    second = yard.build()
    assert not second.reused
    assert second.release.name == first.release.name


def test_pyproject_without_a_lock(make_yard: MakeYard) -> None:
    project = '[project]\nname = "a"\nversion = "1"\ndependencies = ["six==1.17.0"]\n'
    yard = make_yard({"pyproject.toml": project, "app.py": SIX["app.py"]})
    assert run(yard, yard.build(), "python", "app.py") == "1.17.0"


@pytest.mark.parametrize("locked", [True, False], ids=["uv.lock", "pyproject.toml"])
def test_chosen_extras_and_groups_are_installed(make_yard: MakeYard, locked: bool) -> None:
    project = """
[project]
name = "shop"
version = "1"
requires-python = ">=3.11"
dependencies = []
[project.optional-dependencies]
six = ["six==1.17.0"]
other = ["nosuch-package-of-lapwing-tests==1"]
[dependency-groups]
worker = ["idna==3.10"]
"""
    if locked:
        project = project.replace('other = ["nosuch-package-of-lapwing-tests==1"]', "")
    show = ("python", "-c", "from importlib.util import find_spec as f; print(f('six'), f('idna'))")
    yard = make_yard({"pyproject.toml": project})
    if locked:
        subprocess.run([uv(), "lock", "-q"], cwd=yard.tree.folder, check=True)
        yard.tree.commit()
    assert run(yard, yard.build(), *show) == "None None"
    chosen = yard.build(extras=("six",), groups=("worker",))
    found = run(yard, chosen, *show)
    assert found.count("ModuleSpec") == 2
    assert len(yard.layers()) == 2


def test_command_of_the_build_writes_to_the_release(make_yard: MakeYard) -> None:
    collect = "import os, six\nopen('static.txt', 'w').write(six.__version__ + os.environ['A'])\n"
    yard = make_yard({**SIX, "collect.py": collect})
    plain = yard.build()
    result = yard.build(run="python collect.py && echo collected", env={"A": " one"})
    assert result.release.name != plain.release.name
    assert (yard.app(result) / "static.txt").read_text() == "1.17.0 one"
    assert "collected" in yard.heard
    assert not (yard.tree.folder / "static.txt").exists()
    with pytest.raises(BuildError, match=r"The command `build: \{run: \.\.\.\}` failed") as caught:
        yard.build(run="python nosuch.py")
    assert "nosuch.py" in str(caught.value.detail)
    assert yard.left() == []


def test_dynamic_dependencies_are_installed(make_yard: MakeYard) -> None:
    project = """
[project]
name = "shop"
version = "1"
dynamic = ["dependencies"]
[tool.setuptools]
py-modules = ["app"]
[tool.setuptools.dynamic]
dependencies = {file = ["needs.txt"]}
[build-system]
requires = ["setuptools>=68"]
build-backend = "setuptools.build_meta"
"""
    yard = make_yard(
        {"pyproject.toml": project, "needs.txt": "six==1.17.0\n", "app.py": SIX["app.py"]}
    )
    assert run(yard, yard.build(), "python", "app.py") == "1.17.0"
    yard.tree.write({"needs.txt": "six==1.16.0\n"})
    assert run(yard, yard.build(), "python", "app.py") == "1.16.0"


def test_requirements_included_by_a_continued_line(make_yard: MakeYard) -> None:
    requirements = {"requirements.txt": "-r \\\n  base.txt\n", "base.txt": "six==1.17.0\n"}
    yard = make_yard({**requirements, "app.py": SIX["app.py"]})
    assert run(yard, yard.build(), "python", "app.py") == "1.17.0"
    yard.tree.write({"base.txt": "six==1.16.0\n"})
    assert run(yard, yard.build(), "python", "app.py") == "1.16.0"
    (yard.tree.folder / "base.txt").write_text("six==1.17.0\r\n", encoding="utf-16")
    assert run(yard, yard.build(), "python", "app.py") == "1.17.0"


def test_a_package_with_a_uv_lock(make_yard: MakeYard) -> None:
    main = "import six\ndef main():\n    print('shop', six.__version__)\n"
    yard = make_yard({"pyproject.toml": PACKAGE, "src/shop/__init__.py": main})
    subprocess.run([uv(), "lock", "-q"], cwd=yard.tree.folder, check=True)
    yard.tree.commit()
    result = yard.build()
    assert run(yard, result, "python", "-c", "import shop; shop.main()") == "shop 1.17.0"
    shop = run(yard, result, "python", "-c", "import shop; print(shop.__file__)")
    assert Path(shop).is_relative_to(yard.app(result).parent / "venv")
    assert sorted(p.name for p in yard.app(result).parent.iterdir()) == [
        "app",
        "release.json",
        "venv",
    ]
    yard.tree.write({"src/shop/__init__.py": "def main():\n    print('new')\n"})
    edited = yard.build()
    assert edited.release.layers == result.release.layers
    assert run(yard, edited, "python", "-c", "import shop; shop.main()") == "new"
    assert yard.tree.git("status", "--porcelain") == "M src/shop/__init__.py"


def test_a_package_in_a_folder_of_the_source(make_yard: MakeYard) -> None:
    package = '[project]\nname = "own"\nversion = "1"\n[tool.setuptools]\npy-modules = ["own"]\n'
    yard = make_yard(
        {
            "requirements.txt": "./libs/own\n",
            "libs/own/pyproject.toml": package,
            "libs/own/own.py": "answer = 1\n",
        }
    )
    show = ("python", "-c", "import own; print(own.answer)")
    assert run(yard, yard.build(), *show) == "1"
    yard.tree.write({"libs/own/own.py": "answer = 2\n"})
    assert run(yard, yard.build(), *show) == "2"
    assert yard.tree.git("status", "--porcelain") == "M libs/own/own.py"


def test_members_of_a_uv_workspace_are_installed(make_yard: MakeYard) -> None:
    member = """
[project]
name = "{name}"
version = "1"
requires-python = ">=3.11"
dependencies = {dependencies}
[tool.uv.sources]
core = {{workspace = true}}
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
"""
    root = (
        '[project]\nname = "root"\nversion = "1"\nrequires-python = ">=3.11"\n'
        'dependencies = ["six==1.17.0"]\n[tool.uv.workspace]\nmembers = ["packages/*"]\n'
    )
    api = member.format(name="api", dependencies='["core", "idna==3.10"]')
    yard = make_yard(
        {
            "pyproject.toml": root,
            "packages/api/pyproject.toml": api + '[project.scripts]\napi = "api:main"\n',
            "packages/api/src/api/__init__.py": "import core, idna, six\n"
            "def main():\n    print(core.NAME, idna.__name__, six.__name__)\n",
            "packages/core/pyproject.toml": member.format(name="core", dependencies="[]"),
            "packages/core/src/core/__init__.py": "NAME = 'one'\n",
        }
    )
    subprocess.run([uv(), "lock", "--quiet"], cwd=yard.tree.folder, check=True)
    yard.tree.commit()
    first = yard.build()
    assert run(yard, first, "api") == "one idna six"
    yard.tree.write({"packages/core/src/core/__init__.py": "NAME = 'two'\n"})
    assert run(yard, yard.build(), "api") == "two idna six"
    assert run(yard, first, "api") == "one idna six"
    with pytest.raises(BuildError, match="takes core from a uv workspace") as caught:
        yard.build(folder=yard.tree.folder / "packages" / "api")
    assert "root of the workspace" in str(caught.value.hint)


def test_setup_py_without_a_list_of_packages(make_yard: MakeYard) -> None:
    setup = (
        "from setuptools import setup\n"
        "setup(name='shop', version='1', py_modules=['shop'], install_requires=['six==1.17.0'],\n"
        "      entry_points={'console_scripts': ['shop=shop:main']})\n"
    )
    shop = "import six\ndef main():\n    print(six.__version__)\n"
    yard = make_yard({"setup.py": setup, "shop.py": shop})
    assert run(yard, yard.build(), "shop") == "1.17.0"
    yard.tree.write({"pyproject.toml": "[tool.black]\nline-length = 90\n"})
    assert run(yard, yard.build(), "shop") == "1.17.0"


def test_a_python_that_is_not_there(make_yard: MakeYard) -> None:
    yard = make_yard(SIX)
    with pytest.raises(BuildError, match="Creating the virtual environment failed"):
        yard.build(python="3.99")
    assert yard.left() == []


def test_the_python_that_runs_lapwing(make_yard: MakeYard) -> None:
    yard = make_yard(SIX)
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    show = "import sys; print(f'{sys.version_info[0]}.{sys.version_info[1]}')"
    assert run(yard, yard.build(python=own), "python", "-c", show) == own


def test_a_failing_build_says_why_and_leaves_nothing(make_yard: MakeYard) -> None:
    yard = make_yard({"requirements.txt": "six==1.17.0\nsix==1.16.0\n", "app.py": ""})
    with pytest.raises(BuildError) as caught:
        yard.build()
    assert caught.value.message.startswith("api: The installation of requirements.txt failed")
    assert "six==1.16.0" in str(caught.value.detail)
    assert caught.value.log is not None
    assert "six==1.16.0" in caught.value.log.read_text()
    assert yard.left() == []
    assert yard.layers() == []


def test_a_wrong_hash(make_yard: MakeYard) -> None:
    yard = make_yard({"requirements.txt": f"six==1.17.0 --hash=sha256:{'0' * 64}\n"})
    with pytest.raises(BuildError) as caught:
        yard.build()
    assert "sha256:000" in str(caught.value.detail)


def test_hashes_for_all_or_none(make_yard: MakeYard) -> None:
    digest = "4721f391ed90541fddacab5acf947aa0d3dc7d27b2e1e8eda2be8970586c3274"
    wanted = f"six==1.17.0 --hash=sha256:{digest}"
    yard = make_yard({"requirements.txt": wanted + "\nidna==3.10\n"})
    with pytest.raises(BuildError) as caught:
        yard.build()
    assert "idna" in str(caught.value.detail)


def test_ten_thousand_files_are_read_quickly(make_yard: MakeYard) -> None:
    many = {f"data/{n % 100}/{n}.txt": str(n) for n in range(10_000)}
    yard = make_yard({"index.html": "", **many})
    yard.build(static=".")
    began = time.monotonic()
    assert yard.build(static=".").reused
    assert time.monotonic() - began < 10  # 0.4 s on two cores; a bound against the absurd only.
