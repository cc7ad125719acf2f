"""`down --gone` on this machine, with environments that have only data."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lapwing.agent import restores
from lapwing.cli.main import cli
from lapwing.system import home, locks
from tests.installation import GIT

STACK = """\
stack: shop
services: {web: {build: ., static: ., route: /}}
environments: {preview: {branches: {max: 5}}}
"""


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the data of each environment; the remote repository has only `main`."""
    for name, value in {**GIT, "LAPWING_HOME": str(tmp_path / "home")}.items():
        monkeypatch.setenv(name, value)
    home.prepare(tmp_path / "home")
    monkeypatch.chdir(tmp_path)
    git("init", "-q", "--bare", "-b", "main", "remote.git")
    git("clone", "-q", "remote.git", "stack")
    monkeypatch.chdir(tmp_path / "stack")
    Path("lapwing.yaml").write_text(STACK)
    git("add", "-A")
    git("commit", "-qm", "first")
    git("push", "-q", "origin", "HEAD:main")
    return tmp_path / "home" / "data" / "shop"


def git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], check=True, capture_output=True)


def remove_gone(status: int) -> list[dict[str, Any]]:
    words = ["down", "--gone", "-e", "preview", "--output", "json"]
    done = CliRunner().invoke(cli, words, standalone_mode=False, catch_exceptions=False)
    assert done.return_value == status
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_environment_that_cannot_be_removed_does_not_end_the_removal(data: Path) -> None:
    for name in ("a", "b"):
        (data / f"preview_{name}").mkdir(parents=True)
    busy = data / "preview_a"
    record = {"name": "db", "backup": "1", "commit": None, "head": None}
    (busy / restores._RESTORE).write_text(json.dumps(record))
    with locks.hold(busy / restores._RESTORE_LOCK):
        found = {d["environment"]: d for d in remove_gone(1)}
    assert found["preview_b"]["action"] == "removed"
    assert found["preview_a"]["action"] == "failed"
    assert "A restore of db is in progress" in found["preview_a"]["reason"]
    assert [p.name for p in data.iterdir()] == ["preview_a"]


def test_environment_that_is_made_while_branches_are_read_stays(data: Path, tmp_path: Path) -> None:
    """Its branch was pushed after the remote repository had listed its branches."""
    program = tmp_path / "upload-pack"
    program.write_text(f'#!/bin/sh\ngit-upload-pack "$@"\nmkdir -p {data}/preview_new\n')
    program.chmod(0o755)
    (data / "preview_old").mkdir(parents=True)
    git("config", "remote.origin.uploadpack", str(program))
    assert [d["environment"] for d in remove_gone(0)] == ["preview_old"]
    assert [p.name for p in data.iterdir()] == ["preview_new"]
