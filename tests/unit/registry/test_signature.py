"""Signatures in the formats of cosign; tests/integration/image has the real cosign verify them."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from lapwing.errors import SigningKeyError
from lapwing.registry.signature import (
    SigningKey,
    is_simple_payload_of,
    parse_public_key,
    parse_signing_key,
    simple_payload,
)

DIGEST, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
STATEMENT = json.dumps(
    {"subject": [{"digest": {"sha256": "a" * 64}}], "predicateType": "x"}
).encode()


def pem(curve: ec.EllipticCurve, password: bytes | None = None) -> str:
    protection: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password is not None:
        protection = serialization.BestAvailableEncryption(password)
    key = ec.generate_private_key(curve)
    kind = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, kind, protection).decode()


@pytest.fixture
def key() -> SigningKey:
    return parse_signing_key(pem(ec.SECP256R1()), "a test")


def test_signature_is_deterministic_and_of_its_content(key: SigningKey) -> None:
    payload = simple_payload("r.example/a", DIGEST)
    assert key.sign(payload) == key.sign(payload)
    assert key.public.verifies(key.sign(payload), payload)
    assert not key.public.verifies(key.sign(payload), payload + b" ")
    assert not key.public.verifies("not base64", payload)
    assert is_simple_payload_of(payload, DIGEST)
    assert not is_simple_payload_of(payload, OTHER)
    assert not is_simple_payload_of(b"[]", DIGEST)


def test_bundle_opens_for_its_key_and_its_image_only(key: SigningKey) -> None:
    bundle = key.sign_bundles([STATEMENT])[0]
    assert key.public.open_bundle(bundle, DIGEST) == json.loads(STATEMENT)
    assert key.public.open_bundle(bundle, OTHER) is None
    other = parse_signing_key(pem(ec.SECP256R1()), "a test")
    assert other.public.open_bundle(bundle, DIGEST) is None


@pytest.mark.parametrize("change", ["payload", "payloadType", "signatures"])
def test_changed_bundle_does_not_open(key: SigningKey, change: str) -> None:
    bundle = json.loads(key.sign_bundles([STATEMENT])[0])
    changed = base64.b64encode(STATEMENT + b" ").decode()
    bundle["dsseEnvelope"][change] = [] if change == "signatures" else changed
    assert key.public.open_bundle(json.dumps(bundle).encode(), DIGEST) is None


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"dsseEnvelope": {"payload": 1}}', b"\xff"]
)
def test_invalid_bundle_does_not_open(key: SigningKey, content: bytes) -> None:
    assert key.public.open_bundle(content, DIGEST) is None


def test_unsupported_keys_are_refused_without_quoting_them() -> None:
    for text in (pem(ec.SECP384R1()), pem(ec.SECP256R1(), b"password"), "x"):
        with pytest.raises(SigningKeyError) as caught:
            parse_signing_key(text, "k.pem")
        assert "k.pem" in caught.value.message
        assert (
            text.splitlines()[-1] not in f"{caught.value.message} {caught.value.hint}"
            or text == "x"
        )
    with pytest.raises(SigningKeyError):
        parse_public_key("x", "p.pem")


def test_key_is_not_printed(key: SigningKey) -> None:
    assert repr(key) == "SigningKey()"
