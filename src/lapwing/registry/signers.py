"""The signer of a stack's artifacts, and what verifies them: a key, or the identity of a CI job.

The stack file decides (`signing`). Without `signing` in it, a private key signs if there is one.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lapwing.errors import SigningKeyError, UsageError
from lapwing.registry.keyless import Identity, KeylessSigner
from lapwing.registry.signature import (
    Signer,
    SigningKey,
    Verifier,
    parse_public_key,
    parse_signing_key,
    read_signing_key,
)
from lapwing.settings import Settings

if TYPE_CHECKING:
    from lapwing.stack.load import LoadedStack

KEY = "signing: {key: ...}"


def find_signer(
    settings: Settings, loaded: LoadedStack | None, path: Path | None = None
) -> Signer | None:
    """Return what signs, None if nothing does: `path` is a file with a private key.

    Raises SigningKeyError or KeylessError if the stack file requires a signature that cannot be
    made here, and UsageError.
    """
    signing = loaded.stack.signing if loaded else None
    if loaded is None or signing is None or signing.keyless is None:
        return _find_key(settings, loaded, path)
    if path is not None:
        raise UsageError(
            f"A key cannot be used: {loaded.path.name} has `signing: {{keyless: ...}}`.",
            hint="Omit `--sign-key`, or set `signing: {key: ...}`.",
        )
    config = signing.keyless.signing_config
    signer = KeylessSigner(_identity(loaded), loaded.folder / config if config else None)
    signer.check()
    return signer


def find_verifier(loaded: LoadedStack) -> Verifier | None:
    """Return whose signatures are valid by the stack file. Raises SigningKeyError."""
    signing = loaded.stack.signing
    if signing is None:
        return None
    return _identity(loaded) if signing.key is None else parse_public_key(signing.key, f"`{KEY}`")


def _identity(loaded: LoadedStack) -> Identity:
    """Return the identity of a stack with `signing: {keyless: ...}`."""
    assert loaded.stack.signing is not None
    keyless = loaded.stack.signing.keyless
    assert keyless is not None
    root = loaded.folder / keyless.trusted_root if keyless.trusted_root else None
    return Identity(keyless.identity, keyless.issuer, root)


def _find_key(
    settings: Settings, loaded: LoadedStack | None, path: Path | None = None
) -> SigningKey | None:
    """Return the private key: that of a file, or of LAPWING_SIGNING_KEY."""
    text, signing = settings.signing_key(), loaded.stack.signing if loaded else None
    key = None
    if path is not None:
        key = read_signing_key(path)
    elif text is not None:
        key = parse_signing_key(text, "LAPWING_SIGNING_KEY")
    if loaded is None or signing is None or signing.key is None:
        return key
    where = f"`{KEY}` of {loaded.path.name}"
    expected = parse_public_key(signing.key, where)
    if key is None:
        raise SigningKeyError(
            f"Images and charts have to be signed: {loaded.path.name} has `signing`.",
            hint="Set LAPWING_SIGNING_KEY to the private key (PEM). "
            "`lapwing image build` also has `--sign-key FILE`.",
        )
    if key.public.der != expected.der:
        raise SigningKeyError(
            f"The private key does not belong to {where}.",
            hint="Use the other private key, or change the public key.",
        )
    return key
