"""`lapwing check` names what a deployment on this machine would lack."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lapwing.cli.main import cli
from lapwing.desired.secrets import SecretStore

STACK = """\
stack: shop
services:
  app: {build: ., command: run, route: /, needs: [db], secrets: [TOKEN, {name: KEY, generate: 32}]}
resources:
  db: {kind: mysql}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAPWING_HOME", str(tmp_path / "home"))
    git = shutil.which("git")
    assert git is not None
    (tmp_path / "git").symlink_to(git)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none")
    (tmp_path / "stack").mkdir()
    folder = tmp_path / "stack"
    (folder / "lapwing.yaml").write_text(STACK)
    (folder / "requirements.txt").write_text("")
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "A change"]):
        own = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
        subprocess.run([git, "-C", str(folder), *own, *arguments], check=True)
    return folder


def check(folder: Path) -> Result:
    return CliRunner().invoke(cli, ["-C", str(folder), "check"])


def test_unset_secrets_and_missing_servers_are_notes(folder: Path) -> None:
    result = check(folder)
    assert result.exit_code == 0
    assert "local: Secret TOKEN of app is not set. Set it with `lapwing secret set" in result.stderr
    assert "KEY" not in result.stderr
    assert "local: No mysql server for resource db was found" in result.stderr
    assert "is valid" in result.stderr
    assert not (folder.parent / "home").exists()


def test_missing_lock_file_is_a_note(folder: Path) -> None:
    (folder / "requirements.txt").rename(folder / "package.json")
    (folder / "package.json").write_text("{}")
    result = check(folder)
    assert result.exit_code == 0
    assert "local: app: There is a package.json" in result.stderr


def test_nothing_is_noted_when_all_is_set(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SecretStore(folder.parent / "home" / "secrets").set("shop", "local", "TOKEN", "value")
    monkeypatch.setenv("LAPWING_RESOURCE_DB_URL", "mysql://app:secret@127.0.0.1/app")
    result = check(folder)
    assert result.exit_code == 0
    assert "local:" not in result.stderr


def test_environment_on_a_cluster_has_no_notes_of_this_machine(folder: Path) -> None:
    text = STACK + "environments: {local: {target: kubernetes}}\n"
    (folder / "lapwing.yaml").write_text(text)
    assert "is not set" not in check(folder).stderr
