"""Which package manager installs a Node source, with which settings, and from what."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lapwing.build import managers
from lapwing.build.managers import Manager
from lapwing.errors import BuildError

NPM = replace(managers.NPM, lock="package-lock.json")


def choose(folder: Path, files: dict[str, str], **package: Any) -> Manager:
    for name, text in files.items():
        (folder / name).write_text(text)
    return managers.choose(package, folder, files)


@pytest.mark.parametrize(
    ("lock", "text", "name", "argument"),
    [
        ("package-lock.json", "{}", "npm", "ci"),
        ("pnpm-lock.yaml", "lockfileVersion: '9.0'\n", "pnpm", "--frozen-lockfile"),
        ("yarn.lock", "# THIS\n# yarn lockfile v1\n", "yarn", "--frozen-lockfile"),
        ("yarn.lock", "__metadata:\n  version: 8\n", "yarn", "--immutable"),
        ("bun.lock", "{}", "bun", "--frozen-lockfile"),
    ],
)
def test_lock_file_chooses_the_manager(
    tmp_path: Path, lock: str, text: str, name: str, argument: str
) -> None:
    manager = choose(tmp_path, {lock: text})
    assert (manager.name, manager.lock, manager.version) == (name, lock, None)
    assert argument in manager.arguments


def test_package_manager_field_names_the_version(tmp_path: Path) -> None:
    files = {"pnpm-lock.yaml": "", "package-lock.json": "{}"}
    manager = choose(tmp_path, files, packageManager="pnpm@9.15.9+sha512.abc")
    assert (manager.name, manager.version) == ("pnpm", "9.15.9")
    with pytest.raises(BuildError, match=r"package-lock\.json, pnpm-lock\.yaml") as caught:
        choose(tmp_path, files)
    assert "packageManager" in str(caught.value.hint)
    with pytest.raises(BuildError, match="several lock files"):
        choose(tmp_path, files, packageManager="yarn@4.9.1")
    assert choose(tmp_path, {"bun.lock": "", "bun.lockb": ""}).lock == "bun.lock"


def test_missing_program_is_named_with_the_way_to_get_it(tmp_path: Path) -> None:
    manager = choose(tmp_path, {"pnpm-lock.yaml": ""})
    with pytest.raises(BuildError, match=r"pnpm-lock\.yaml needs pnpm") as caught:
        manager.find(str(tmp_path))
    assert "packageManager=pnpm@VERSION" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("package", "packages", "answer"),
    [
        ({}, {"": {}, "node_modules/a": {"resolved": "https://host/a.tgz"}}, True),
        ({"scripts": {"build": "x", "prepare": "husky"}}, {}, True),
        ({"scripts": {"postinstall": "patch-package"}}, {}, False),
        ({"workspaces": ["packages/*"]}, {}, False),
        ({}, {"node_modules/a": {"resolved": "libs/a", "link": True}}, False),
        ({}, {"node_modules/a": {"resolved": "file:libs/a.tgz"}}, False),
        ({"scripts": None}, {}, True),
    ],
)
def test_npm_modules_are_shared_if_the_lock_decides_them(
    tmp_path: Path, package: dict[str, Any], packages: dict[str, Any], answer: bool
) -> None:
    (tmp_path / NPM.lock).write_text(json.dumps({"packages": packages}))
    assert managers.separable(NPM, package, tmp_path, ()) is answer


@pytest.mark.parametrize(
    ("lock", "files", "answer"),
    [
        ("ms@2.1.3:\n  resolved \"https://host/ms.tgz\"\n", {}, True),
        ('"web@workspace:.":\n  resolution: "web@workspace:."\n', {}, True),
        ('"t@patch:t@npm%3A^5.0.0#optional!builtin<compat/typescript>":\n', {}, True),
        ('"t@patch:t@npm%3A5.0.0#./patches/t.patch":\n', {}, False),
        ('"a@workspace:packages/a":\n', {}, False),
        ('"dep@file:./dep":\n', {}, False),
        ("importers:\n  .: {}\n", {"pnpm-workspace.yaml": "packages:\n  - a\n"}, False),
        ("importers:\n  .: {}\n", {"pnpm-workspace.yaml": "allowBuilds: {}\n"}, True),
        ("", {".yarn/releases": ""}, False),
        ("", {".pnpmfile.cjs": ""}, False),
    ],
)  # fmt: skip
def test_modules_of_other_managers_are_shared_if_the_lock_decides_them(
    tmp_path: Path, lock: str, files: dict[str, str], answer: bool
) -> None:
    for name, text in {"yarn.lock": lock, **files}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    manager = replace(managers.YARN_CLASSIC, lock="yarn.lock")
    assert managers.separable(manager, {}, tmp_path, files) is answer


def test_variables_of_npmrc_are_passed_or_named(tmp_path: Path) -> None:
    (tmp_path / ".npmrc").write_text(
        "registry=https://npm.company.example/\n"
        "# ${COMMENT}\n"
        "//npm.company.example/:_authToken=${COMPANY_TOKEN}\n"
        "other=${OPTIONAL?}\n"
    )
    environ = {"COMPANY_TOKEN": "t", "OTHER": "o", "HOME": str(tmp_path / "user")}
    found = managers.required_variables(tmp_path, NPM, environ)
    assert found == {"COMPANY_TOKEN": "t"}
    with pytest.raises(BuildError, match=r"\.npmrc refers to \$\{COMPANY_TOKEN\}"):
        managers.required_variables(tmp_path, NPM, {})


def test_variables_of_the_users_npmrc_are_passed_if_set(tmp_path: Path) -> None:
    (tmp_path / "user").mkdir()
    (tmp_path / "user" / ".npmrc").write_text("//a/:_authToken=${NODE_AUTH_TOKEN}\nb=${NO}\n")
    environ = {"NODE_AUTH_TOKEN": "t", "HOME": str(tmp_path / "user")}
    assert managers.required_variables(tmp_path, NPM, environ) == {"NODE_AUTH_TOKEN": "t"}
    elsewhere = {"NODE_AUTH_TOKEN": "t", "NPM_CONFIG_USERCONFIG": str(tmp_path / "user" / ".npmrc")}
    assert managers.required_variables(tmp_path, NPM, elsewhere) == {"NODE_AUTH_TOKEN": "t"}
