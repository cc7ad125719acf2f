"""No build, run or replica changes a file of another release, or of a layer."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lapwing.build import layers
from lapwing.build.release import Release
from tests.needs import require

from .conftest import Yard
from .test_python import PACKAGE, run

MakeYard = Callable[[dict[str, str]], Yard]
MS = {
    "version": "2.1.3",
    "integrity": "sha512-6FlzubTLZG3J2a/NVCAleEhjzq5oxgHyaCU9yYXvcLsvoVaHJq/s5xXI6/XXP6tz7R9xAOt"
    "HnSO/tXtF3WRTlA==",
}
ROOT = {"name": "web", "version": "1.0.0", "dependencies": {"ms": "2.1.3"}}
GENERATES = """
const fs = require('fs'), schema = fs.readFileSync('schema.txt', 'utf8');
fs.mkdirSync('node_modules/.prisma', {recursive: true});
fs.writeFileSync('node_modules/.prisma/index.js', 'module.exports=' + JSON.stringify(schema));
fs.appendFileSync('node_modules/ms/index.js', '\\n// ' + schema);
"""
NODE = {
    "package.json": json.dumps(ROOT | {"scripts": {"build": "node generate.js"}}),
    "package-lock.json": json.dumps(
        {"lockfileVersion": 3, "packages": {"": ROOT, "node_modules/ms": MS}}
    ),
    ".gitignore": "node_modules/\n",
    "generate.js": GENERATES,
    "schema.txt": "one",
    "app.js": "console.log(require('.prisma'), require('ms')('1s'))",
}
WRITES_TO_ITSELF = """
import os, sys, pathlib
for top in sys.argv[1:]:
    for folder, _, files in os.walk(top):
        for path in (pathlib.Path(folder, name) for name in [*files, "new"]):
            if not path.is_symlink():
                try:
                    path.write_text("changed")
                except PermissionError:
                    pass
"""


def digests(yard: Yard, folder: Path) -> dict[str, str]:
    """The kind, mode and content of every path in a folder of the home."""
    found = {}
    for path in folder.rglob("*"):
        content = (
            str(path.readlink()).encode()
            if path.is_symlink()
            else path.read_bytes()
            if path.is_file()
            else b""
        )
        mode = path.lstat().st_mode
        found[str(path.relative_to(yard.settings.home))] = (
            f"{mode:o} {hashlib.sha256(content).hexdigest()}"
        )
    return found


def folder_of(yard: Yard, release: Release) -> Path:
    return yard.settings.releases / release.stack / release.service / release.name


def test_build_that_writes_to_node_modules_changes_no_other_release(make_yard: MakeYard) -> None:
    require("node")
    yard = make_yard(NODE)
    first = yard.build()
    before = digests(yard, folder_of(yard, first.release)), digests(yard, yard.settings.layers)
    yard.tree.write({"schema.txt": "two"})
    second = yard.build()
    assert first.release.layers == second.release.layers
    run(yard, second, "python3", "-c", WRITES_TO_ITSELF, ".")
    after = digests(yard, folder_of(yard, first.release)), digests(yard, yard.settings.layers)
    assert after == before
    assert run(yard, first, "node", "app.js") == "one 1000"
    modules = yard.app(first) / "node_modules"
    assert modules.is_dir()
    assert not modules.is_symlink()


def test_replica_that_writes_to_its_environment_changes_no_other_release(
    make_yard: MakeYard,
) -> None:
    app = "import six\nprint('ONE', six.__version__)\n"
    yard = make_yard({"requirements.txt": "six==1.17.0\n", "app.py": app})
    first = yard.build()
    before = digests(yard, folder_of(yard, first.release)), digests(yard, yard.settings.layers)
    yard.tree.write({"app.py": app.replace("ONE", "TWO")})
    second = yard.build()
    assert first.release.layers == second.release.layers
    venv = str(folder_of(yard, second.release) / "venv" / "lib")
    run(yard, second, "python3", "-c", WRITES_TO_ITSELF, ".", venv)
    after = digests(yard, folder_of(yard, first.release)), digests(yard, yard.settings.layers)
    assert after == before
    assert run(yard, first, "python", "app.py") == "ONE 1.17.0"


def test_console_scripts_of_the_project_are_on_the_path(make_yard: MakeYard) -> None:
    main = "import six\ndef main():\n    print('shop', six.__version__)\n"
    yard = make_yard({"pyproject.toml": PACKAGE, "src/shop/__init__.py": main})
    result = yard.build()
    assert run(yard, result, "shop") == "shop 1.17.0"
    assert str(yard.settings.home / "layers") not in run(
        yard, result, "python", "-c", "import six, sys; print(six.__file__, sys.prefix)"
    )


@pytest.mark.parametrize("user", [0, 1000])
@pytest.mark.parametrize("writable", [False, True])
def test_clone_is_linked_only_where_writes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: int, writable: bool
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    layer, copy = tmp_path / "layer", tmp_path / "copy"
    (layer / "inner").mkdir(parents=True)
    (layer / "inner" / "file").write_text("content")
    (layer / "link").symlink_to("inner/file")
    layers.protect(layer)
    layers.clone(layer, copy, writable=writable)
    original, copied = layer / "inner" / "file", copy / "inner" / "file"
    assert copied.read_text() == "content"
    assert copied.stat().st_mtime_ns == original.stat().st_mtime_ns
    assert copied.samefile(original) == (user != 0 and not writable)
    assert copied.samefile(original) or copied.stat().st_mode & 0o200
    assert (copy / "inner").stat().st_mode & 0o200
    assert (copy / "link").readlink() == Path("inner/file")
