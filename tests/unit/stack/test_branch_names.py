"""The names of the environments of branches."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lapwing.errors import UsageError
from lapwing.plan.make import domains
from lapwing.stack.branch_names import environment_of, slug, split
from lapwing.stack.load import StackFile

STACK = """\
stack: shop
services:
  api: {build: ./api, command: python app.py, route: /}
environments:
  preview: {branches: {domain: preview.example.com}}
  vps: {host: deploy@203.0.113.7}
"""
BRANCHES = [
    *("feature/login", "feature-login", "feature_login", "Feature/Login", "feature/login-"),
    *("main", "MAIN", "-", "日本語", "ünïcode", "x" * 200, "x" * 200 + "y", "1234", "a..b"),
    "dependabot/npm_and_yarn/web/esbuild-0.25.9",
]


@pytest.mark.parametrize("template", ["preview", "p" * 20])
def test_names_are_different_dns_labels(template: str) -> None:
    names = [environment_of(template, branch) for branch in BRANCHES]
    for name in names:
        assert len(name) <= 40
        found, label = split(name)
        assert found == template
        assert label is not None
        assert re.fullmatch("[a-z0-9]([a-z0-9-]*[a-z0-9])?", label), name
        assert "--" not in label
    assert len(set(names)) == len(names)


def test_plain_name_is_kept() -> None:
    assert environment_of("preview", "fix-login-2") == "preview_fix-login-2"
    assert environment_of("preview", "feature/login") == "preview_feature-login-df7c7aeb"


def test_branch_cannot_take_the_name_of_another() -> None:
    derived = slug("feature/login", 32)
    assert slug(derived, 32) != derived
    assert slug("df7c7aeb", 32) != "df7c7aeb"


def file(tmp_path: Path) -> StackFile:
    (tmp_path / "api").mkdir()
    (tmp_path / "lapwing.yaml").write_text(STACK)
    return StackFile(tmp_path / "lapwing.yaml")


def test_each_branch_has_host_names_of_its_environment(tmp_path: Path) -> None:
    loaded = file(tmp_path).load("preview_fix", folders=False)
    assert loaded.environment == "preview_fix"
    assert domains(loaded) == ("fix.preview.example.com", "fix.preview.shop.localhost")


def test_environment_without_branches_has_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="The environment `vps` has no `branches`"):
        file(tmp_path).load("vps_fix", folders=False)
