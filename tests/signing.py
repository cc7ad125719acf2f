"""Keys that sign images and charts, and the real cosign."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

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
