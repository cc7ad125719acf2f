"""Keys that sign images and charts, and what verifies them: openssl, and the real cosign."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.registries import Server

TRUSTED_ROOT = (
    '{"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1", "tlogs": [], '
    '"certificateAuthorities": [], "ctlogs": [], "timestampAuthorities": []}'
)
"""An empty trusted root: keys need none, and cosign would download the public one."""


def new_key(folder: Path, name: str = "team") -> tuple[Path, Path]:
    """Write a private key (0600) and its public key, as openssl does."""
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = folder / f"{name}.key", folder / f"{name}.pub"
    private.touch(0o600)
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return private, public


def signing(public: Path) -> str:
    """The section of a stack file with a public key."""
    return "signing:\n  key: |\n" + "".join(f"    {x}\n" for x in public.read_text().splitlines())


def cosign(
    program: str, folder: Path, public: Path
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A function that runs cosign with the public key; `bundles` verifies Sigstore bundles."""
    root = folder / "root.json"
    root.write_text(TRUSTED_ROOT)
    environ = {**os.environ, "HOME": str(folder), "SIGSTORE_NO_CACHE": "true"}

    def run(*arguments: str, bundles: bool = False) -> subprocess.CompletedProcess[str]:
        more = ("--new-bundle-format=true", f"--trusted-root={root}") if bundles else ()
        key = ("--key", str(public), "--insecure-ignore-tlog=true")
        command = [program, *arguments, *key, *more]
        return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)

    return run


def openssl_verifies(public: Path, signature: str, content: bytes) -> bool:
    """Whether openssl accepts a base64 ECDSA signature of the content's SHA-256."""
    with tempfile.TemporaryDirectory() as name:
        signed, encoded = Path(name, "content"), Path(name, "signature")
        signed.write_bytes(content)
        encoded.write_bytes(base64.b64decode(signature))
        command = ["openssl", "dgst", "-sha256", "-verify", str(public)]
        command += ["-signature", str(encoded), str(signed)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


def signed_documents(
    server: Server, repository: str, tag: str, public: Path
) -> dict[str, dict[str, Any]]:
    """What the key has signed about an image, verified by openssl and read from the registry by no
    code of Lapwing: the payload of the simple signature (`simple`), and the statements in bundles
    by the type of their predicate. Each has to name the digest of the image.

    Sources: cosign's SIGNATURE_SPEC.md and BUNDLE_SPEC.md; the DSSE protocol; the OCI distribution
    specification 1.1, "Listing Referrers".
    """
    image = server.manifest(repository, tag)
    assert image is not None
    encoded = image["_digest"].removeprefix("sha256:")
    found = {}
    simple = server.manifest(repository, f"sha256-{encoded}.sig")
    for layer in simple["layers"] if simple else []:
        payload = server.blob(repository, layer["digest"])
        assert payload is not None
        if openssl_verifies(
            public, layer["annotations"]["dev.cosignproject.cosign/signature"], payload
        ):
            found["simple"] = json.loads(payload)
            critical = found["simple"]["critical"]
            assert critical["image"]["docker-manifest-digest"] == image["_digest"]
    answer = server.client.get(server.url(f"{repository}/referrers/{image['_digest']}"))
    index = answer.json() if answer.status_code == 200 else None
    index = index or server.manifest(repository, f"sha256-{encoded}") or {"manifests": []}
    for listed in index["manifests"]:
        referrer = server.manifest(repository, listed["digest"])
        assert referrer is not None
        assert referrer["subject"]["digest"] == image["_digest"]
        if not referrer["artifactType"].startswith("application/vnd.dev.sigstore.bundle"):
            continue
        bundle = server.blob(repository, referrer["layers"][0]["digest"])
        assert bundle is not None
        envelope = json.loads(bundle)["dsseEnvelope"]
        payload, kind = base64.b64decode(envelope["payload"]), envelope["payloadType"]
        signed = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
        if openssl_verifies(public, envelope["signatures"][0]["sig"], signed):
            statement = json.loads(payload)
            assert statement["subject"][0]["digest"] == {"sha256": encoded}
            found[statement["predicateType"]] = statement
    return found
