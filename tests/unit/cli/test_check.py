"""`lapwing check` names what a deployment on this machine would lack."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lapwing.cli.main import cli
from lapwing.desired.repository import DesiredRepository
from lapwing.desired.secrets import SecretStore
from lapwing.plan.model import Deployment, Document, Service

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


def check(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["-C", str(folder), "check", *arguments])


def test_unset_secrets_and_missing_servers_are_notes(folder: Path) -> None:
    result = check(folder)
    assert result.exit_code == 0
    assert "local: Secret TOKEN of app is not set. Set it with `lapwing secret set" in result.stderr
    assert "KEY" not in result.stderr
    assert "local: No mysql server for resource db was found" in result.stderr
    assert "is valid, but `lapwing deploy -e local` would be refused." in result.stderr
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


DIRECT = "target: kubernetes, delivery: direct"


def test_cluster_has_notes_of_secrets_only(folder: Path) -> None:
    (folder / "lapwing.yaml").write_text(f"{STACK}environments: {{prod: {{{DIRECT}}}}}\n")
    found = check(folder, "-e", "prod").stderr
    assert "prod: Secret TOKEN is not set on this machine. Set it with `lapwing secret set" in found
    assert "-e prod`, unless the cluster has a value." in found
    assert "KEY" not in found
    assert "mysql server" not in found
    SecretStore(folder.parent / "home" / "secrets").set("shop", "prod", "TOKEN", "value")
    assert "is not set" not in check(folder, "-e", "prod").stderr


def test_secret_of_an_earlier_deployment_is_in_the_cluster(folder: Path) -> None:
    (folder / "lapwing.yaml").write_text(f"{STACK}environments: {{prod: {{{DIRECT}}}}}\n")
    desired = DesiredRepository(folder.parent / "home" / "desired.git")
    service = Service(kind="web", release="app-1", revision="r", secrets={"TOKEN": "cluster"})
    document = Document(
        stack="shop",
        environment="prod",
        deployment=Deployment(actor="a"),
        services={"app": service},
    )
    desired.commit(document, expected=None)
    assert "TOKEN" not in check(folder, "-e", "prod").stderr
