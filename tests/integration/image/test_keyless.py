"""Signatures by the identity of a CI job, with a private Sigstore instance of the real services."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lapwing.registry.signature import BUNDLE
from tests.installation import free_port
from tests.needs import require
from tests.registries import MANIFEST, Server
from tests.signing import new_key
from tests.sigstore import Forge, Sigstore, run_sigstore

from .conftest import Stack
from .test_attestations import referrers, registry, write
from .test_signatures import verify

pytestmark = pytest.mark.xdist_group("sigstore")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with registry(True, tmp_path / "registry") as running:
        yield running


@pytest.fixture(scope="module")
def sigstore(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sigstore]:
    with run_sigstore(Path(require("sigstore")), tmp_path_factory.mktemp("sigstore")) as instance:
        yield instance


@pytest.mark.parametrize("api", [True, False])
@pytest.mark.parametrize("ci", ["github", "gitlab"])
def test_job_signs_image_provenance_and_sbom(
    stack: Stack, sigstore: Sigstore, tmp_path: Path, api: bool, ci: str
) -> None:
    jobs = {"github": sigstore.forge.github_job, "gitlab": sigstore.forge.gitlab_job}
    with registry(api, tmp_path / "registry") as server:
        write(stack, server, sigstore.signing())
        stack.installation.environ |= jobs[ci]()
        built = stack.build("web", "--push")["web"]
        checks = verify(stack, "web")
        assert all(each["ok"] for each in checks.values())
        commit = stack.installation.git("rev-parse", "HEAD").strip()
        assert commit in checks["provenance"]["seen"]
        assert "(Sigstore bundle)" in checks["signature"]["seen"]

        entries = sigstore.entries()
        again = stack.build("web", "--push")["web"]
        assert again["referrers"] == built["referrers"], "valid signatures are used again"
        assert sigstore.entries() == entries


def test_verify_rejects_other_identity_issuer_or_instance(
    stack: Stack, server: Server, sigstore: Sigstore, tmp_path: Path
) -> None:
    write(stack, server, sigstore.signing())
    stack.installation.environ |= sigstore.forge.github_job()
    name = f"{server.host}/team/web@{stack.build('web', '--push')['web']['digest']}"
    identity, issuer = Forge.identity(), sigstore.forge.url
    root = ("--trusted-root", str(sigstore.trusted_root))
    assert all(
        each["ok"]
        for each in verify(stack, name, "--identity", identity, "--issuer", issuer, *root).values()
    )
    for other in (
        ("--identity", Forge.identity("other"), "--issuer", issuer, *root),
        ("--identity", identity, "--issuer", f"{issuer}/other", *root),
        ("--key", str(new_key(tmp_path)[1])),
    ):
        checks = verify(stack, name, *other, status=1)
        assert not any(each["ok"] for each in checks.values())
    other_root = tmp_path / "root.json"
    other_root.write_text(sigstore.trusted_root_of_another_authority())
    arguments = ("--identity", identity, "--issuer", issuer, "--trusted-root", str(other_root))
    checks = verify(stack, name, *arguments, status=1)
    assert not any(each["ok"] for each in checks.values())


def test_cosign_verifies_signature_and_attestations_of_a_job(
    stack: Stack, server: Server, sigstore: Sigstore
) -> None:
    program = require("cosign")
    write(stack, server, sigstore.signing())
    stack.installation.environ |= sigstore.forge.github_job()
    name = f"{server.host}/team/web@{stack.build('web', '--push')['web']['digest']}"
    provenance, sbom = ("--type", "slsaprovenance1"), ("--type", "cyclonedx")

    def accepts(identity: str, *command: str) -> bool:
        options = [f"--certificate-identity={identity}", "--new-bundle-format=true"]
        options += [f"--certificate-oidc-issuer={sigstore.forge.url}", "--use-signed-timestamps"]
        options += [f"--trusted-root={sigstore.trusted_root}", name]
        done = subprocess.run([program, *command, *options], capture_output=True, check=False)
        return done.returncode == 0

    for command in (("verify",), *(("verify-attestation", *kind) for kind in (provenance, sbom))):
        assert accepts(Forge.identity(), *command)
        assert not accepts(Forge.identity("other"), *command)


def test_verify_rejects_signature_of_another_image(
    stack: Stack, server: Server, sigstore: Sigstore
) -> None:
    write(stack, server, sigstore.signing())
    stack.installation.environ |= sigstore.forge.github_job()
    signed = stack.build("web", "--push")["web"]
    text = (stack.installation.folder / "lapwing.yaml").read_text()
    stack.write({"web/index.html": "changed\n", "lapwing.yaml": text.partition("signing:")[0]})
    other = stack.build("web", "--push", "--no-attestations")["web"]
    stack.write({"lapwing.yaml": text})
    for digest in server.referrers("team/web", signed["digest"]):
        manifest = server.manifest("team/web", digest)
        assert manifest is not None
        del manifest["_digest"]
        manifest["mediaType"] = MANIFEST
        manifest["subject"]["digest"] = other["digest"]
        server.push_manifest("team/web", "", manifest)
    assert BUNDLE in referrers(server, other["digest"], api=True)
    name = f"{server.host}/team/web@{other['digest']}"
    checks = verify(stack, name, status=1)
    assert not any(each["ok"] for each in checks.values())


def test_job_of_another_branch_pushes_nothing(
    stack: Stack, server: Server, sigstore: Sigstore
) -> None:
    write(stack, server, sigstore.signing())
    stack.installation.environ |= sigstore.forge.github_job("other")
    failure = stack.fail("web", "--push")
    assert "The signature of this job is not valid for the stack file" in failure
    assert Forge.identity("other") in failure
    assert server.manifest("team/web", "latest") is None


def test_push_without_an_identity_token_is_refused_before_the_build(
    stack: Stack, server: Server, sigstore: Sigstore
) -> None:
    write(stack, server, sigstore.signing())
    failure = stack.fail("web", "--push")
    assert "no identity token is available" in failure
    assert "id-token: write" in failure
    assert "building" not in failure
    job = sigstore.forge.github_job()
    del job["ACTIONS_ID_TOKEN_REQUEST_URL"], job["ACTIONS_ID_TOKEN_REQUEST_TOKEN"]
    stack.installation.environ |= job
    failure = stack.fail("web", "--push")
    assert "The identity token of this job cannot be read" in failure
    failure = stack.fail("web", "--push", "--sign-key", "team.key")
    assert "A key cannot be used" in failure
    failure = stack.fail("web", "--push", "--no-attestations")
    assert "would push unsigned images" in failure


@pytest.mark.parametrize("service", ["caUrls", "rekorTlogUrls", "tsaUrls"])
def test_unreachable_service_pushes_nothing(
    stack: Stack, server: Server, sigstore: Sigstore, tmp_path: Path, service: str
) -> None:
    config = json.loads(sigstore.signing_config.read_text())
    config[service][0]["url"] = f"http://127.0.0.1:{free_port()}"
    sigstore = replace(sigstore, signing_config=tmp_path / "config.json")
    sigstore.signing_config.write_text(json.dumps(config))
    write(stack, server, sigstore.signing())
    stack.installation.environ |= sigstore.forge.github_job()
    assert "Sigstore did not sign" in stack.fail("web", "--push")
    assert server.manifest("team/web", "latest") is None


def test_unreadable_trusted_root_is_refused_before_the_build(
    stack: Stack, server: Server, sigstore: Sigstore, tmp_path: Path
) -> None:
    sigstore = replace(sigstore, trusted_root=tmp_path / "missing.json")
    write(stack, server, sigstore.signing())
    stack.installation.environ |= sigstore.forge.github_job()
    failure = stack.fail("web", "--push")
    assert f"The trusted root of {sigstore.trusted_root} cannot be read" in failure
    assert "building" not in failure
