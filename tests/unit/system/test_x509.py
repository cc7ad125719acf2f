"""Certificates: what an authority may sign, and what a server's certificate is for."""

from __future__ import annotations

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from lapwing.system.x509 import KeyPair, create_authority, create_server, find_fault


@pytest.fixture(scope="module")
def authority() -> KeyPair:
    return create_authority("Test CA " + "x" * 80, ["localhost", "app.example.com"], 30)


def _extension(pair: KeyPair, kind: type) -> x509.Extension:
    return pair.certificate.extensions.get_extension_for_class(kind)


def test_authority_is_limited_to_its_domains_and_loopback(authority: KeyPair) -> None:
    constraints = _extension(authority, x509.NameConstraints)
    assert constraints.critical
    assert [str(s.value) for s in constraints.value.permitted_subtrees] == [
        "localhost",
        "app.example.com",
        "127.0.0.0/8",
        "::1/128",
    ]
    assert _extension(authority, x509.BasicConstraints).value == x509.BasicConstraints(True, 0)
    assert _extension(authority, x509.KeyUsage).value.key_cert_sign
    assert len(authority.certificate.subject.rfc4514_string()) == len("CN=") + 64


def test_server_certificate_is_signed_by_authority(authority: KeyPair) -> None:
    server = create_server("localhost", 10, ["localhost"], ["127.0.0.1", "::1"], authority)
    server.certificate.verify_directly_issued_by(authority.certificate)
    names = _extension(server, x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    assert not _extension(server, x509.BasicConstraints).value.ca
    key = _extension(server, x509.AuthorityKeyIdentifier).value.key_identifier
    assert key == _extension(authority, x509.SubjectKeyIdentifier).value.digest


def test_server_certificate_without_authority_is_self_signed() -> None:
    server = create_server("shop.example", 10, ["shop.example"], [])
    server.certificate.verify_directly_issued_by(server.certificate)
    with pytest.raises(x509.ExtensionNotFound):
        _extension(server, x509.AuthorityKeyIdentifier)
    now = datetime.datetime.now(datetime.UTC)
    assert server.certificate.not_valid_before_utc < now - datetime.timedelta(hours=23)
    left = server.certificate.not_valid_after_utc - now
    assert datetime.timedelta(days=9, hours=23) < left <= datetime.timedelta(days=10)


def test_pem_holds_certificate_and_its_key() -> None:
    server = create_server("localhost", 10, ["localhost"], [])
    key = load_pem_private_key(server.key_pem, None)
    loaded = x509.load_pem_x509_certificate(server.certificate_pem)
    assert loaded == server.certificate
    assert loaded.public_key() == key.public_key()


def _fault(pair: KeyPair, *hosts: str, key: bytes | None = None) -> str | None:
    return find_fault(pair.certificate_pem.decode(), (key or pair.key_pem).decode(), hosts)


def test_certificate_of_a_user_is_checked_like_clients_do(authority: KeyPair) -> None:
    pair = create_server("a", 10, ["app.example.com", "*.example.org"], [], authority)
    assert _fault(pair, "app.example.com", "www.example.org") is None
    assert _fault(pair, "example.org") == (
        "it is not for example.org, but for app.example.com, *.example.org"
    )
    assert _fault(pair, "a.b.example.org") is not None
    other = create_server("b", 10, [], [], authority)
    assert _fault(pair, key=other.key_pem) == "its key belongs to another certificate"
    assert _fault(pair, key=b"no key") == "its key is not a private key in PEM format"
    assert find_fault("", pair.key_pem.decode(), ()) == "it is not a certificate in PEM format"
    ended = create_server("c", -1, [], [], authority)
    assert str(_fault(ended)).startswith("it is valid from")
    sealed = pair.key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"passphrase")
    )
    assert "has a passphrase" in str(_fault(pair, key=sealed))


def test_rsa_key_of_a_user_has_2048_bits() -> None:
    for bits, fault in (
        (1024, "its RSA key has 1024 bits, and clients require 2048"),
        (2048, None),
    ):
        key = rsa.generate_private_key(65537, bits)
        name = x509.Name([])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder(name, name, key.public_key(), 1)
            .not_valid_before(now)
            .not_valid_after(now + datetime.timedelta(days=1))
            .sign(key, SHA256())
        )
        private = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        chain = certificate.public_bytes(Encoding.PEM)
        assert find_fault(chain.decode(), private.decode(), ()) == fault
