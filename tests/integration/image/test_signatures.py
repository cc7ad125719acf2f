"""Signed images: what `lapwing image verify` proves, and that the real cosign accepts them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lapwing.registry.attestations import PROVENANCE, SBOM_PREDICATE
from lapwing.registry.referrers import referrers_tag
from lapwing.registry.signature import SIGNED
from tests.needs import require
from tests.registries import Server
from tests.signing import cosign, new_key, signed_documents, signing

from .conftest import Stack
from .test_attestations import registry, write

pytestmark = pytest.mark.xdist_group("image")


def verify(stack: Stack, *arguments: str, status: int = 0) -> dict[str, dict[str, Any]]:
    found = stack.installation.json("image", "verify", *arguments, status=status)
    return {each["check"]: each for each in found}


@pytest.mark.parametrize("api", [True, False])
def test_signed_image_proves_source_and_sbom(stack: Stack, tmp_path: Path, api: bool) -> None:
    private, public = new_key(tmp_path)
    with registry(api, tmp_path / "registry") as server:
        write(stack, server, signing(public))
        built = stack.build("web", "--push", "--sign-key", str(private))["web"]
        commit = stack.installation.git("rev-parse", "HEAD").strip()
        checks = verify(stack, "web")
        assert all(each["ok"] for each in checks.values())
        assert (
            checks["provenance"]["seen"] == f"commit {commit} of git+https://git.example/shop.git"
        )
        assert built["digest"] in checks["signature"]["seen"]
        assert "(simple signing, Sigstore bundle)" in checks["signature"]["seen"]
        assert checks["sbom"]["seen"].endswith(" components")

        other = new_key(tmp_path, "other")[1]
        refused = verify(stack, "web", "--key", str(other), status=1)
        assert not any(each["ok"] for each in refused.values())

        proven = signed_documents(server, "team/web", "latest", public)
        assert {"simple", SIGNED, PROVENANCE, SBOM_PREDICATE} == set(proven)
        assert not signed_documents(server, "team/web", "latest", other)

        signed = server.manifest("team/web", referrers_tag(built["digest"]) + ".sig")
        again = stack.build("web", "--push", "--sign-key", str(private))["web"]
        assert again["referrers"] == built["referrers"], "signatures are deterministic"
        assert server.manifest("team/web", referrers_tag(built["digest"]) + ".sig") == signed


def test_signature_of_another_image_proves_nothing(stack: Stack, server: Server) -> None:
    folder = stack.installation.folder.parent
    private, public = new_key(folder)
    write(stack, server)
    signed = stack.build("web", "--push", "--sign-key", str(private))["web"]
    stack.write({"web/index.html": "changed\n"})
    other = stack.build("web", "--push", "--no-attestations")["web"]
    tag = referrers_tag(signed["digest"]) + ".sig"
    manifest = server.manifest("team/web", tag)
    assert manifest is not None
    del manifest["_digest"]
    manifest["mediaType"] = "application/vnd.oci.image.manifest.v1+json"
    server.push_manifest("team/web", referrers_tag(other["digest"]) + ".sig", manifest)
    name = f"{server.host}/team/web"
    arguments = (f"{name}@{other['digest']}", "--key", str(public))
    checks = verify(stack, *arguments, status=1)
    assert not any(each["ok"] for each in checks.values())
    assert all(
        each["ok"]
        for each in verify(stack, f"{name}@{signed['digest']}", "--key", str(public)).values()
    )


def test_key_of_ci_is_used_and_appears_nowhere(stack: Stack, server: Server) -> None:
    folder = stack.installation.folder.parent
    private, public = new_key(folder)
    write(stack, server)
    stack.installation.environ["LAPWING_SIGNING_KEY"] = private.read_text()
    done = stack.installation.run("image", "build", "web", "--push")
    secret = private.read_text().splitlines()[1]
    assert secret not in done.stdout + done.stderr
    for path in (stack.installation.home / "logs").rglob("*"):
        assert not path.is_file() or secret not in path.read_text(errors="replace")
    assert verify(stack, "web", "--key", str(public))["signature"]["ok"]


def test_unusable_keys_are_refused_before_anything_is_built(stack: Stack, server: Server) -> None:
    folder = stack.installation.folder.parent
    private, public = new_key(folder)
    write(stack, server)
    private.chmod(0o640)
    said = stack.fail("web", "--push", "--sign-key", str(private))
    assert f"Other users may read the signing key {private} (mode 0640)." in said
    assert f"chmod 600 {private}" in said
    said = stack.fail("web", "--push", "--sign-key", str(folder / "none"))
    assert "cannot be read" in said
    rsa = folder / "rsa.key"
    rsa.touch(0o600)
    rsa.write_text("not a key")
    said = stack.fail("web", "--push", "--sign-key", str(rsa))
    assert "has no ECDSA P-256 key in PEM format." in said
    text = (stack.installation.folder / "lapwing.yaml").read_text()
    stack.write({"lapwing.yaml": text + signing(public)})
    assert "Images and charts have to be signed" in stack.fail("web", "--push")
    other = new_key(folder, "other")[0]
    said = stack.fail("web", "--push", "--sign-key", str(other))
    assert "The private key does not belong to `signing: {key: ...}`" in said


@pytest.mark.parametrize("api", [True, False])
def test_cosign_verifies_signature_and_attestations(
    stack: Stack, tmp_path: Path, api: bool
) -> None:
    program = require("cosign")
    private, public = new_key(tmp_path)
    run = cosign(program, tmp_path, public)
    with registry(api, tmp_path / "registry") as server:
        write(stack, server)
        digest = stack.build("web", "--push", "--sign-key", str(private))["web"]["digest"]
        name = f"{server.host}/team/web@{digest}"
        done = run("verify", name)
        assert done.returncode == 0, done.stderr
        verified = [each["critical"]["image"] for each in json.loads(done.stdout)]
        assert {image["docker-manifest-digest"] for image in verified} == {digest}
        for kind in ("slsaprovenance1", "cyclonedx"):
            done = run("verify-attestation", "--type", kind, name, bundles=True)
            assert done.returncode == 0, done.stderr
        public.write_bytes(new_key(tmp_path, "other")[1].read_bytes())
        assert run("verify", name).returncode != 0
        refused = run("verify-attestation", "--type", "cyclonedx", name, bundles=True)
        assert refused.returncode != 0
