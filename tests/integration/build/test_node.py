"""Node sources, built by the real npm. The packages have no dependencies of their own, so that
nothing is fetched, but in the test that installs Node itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lapwing.build import node_runtime
from lapwing.build.retention import collect
from lapwing.errors import BuildError
from tests.needs import require

from .conftest import Yard

MakeYard = Callable[[dict[str, str]], Yard]

BUILD_JS = """
const fs = require('fs');
fs.mkdirSync('dist/assets', {recursive: true});
fs.writeFileSync('dist/index.html', `<p>${fs.readFileSync('page.txt')} ${process.env.VITE_A}</p>`);
fs.writeFileSync('dist/assets/env.json', JSON.stringify(process.env));
console.log('made dist with', process.version);
"""


def files(
    scripts: dict[str, str], lock: dict[str, Any] | None = None, **package: Any
) -> dict[str, str]:
    whole = {"name": "web", "version": "1.0.0", "scripts": scripts, **package}
    root = {k: v for k, v in whole.items() if k != "scripts"}
    locked = {"name": "web", "version": "1.0.0", "lockfileVersion": 3, "requires": True}
    return {
        "package.json": json.dumps(whole),
        "package-lock.json": json.dumps({**locked, "packages": {"": root, **(lock or {})}}),
        ".gitignore": "node_modules/\ndist/\n",
        "page.txt": "hello",
        "build.js": BUILD_JS,
    }


SITE = files({"build": "node build.js"})


@pytest.fixture(autouse=True)
def _needs_node() -> None:
    require("node")


def test_a_site(make_yard: MakeYard) -> None:
    yard = make_yard(SITE)
    result = yard.build(static="dist", env={"VITE_A": "1"})
    assert result.release.kind == "static"
    assert result.release.layers == (yard.layers()[0].name,)
    assert (yard.app(result) / "index.html").read_text() == "<p>hello 1</p>"
    assert sorted(p.name for p in yard.app(result).parent.iterdir()) == ["app", "release.json"]
    assert any("made dist with v" in line for line in yard.heard)
    assert yard.build(static="dist", env={"VITE_A": "1"}).reused
    assert not (yard.tree.folder / "dist").exists()
    assert yard.left() == []


def test_an_edit_keeps_the_modules(make_yard: MakeYard) -> None:
    yard = make_yard(SITE)
    first = yard.build(static="dist")
    yard.tree.write({"page.txt": "other"})
    second = yard.build(static="dist")
    assert (yard.app(second) / "index.html").read_text().startswith("<p>other")
    assert (yard.app(first) / "index.html").read_text().startswith("<p>hello")
    assert len(yard.layers()) == 1
    assert second.log is not None
    assert "npm-cli.js ci" not in second.log.read_text()


def test_modules_of_the_newest_static_release_are_kept(make_yard: MakeYard) -> None:
    yard = make_yard(SITE)
    results = []
    for number in range(2):
        yard.tree.write(files({"build": "node build.js"}, description=str(number)))
        results.append(yard.build(static="dist").release)
    for folder in [*yard.layers(), *(yard.settings.releases / "s/api").glob("api-*")]:
        os.utime(folder, (1, 1))
    collect(yard.settings, {("s", "api"): {release.name for release in results}})
    assert [layer.name for layer in yard.layers()] == list(results[1].layers)


def test_the_environment_of_the_user_stays_out(make_yard: MakeYard) -> None:
    yard = make_yard(SITE)
    user = {**yard.settings.environ, "AWS_SECRET_ACCESS_KEY": "x", "DATABASE_URL": "x"}
    yard.settings = replace(yard.settings, environ=user)
    seen = json.loads((yard.app(yard.build(static="dist")) / "assets" / "env.json").read_text())
    assert not {"AWS_SECRET_ACCESS_KEY", "DATABASE_URL", "LAPWING_HOME"} & set(seen)
    assert seen["NODE_ENV"] == "production"
    assert seen["CI"] == "true"


def test_a_credential_is_masked_everywhere(make_yard: MakeYard) -> None:
    script = "node -e \"console.log('using', process.env.API_TOKEN); throw process.env.API_TOKEN\""
    yard = make_yard(files({"build": script}))
    with pytest.raises(BuildError) as caught:
        yard.build(static="dist", env={"API_TOKEN": "tiger-99"})
    assert caught.value.log is not None
    told = [caught.value.log.read_text(), str(caught.value.detail), "\n".join(yard.heard)]
    assert all("***" in text for text in told)
    assert not any("tiger-99" in text for text in told)
    for path in yard.settings.home.rglob("*"):
        assert not path.is_file() or b"tiger-99" not in path.read_bytes()


def test_scripts_of_the_project_do_not_run_for_the_layer(make_yard: MakeYard) -> None:
    yard = make_yard(files({"build": "node build.js", "prepare": "node not-there.js"}))
    assert not yard.build(static="dist").reused
    assert len(yard.layers()) == 1


def test_install_scripts_run_beside_the_source(make_yard: MakeYard) -> None:
    yard = make_yard(
        files(
            {
                "build": "node build.js",
                "postinstall": "rm page.txt && echo hello+patched > page.txt",
            }
        )
    )
    result = yard.build(static="dist")
    assert "+patched" in (yard.app(result) / "index.html").read_text()
    assert yard.layers() == []
    assert (yard.tree.folder / "page.txt").read_text() == "hello"


def test_workspaces(make_yard: MakeYard) -> None:
    shared = {"name": "shared", "version": "1.0.0", "main": "index.js"}
    lock = {
        "node_modules/shared": {"resolved": "packages/shared", "link": True},
        "packages/shared": shared,
    }
    yard = make_yard(
        files({"start": "node app.js"}, lock, workspaces=["packages/*"])
        | {
            "packages/shared/package.json": json.dumps(shared),
            "packages/shared/index.js": "module.exports = 'from shared'",
            "app.js": "console.log(require('shared'))",
        }
    )
    result = yard.build()
    assert run(yard, result, "node", "app.js") == "from shared"
    assert result.release.layers == ()


def test_a_program_with_its_modules(make_yard: MakeYard) -> None:
    lock = {"node_modules/dep": {"version": "1.0.0", "resolved": "file:dep.tgz"}}
    yard = make_yard(
        files({}, lock, dependencies={"dep": "file:dep.tgz"})
        | {"app.js": "console.log(require('dep'), process.env.NODE_ENV)"}
    )
    dep = yard.tree.folder.parent / "dep"
    dep.mkdir()
    (dep / "package.json").write_text(json.dumps({"name": "dep", "version": "1.0.0"}))
    (dep / "index.js").write_text("module.exports = 'dep'")
    subprocess.run(
        ["npm", "pack", "--silent", "--pack-destination", str(yard.tree.folder)],
        cwd=dep,
        check=True,
    )
    (yard.tree.folder / "dep-1.0.0.tgz").rename(yard.tree.folder / "dep.tgz")
    result = yard.build()
    assert result.release.kind == "process"
    assert run(yard, result, "node", "app.js") == "dep production"


def test_a_program_with_a_layer(make_yard: MakeYard) -> None:
    yard = make_yard(files({}) | {"app.js": "console.log('runs')"})
    result = yard.build()
    assert [p.name for p in yard.layers()] == list(result.release.layers)
    modules = yard.app(result) / "node_modules"
    assert modules.resolve() == modules
    assert run(yard, result, "node", "app.js") == "runs"


@pytest.mark.parametrize(
    ("static", "message", "hint"),
    [("build", "no folder 'build'", "dist/"), ("dist/assets", "no index.html", "env.json")],
)
def test_the_wrong_folder(make_yard: MakeYard, static: str, message: str, hint: str) -> None:
    yard = make_yard(SITE)
    with pytest.raises(BuildError, match=message) as caught:
        yard.build(static=static)
    assert hint in str(caught.value.hint)
    assert caught.value.log is not None
    assert yard.left() == []


def test_a_folder_outside(make_yard: MakeYard) -> None:
    yard = make_yard(SITE)
    with pytest.raises(BuildError, match="outside of the service's folder"):
        yard.build(static="../../../..")


def test_a_made_link_that_leads_out(make_yard: MakeYard) -> None:
    yard = make_yard(files({"build": "node build.js && ln -s /etc/passwd dist/passwd"}))
    with pytest.raises(BuildError, match="dist/passwd is a symbolic link out of"):
        yard.build(static="dist")


def test_a_script_that_is_not_there(make_yard: MakeYard) -> None:
    with pytest.raises(BuildError, match="no script 'compile'") as caught:
        make_yard(SITE).build(static="dist", script="compile")
    assert "build" in str(caught.value.hint)


def test_a_failing_script(make_yard: MakeYard) -> None:
    yard = make_yard(
        files({"build": "echo fine; echo 'src/a.ts(1,2): error TS1: bad' >&2; exit 2"})
    )
    with pytest.raises(BuildError, match=r"The script 'build' .* failed") as caught:
        yard.build(static="dist")
    assert "error TS1: bad" in str(caught.value.detail)
    assert yard.left() == []


def test_a_lock_that_does_not_fit(make_yard: MakeYard) -> None:
    yard = make_yard(SITE | {"package-lock.json": "not json"})
    with pytest.raises(BuildError, match=r"package-lock\.json is not valid"):
        yard.build(static="dist")


def test_command_of_the_build_makes_a_site(make_yard: MakeYard) -> None:
    yard = make_yard(files({}))
    result = yard.build(static="dist", run="node build.js")
    assert (yard.app(result) / "index.html").read_text().startswith("<p>hello")


def test_command_of_the_build_makes_plain_files(make_yard: MakeYard) -> None:
    yard = make_yard({"page.md": "hi"})
    result = yard.build(static="out", run="mkdir out && cp page.md out/index.html")
    assert (yard.app(result) / "index.html").read_text() == "hi"


def test_plain_files(make_yard: MakeYard) -> None:
    yard = make_yard({"public/index.html": "hi", "notes.md": ""})
    result = yard.build(static="public")
    assert [p.name for p in yard.app(result).iterdir()] == ["index.html"]
    assert yard.build(static="public").reused


def test_a_machine_without_node(make_yard: MakeYard, tmp_path: Path) -> None:
    yard = make_yard(SITE)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("git", "sh", "env"):
        (programs / name).symlink_to(str(shutil.which(name)))
    without = {**yard.settings.environ, "PATH": str(programs)}
    yard.settings = replace(yard.settings, environ=without)
    result = yard.build(static="dist")
    assert f"made dist with v{node_runtime.OWN}" in yard.heard
    assert (yard.app(result) / "index.html").exists()
    assert yard.build(static="dist").reused


def test_a_node_that_is_too_old_is_not_used(make_yard: MakeYard, tmp_path: Path) -> None:
    yard = make_yard(SITE)
    old = tmp_path / "bin" / "node"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\necho v12.0.0 $0\n")
    old.chmod(0o755)
    settings = replace(yard.settings, environ={**yard.settings.environ, "PATH": str(old.parent)})
    assert node_runtime.choose(settings, {}) is None


def run(yard: Yard, result: Any, *command: str) -> str:
    release = result.release
    environ = {"PATH": os.pathsep.join([*release.path, "/usr/bin", "/bin"]), **release.environment}
    done = subprocess.run(
        command, cwd=yard.app(result), env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
