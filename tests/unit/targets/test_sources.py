"""Files with settings are not part of a source, so that they alone make no new release."""

from __future__ import annotations

from pathlib import Path

import pytest

from lapwing.stack.load import StackFile, load
from lapwing.stack.secret_names import secret_names
from lapwing.targets.sources import settings_files

STACK = """\
stack: shop
services:
  api:
    build: {path: ., run: make site, test: sh test.sh --env-file=conf/test.env}
    command: run data.env
    route: /
    env_file: a.env
environments:
  local: {}
  staging:
    services: {api: {env_file: staging.env}}
  production:
    services: {api: {env_file: [production.env, conf/test.env, data.env]}}
"""


@pytest.mark.parametrize("environment", ["local", "staging", "production"])
def test_files_of_all_environments_are_left_out_of_each(environment: str, tmp_path: Path) -> None:
    """Not those that a command names, and `a.env` is not named by a command with `data.env`."""
    (tmp_path / "conf").mkdir()
    for name in ("a", "staging", "production", "conf/test", "data"):
        (tmp_path / f"{name}.env").write_text("")
    (tmp_path / "lapwing.yaml").write_text(STACK)
    loaded = load(tmp_path / "lapwing.yaml", environment)
    assert settings_files(loaded, "api") == (
        "a.env",
        "lapwing.yaml",
        "production.env",
        "staging.env",
    )


@pytest.mark.parametrize("invalid", ["5", "[1, {a: b}]", "{a: b}"])
def test_invalid_settings_of_other_environments_are_ignored(invalid: str, tmp_path: Path) -> None:
    other = f"  bad:\n    services: {{api: {{env_file: {invalid}, secrets: {invalid}}}}}\n"
    for name in ("a", "staging", "production"):
        (tmp_path / f"{name}.env").write_text("")
    (tmp_path / "lapwing.yaml").write_text(STACK + other)
    file = tmp_path / "lapwing.yaml"
    assert "a.env" in settings_files(load(file, "local"), "api")
    assert all(isinstance(name, str) for name in secret_names(StackFile(file).source))
