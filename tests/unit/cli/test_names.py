"""A name that does not exist is answered in one way, whichever verb it is given to."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from lapwing.cli.main import VERBS, run
from lapwing.desired.repository import DesiredRepository
from lapwing.desired.secrets import SecretStore
from lapwing.errors import did_you_mean
from lapwing.plan.model import Access, Deployment, Document, Edge, SecretVersion, Service
from lapwing.settings import Settings

API = Service(kind="web", release="api-1", revision="r")
STACK = """\
stack: shop
services:
  api: {build: ., command: run, route: /, secrets: [SESSION_KEY]}
  web: {build: ., command: run}
resources:
  db: {kind: redis}
environments:
  staging: {}
  kind:
    target: kubernetes
    services: {api: &image {build: null, image: "example/x:1"}, web: *image}
"""
WITH_ENVIRONMENT = {
    "check": [], "up": [], "deploy": [], "ship": [], "promote": [], "abort": [], "rollback": [],
    "status": [], "history": [], "logs": [], "open": [], "down": [], "verify": [], "cost": [],
    "review": [], "backup": ["list"], "restore": ["db", "--yes"], "secret": ["list"],
    "render": ["-o", "out"], "chart": ["-o", "out"],
    "infra": ["-o", "out"], "diagram": ["architecture"], "design": [], "server": ["setup"],
    "doctor": [], "maintenance": ["off"], "bootstrap": [], "agent": ["pull"],
}  # fmt: skip
STAGIN = ["-e", "stagin"]
OPTIONS_FIRST = {"run": ["api", "env"]}
WITHOUT_ENVIRONMENT = {"init", "ci", "release", "image", "demo", "completion"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "lapwing.yaml").write_text(STACK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAPWING_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "no-cluster"))
    return tmp_path


def test_every_verb_is_in_the_matrix() -> None:
    assert {*WITH_ENVIRONMENT, *OPTIONS_FIRST, *WITHOUT_ENVIRONMENT} == set(VERBS)


@pytest.mark.parametrize(
    "arguments",
    [
        *([verb, *more, *STAGIN] for verb, more in WITH_ENVIRONMENT.items()),
        *([verb, *STAGIN, *more] for verb, more in OPTIONS_FIRST.items()),
        ["deploy", "api", "--dry-run", *STAGIN], ["up", "--create", *STAGIN],
        ["logs", "api", "--build", *STAGIN], ["secret", "set", "SESSION_KEY", *STAGIN],
        ["secret", "remove", "SESSION_KEY", *STAGIN],
    ],
    ids=" ".join,
)  # fmt: skip
def test_unknown_environment(
    arguments: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err == (
        f"error: There is no environment `stagin` in {folder / 'lapwing.yaml'}.\n"
        "  Did you mean `staging`? Known environments: local, staging, kind.\n"
    )
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["deploy", "wbe"], ["deploy", "wbe", "-e", "staging"], ["ship", "wbe"],
        ["logs", "wbe"], ["logs", "wbe", "-f"], ["logs", "wbe", "--build"],
        ["render", "-e", "kind", "-o", "out", "--image", "wbe=x:1"],
        ["chart", "-e", "kind", "-o", "out", "--image", "wbe=x:1"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_unknown_service(
    arguments: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    found = capsys.readouterr()
    assert found.out == ""
    assert "There is no service `wbe` in " in found.err
    assert "Did you mean `web`? Known services: api, web" in found.err
    assert not (folder / "home/agent").exists()


def test_service_without_output_has_no_log_yet(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("api", "db"):
        assert run(["logs", name]) == 1
        assert f"There is no log of {name} yet." in capsys.readouterr().err


def test_secret_is_removed_after_a_confirmation_only(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("value"))
    assert run(["secret", "set", "SESSION_KEY"]) == 0
    assert run(["secret", "remove", "SESSION_KEY"]) == 2
    assert "was not confirmed; it is still set" in capsys.readouterr().err
    assert run(["secret", "remove", "SESSION_KEY", "--yes"]) == 0
    assert "SESSION_KEY of shop/local is removed." in capsys.readouterr().err


@pytest.mark.parametrize(("services", "status"), [({"api": API}, 1), ({}, 0)])
def test_secret_of_access_is_removed_only_without_a_deployment_that_uses_it(
    services: dict[str, Service], status: int, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(folder / "home")
    version = SecretStore(settings.secrets).set("shop", "local", "USERS", "ada:s3cret")
    access = Access(basic_auth=SecretVersion(secret="USERS", version=version))
    document = Document(
        stack="shop",
        environment="local",
        deployment=Deployment(actor="ada"),
        services=services,
        edge=Edge(access=access),
    )
    DesiredRepository(settings.desired).commit(document, expected=None)
    assert run(["secret", "remove", "USERS", "--yes"]) == status
    refused = "`access` of the current deployment uses it" in capsys.readouterr().err
    assert refused == bool(services)
    assert bool(SecretStore(settings.secrets).current("shop", "local")) == bool(services)


def test_unknown_secret(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("value"))
    assert run(["secret", "set", "SESION_KEY"]) == 0
    said = capsys.readouterr().err
    assert "No service has a secret SESION_KEY. Did you mean `SESSION_KEY`?" in said
    assert run(["secret", "remove", "SESSION_KEY", "--yes"]) == 2
    assert capsys.readouterr().err == (
        "error: There is no secret `SESSION_KEY` in shop/local.\n"
        "  Did you mean `SESION_KEY`? Known secrets: SESION_KEY.\n"
    )


def test_unknown_name_in_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["status", "-e", "stagin", "--output", "json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "unknown-name"
    assert error["where"] is None


@pytest.mark.parametrize(
    ("word", "meant"), [("prod", "production"), ("STAGING", "staging"), ("pr", None), ("x", None)]
)
def test_abbreviation_is_recognised(word: str, meant: str | None) -> None:
    hint = did_you_mean(word, ["local", "staging", "production"])
    assert hint == (f"Did you mean `{meant}`?" if meant else None)
