"""Signatures of images by a key, in the two formats of cosign.

- Simple signing: a payload with the digest of the image, in a manifest with the tag
  `sha256-<digest>.sig`. cosign 2, Kyverno and policy-controller read it by default.
- A Sigstore bundle: a signed in-toto statement (DSSE), as an OCI referrer. cosign 3 reads it by
  default. Signed attestations have the same format.

Keys are ECDSA P-256, which every implementation supports. Signatures are deterministic (RFC 6979),
so the same image and key have the same bytes. No transparency log is used.

Sources: cosign's SIGNATURE_SPEC.md and BUNDLE_SPEC.md; DSSE protocol 1.0; sigstore_bundle.proto.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lapwing.errors import SigningKeyError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import (
        EllipticCurvePrivateKey,
        EllipticCurvePublicKey,
    )

SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE = "dev.cosignproject.cosign/signature"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
BUNDLE_PREFIX = "application/vnd.dev.sigstore.bundle"
STATEMENT_TYPE = "application/vnd.in-toto+json"
SIGNED = "https://sigstore.dev/cosign/sign/v1"
"""The predicate type of a statement that only says that an image is signed."""
_CREATE = "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256"


class Verifier(Protocol):
    """What decides whether a signature is valid: a public key or an identity."""

    @property
    def kind(self) -> str:
        """The word for it in messages."""

    def open_bundle(self, content: bytes, digest: str) -> Mapping[str, Any] | None:
        """Return the statement in a bundle, if it is validly signed and about the digest."""


class Signer(Protocol):
    """What signs: a private key or an identity."""

    @property
    def verifier(self) -> Verifier:
        """What verifies its signatures."""

    @property
    def repeats(self) -> bool:
        """Whether the same statement always gets the same bundle."""

    def sign_bundles(self, statements: Sequence[bytes]) -> list[bytes]:
        """Return a Sigstore bundle with each signed in-toto statement. May block."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key that verifies signatures."""

    key: EllipticCurvePublicKey

    @property
    def kind(self) -> str:
        """The word for it in messages."""
        return "key"

    @property
    def der(self) -> bytes:
        """The key in DER (SubjectPublicKeyInfo)."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        return self.key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def verifies(self, signature: str, content: bytes) -> bool:
        """Return whether a base64 signature of the content is valid."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.hashes import SHA256

        try:
            decoded = base64.b64decode(signature, validate=True)
            self.key.verify(decoded, content, ec.ECDSA(SHA256()))
        except (InvalidSignature, binascii.Error, ValueError):
            return False
        return True

    def open_bundle(self, content: bytes, digest: str) -> Mapping[str, Any] | None:
        """Return the statement in a bundle, if the key signed it and it is about the digest."""
        try:
            envelope = json.loads(content)["dsseEnvelope"]
            if envelope["payloadType"] != STATEMENT_TYPE:
                return None
            payload = base64.b64decode(envelope["payload"], validate=True)
            signed = _encoded(STATEMENT_TYPE, payload)
            if not any(self.verifies(each["sig"], signed) for each in envelope["signatures"]):
                return None
        except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
            return None
        return parse_statement(payload, digest)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key. It is never printed: its fields are not in its representation."""

    _key: EllipticCurvePrivateKey

    def __repr__(self) -> str:
        return "SigningKey()"

    @property
    def public(self) -> PublicKey:
        """The public key that belongs to it."""
        return PublicKey(self._key.public_key())

    @property
    def verifier(self) -> Verifier:
        """The public key."""
        return self.public

    @property
    def repeats(self) -> bool:
        """Signatures are deterministic."""
        return True

    def sign(self, content: bytes) -> str:
        """Return the signature of some content, in base64."""
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.hashes import SHA256

        algorithm = ec.ECDSA(SHA256(), deterministic_signing=True)
        return base64.b64encode(self._key.sign(content, algorithm)).decode()

    def sign_bundles(self, statements: Sequence[bytes]) -> list[bytes]:
        """Return a Sigstore bundle with each signed in-toto statement."""
        hint = base64.b64encode(hashlib.sha256(self.public.der).digest()).decode()
        bundles = []
        for statement in statements:
            bundle = {
                "mediaType": BUNDLE,
                "verificationMaterial": {"publicKey": {"hint": hint}},
                "dsseEnvelope": {
                    "payload": base64.b64encode(statement).decode(),
                    "payloadType": STATEMENT_TYPE,
                    "signatures": [{"sig": self.sign(_encoded(STATEMENT_TYPE, statement))}],
                },
            }
            bundles.append(json.dumps(bundle, separators=(",", ":")).encode())
        return bundles


def read_signing_key(path: Path) -> SigningKey:
    """Read a private key from a file. Raises SigningKeyError, also if others can read the file."""
    try:
        mode = path.stat().st_mode
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SigningKeyError(
            f"The signing key {path} cannot be read: {error}.",
            hint=f"Create one: `(umask 077; {_CREATE} -out {path.name})`.",
        ) from error
    if stat.S_IMODE(mode) & 0o077:
        raise SigningKeyError(
            f"Other users may read the signing key {path} (mode {stat.S_IMODE(mode):04o}).",
            hint=f"Run `chmod 600 {path}`. If others had access to it, create a new key.",
        )
    return parse_signing_key(text, str(path))


def parse_signing_key(text: str, where: str) -> SigningKey:
    """Parse a private key (PEM, PKCS #8). Raises SigningKeyError, which never quotes the key."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    if "ENCRYPTED" in text:
        raise SigningKeyError(
            f"The signing key in {where} is encrypted.",
            hint="Use a key without a password, in a file with mode 0600 or a secret of CI: "
            f"`{_CREATE}`.",
        )
    try:
        found = load_pem_private_key(text.encode(), None)
    except (ValueError, TypeError) as error:
        raise _invalid(where, f"Create one: `{_CREATE}`.") from error
    if not _is_p256(found):
        raise _invalid(where, f"Create one: `{_CREATE}`.")
    return SigningKey(found)  # type: ignore[arg-type]


def parse_public_key(text: str, where: str) -> PublicKey:
    """Parse a public key (PEM). Raises SigningKeyError."""
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    hint = "Write it from the private key: `openssl pkey -in KEY -pubout`."
    try:
        found = load_pem_public_key(text.encode())
    except (ValueError, TypeError) as error:
        raise _invalid(where, hint) from error
    if not _is_p256(found):
        raise _invalid(where, hint)
    return PublicKey(found)  # type: ignore[arg-type]


def _is_p256(key: object) -> bool:
    curve = getattr(key, "curve", None)
    return getattr(curve, "name", "") == "secp256r1"


def _invalid(where: str, hint: str) -> SigningKeyError:
    return SigningKeyError(f"{where} has no ECDSA P-256 key in PEM format.", hint=hint)


def simple_payload(name: str, digest: str) -> bytes:
    """Return the payload that a simple signature of an image signs."""
    critical = {
        "identity": {"docker-reference": name},
        "image": {"docker-manifest-digest": digest},
        "type": "cosign container image signature",
    }
    return json.dumps({"critical": critical, "optional": None}, separators=(",", ":")).encode()


def is_simple_payload_of(content: bytes, digest: str) -> bool:
    """Return whether a payload is that of a simple signature of a digest."""
    try:
        critical = json.loads(content)["critical"]
        return bool(
            critical["image"]["docker-manifest-digest"] == digest
            and critical["type"] == "cosign container image signature"
        )
    except (ValueError, KeyError, TypeError):
        return False


def parse_statement(payload: bytes, digest: str) -> Mapping[str, Any] | None:
    """Return an in-toto statement, if it is about the digest."""
    algorithm, _, encoded = digest.partition(":")
    try:
        statement = json.loads(payload)
        subjects = [each["digest"].get(algorithm) for each in statement["subject"]]
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return statement if encoded in subjects else None


def _encoded(payload_type: str, payload: bytes) -> bytes:
    """Return what a DSSE signature signs: the pre-authentication encoding."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
