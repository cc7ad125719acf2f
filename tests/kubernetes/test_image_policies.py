"""Admission policies before the published schemas of Kyverno and policy-controller."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from lapwing.cli.main import run
from lapwing.registry.attestations import PROVENANCE
from tests.needs import require

KEY = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE" + "A" * 60
STACK = """\
stack: shop
registry: registry.example/team
services:
  api: {build: ./api, command: python app.py, route: /api}
  page: {image: "registry.example/team/page:1", port: 8080, route: /}
environments:
  production: {target: kubernetes}
"""
SIGNING = f"""\
signing:
  key: |
    -----BEGIN PUBLIC KEY-----
    {KEY}
    -----END PUBLIC KEY-----
"""
IDENTITY = "https://github.com/team/shop/.github/workflows/lapwing.yaml@refs/heads/main"
ISSUER = "https://token.actions.githubusercontent.com"
KEYLESS = f"signing: {{keyless: {{identity: '{IDENTITY}', issuer: '{ISSUER}'}}}}\n"


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "api").mkdir()
    (tmp_path / "lapwing.yaml").write_text(STACK + SIGNING)
    monkeypatch.setenv("LAPWING_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def render(kind: str, capsys: pytest.CaptureFixture[str]) -> tuple[str, dict[str, Any]]:
    assert run(["image", "policy", kind, "-e", "production"]) == 0
    text = capsys.readouterr().out
    return text, yaml.safe_load(text)


def test_kyverno_policy_covers_built_images_in_the_namespace_of_the_environment(
    stack: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [rule] = render("kyverno", capsys)[1]["spec"]["rules"]
    [match] = rule["match"]["any"]
    assert match["resources"]["namespaces"] == ["shop-production"]
    [verified] = rule["verifyImages"]
    assert verified["imageReferences"] == [
        "registry.example/team/api:*",
        "registry.example/team/api@*",
    ]
    assert verified["failureAction"] == "Enforce"
    [entry] = verified["attestors"][0]["entries"]
    assert KEY in entry["keys"]["publicKeys"]
    assert entry["keys"]["rekor"]["ignoreTlog"] is True


def test_sigstore_policy_covers_built_images(
    stack: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = render("sigstore", capsys)[1]["spec"]
    assert spec["mode"] == "enforce"
    assert [i["glob"] for i in spec["images"]] == [
        "registry.example/team/api:*",
        "registry.example/team/api@*",
    ]
    assert KEY in spec["authorities"][0]["key"]["data"]


def test_keyless_policies_require_provenance_of_the_identity(
    stack: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (stack / "lapwing.yaml").write_text(STACK + KEYLESS)
    [rule] = render("kyverno", capsys)[1]["spec"]["rules"]
    [verified] = rule["verifyImages"]
    assert verified["type"] == "SigstoreBundle"
    [required] = verified["attestations"]
    assert required["type"] == PROVENANCE
    [entry] = required["attestors"][0]["entries"]
    assert (entry["keyless"]["subject"], entry["keyless"]["issuer"]) == (IDENTITY, ISSUER)
    [authority] = render("sigstore", capsys)[1]["spec"]["authorities"]
    assert authority["signatureFormat"] == "bundle"
    assert authority["keyless"]["identities"] == [{"issuer": ISSUER, "subject": IDENTITY}]
    assert [each["predicateType"] for each in authority["attestations"]] == [PROVENANCE]


def test_policy_of_a_private_instance_is_refused(
    stack: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = "trusted_root: root.json, signing_config: config.json"
    private = KEYLESS.replace(f"issuer: '{ISSUER}'", f"issuer: '{ISSUER}', {files}")
    (stack / "lapwing.yaml").write_text(STACK + private)
    assert run(["image", "policy", "kyverno", "-e", "production"]) == 2
    assert "private Sigstore instance are not supported" in capsys.readouterr().err


@pytest.mark.parametrize("signing", [SIGNING, KEYLESS])
@pytest.mark.parametrize("kind", ["kyverno", "sigstore"])
def test_policy_matches_published_schema(
    kind: str, signing: str, stack: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (stack / "lapwing.yaml").write_text(STACK + signing)
    program, schemas = require("kubeconform"), require("kubernetes-schemas")
    require("policy-schemas")
    location = f"{schemas}/{{{{.Group}}}}/{{{{.ResourceKind}}}}_{{{{.ResourceAPIVersion}}}}.json"
    done = subprocess.run(
        [program, "-strict", "-summary", "-schema-location", location, "-"],
        input=render(kind, capsys)[0],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Valid: 1" in done.stdout


def test_policy_needs_a_key(stack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (stack / "lapwing.yaml").write_text(STACK)
    assert run(["image", "policy", "kyverno", "-e", "production"]) == 2
    assert "The stack file has no public key and no identity." in capsys.readouterr().err


def test_policy_needs_a_cluster(stack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = next(line for line in STACK.splitlines() if "page:" in line)
    (stack / "lapwing.yaml").write_text(STACK.replace(page + "\n", "") + SIGNING)
    assert run(["image", "policy", "kyverno"]) == 2
    assert "Environment 'local' is not on a cluster." in capsys.readouterr().err
