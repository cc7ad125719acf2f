"""Certificates and their keys: the only certificate builder, and checks of users' certificates.

Created keys are ECDSA P-256 and signatures SHA-256, which every client accepts. A new certificate
is valid from a day ago, so that clients whose clock is behind accept it.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.x509 import Certificate, ExtensionType, GeneralName

Extension = tuple["ExtensionType", bool]
"""An extension of a certificate, and whether it is critical."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate with its private key."""

    certificate: Certificate
    key: EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> bytes:
        """The certificate as PEM."""
        from cryptography.hazmat.primitives.serialization import Encoding

        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The private key as PEM (PKCS #8, not encrypted)."""
        return _pem(self.key)


def create_key_pem() -> bytes:
    """Create a private key, as PEM (PKCS #8, not encrypted)."""
    return _pem(_create_key())


def _create_key() -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _pem(key: EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def create_authority(
    name: str, domains: Iterable[str], days: int, key: EllipticCurvePrivateKey | None = None
) -> KeyPair:
    """Create a certificate authority that may sign for these domains and loopback addresses only.

    The restriction is a name constraint (RFC 5280, 4.2.1.10). Without a `key`, a new one is made.
    """
    from cryptography import x509

    usage = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, key_cert_sign=True, crl_sign=True,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip
    permitted: list[GeneralName] = [x509.DNSName(d) for d in domains]
    for network in ("127.0.0.0/8", "::1/128"):
        permitted.append(x509.IPAddress(ipaddress.ip_network(network)))
    extensions: list[Extension] = [
        (x509.BasicConstraints(ca=True, path_length=0), True),
        (usage, True),
        (x509.NameConstraints(permitted_subtrees=permitted, excluded_subtrees=None), True),
    ]
    return _create(name, days, extensions, None, key)


def create_server(
    name: str,
    days: int,
    domains: Iterable[str],
    addresses: Iterable[str],
    authority: KeyPair | None = None,
) -> KeyPair:
    """Create a server's certificate for domains and addresses, self-signed without an authority."""
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    names: list[GeneralName] = [x509.DNSName(d) for d in domains]
    names += [x509.IPAddress(ipaddress.ip_address(a)) for a in addresses]
    extensions: list[Extension] = [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (x509.SubjectAlternativeName(names), False),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
    ]
    return _create(name, days, extensions, authority)


def _create(
    name: str,
    days: int,
    extensions: Sequence[Extension],
    authority: KeyPair | None,
    key: EllipticCurvePrivateKey | None = None,
) -> KeyPair:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import NameOID

    key = key or _create_key()
    signer = authority.key if authority else key
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(authority.certificate.subject if authority else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if authority:
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
        builder = builder.add_extension(identifier, critical=False)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return KeyPair(builder.sign(signer, hashes.SHA256()), key)


def find_fault(chain: str, key: str, hosts: Iterable[str]) -> str | None:
    """Return why Envoy or clients would refuse a certificate and its key; None if they would not.

    `chain` and `key` are PEM. The certificate has to cover `hosts` and to be valid now.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    try:
        certificate, *_ = x509.load_pem_x509_certificates(chain.encode())
    except ValueError:
        return "it is not a certificate in PEM format"
    try:
        private = serialization.load_pem_private_key(key.encode(), None)
    except TypeError:
        return "its key has a passphrase: remove it with `openssl pkey -in FILE -out FILE`"
    except ValueError:
        return "its key is not a private key in PEM format"
    if private.public_key() != certificate.public_key():
        return "its key belongs to another certificate"
    if not isinstance(private, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        return "its key is neither RSA nor ECDSA"
    if isinstance(private, ec.EllipticCurvePrivateKey) and not isinstance(
        private.curve, ec.SECP256R1 | ec.SECP384R1 | ec.SECP521R1
    ):
        curve = private.curve.name
        return f"its key has the curve {curve}, and Envoy supports P-256, P-384 and P-521"
    plain = private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    if plain not in certificate.tbs_certificate_bytes:
        return "Envoy supports neither a key for RSA-PSS only nor a curve given by its parameters"
    if isinstance(private, rsa.RSAPrivateKey) and private.key_size < 2048:
        return f"its RSA key has {private.key_size} bits, and clients require 2048"
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    now = datetime.datetime.now(datetime.UTC)
    if not begins <= now <= ends:
        return f"it is valid from {begins:%Y-%m-%d} to {ends:%Y-%m-%d}"
    names = names_of(certificate)
    if missing := [host for host in hosts if not _matches(names, host)]:
        return f"it is not for {', '.join(missing)}, but for {', '.join(names) or 'no host name'}"
    return None


def expiry(chain: str) -> datetime.datetime:
    """Return when the first certificate of a chain (PEM) ends. Raises ValueError."""
    from cryptography import x509

    return x509.load_pem_x509_certificates(chain.encode())[0].not_valid_after_utc


def covered(chain: str, hosts: Iterable[str]) -> list[str]:
    """Return the hosts that the first certificate of a chain (PEM) is for. Raises ValueError."""
    from cryptography import x509

    names = names_of(x509.load_pem_x509_certificates(chain.encode())[0])
    return [host for host in hosts if _matches(names, host)]


def names_of(certificate: Certificate) -> list[str]:
    """Return the DNS names of a certificate."""
    from cryptography import x509

    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return found.value.get_values_for_type(x509.DNSName)


def _matches(names: Iterable[str], host: str) -> bool:
    """Return whether a name is that of a host; a wildcard matches one label (RFC 6125, 6.4.3)."""
    wildcard = f"*.{host.partition('.')[2]}"
    return any(name.lower() in (host, wildcard) for name in names)
