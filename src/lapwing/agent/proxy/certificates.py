"""The local certificate authority and Envoy's server certificate.

The authority is created once for a LAPWING_HOME, so a user has to trust it once. A clock that is
wrong never replaces it (`find_problem` reports it). Its key never leaves its private folder (0700)
and is kept when its certificate is created again. Its certificate has name constraints (RFC 5280,
4.2.1.10): it is trusted for `localhost`, its subdomains and loopback addresses, for the domains in
the stack files here, and for no other name. A new domain requires a new certificate of the
authority, because a server certificate with one name outside of the constraints is rejected for all
of its names. The server certificate is valid for 397 days, the most that browsers accept, and is
renewed well before that.
"""

from __future__ import annotations

import datetime
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lapwing.system.files import write_atomic
from lapwing.system.x509 import KeyPair, create_authority, create_server, names_of

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

LEAF_DAYS = 397
RENEW_DAYS = 30
AUTHORITY_DAYS = 3650
LOCALHOST = "localhost"
LOOPBACK = ("127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Paths:
    """The files of the authority and of the server certificate, in `folder`."""

    folder: Path

    @property
    def authority(self) -> Path:
        """The certificate of the authority."""
        return self.folder / "ca.pem"

    @property
    def authority_key(self) -> Path:
        """The key of the authority."""
        return self.folder / "ca.key"

    @property
    def server(self) -> Path:
        """The key and the certificate chain in one file, so that a renewal is one rename."""
        return self.folder / "server.pem"

    @property
    def public(self) -> Path:
        """The key and the chain of a public authority in one file."""
        return self.folder / "public.pem"

    @property
    def provided(self) -> Path:
        """The folder of the certificates of users, each with its key and chain in one file."""
        return self.folder / "provided"


def names_for(domains: Iterable[str]) -> tuple[str, ...]:
    """Return the DNS names of the certificate for these domains.

    Preview hosts are included and, since a wildcard matches one label only, each domain itself.
    """
    names = {"localhost", "*.localhost"}
    for domain in domains:
        names |= {domain, f"*.{domain}"}
    return tuple(sorted(names))


def ensure(folder: Path, domains: Iterable[str], covered: frozenset[str] = frozenset()) -> bool:
    """Create or renew what is missing, damaged, expiring, or lacks a name.

    The server certificate is not for the names that another certificate has (`covered`).
    Returns whether the server certificate is new. Raises OSError if it cannot be written.
    """
    paths = Paths(folder)
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    wanted = names_for(domains)
    now = datetime.datetime.now(datetime.UTC)
    authority = load_pair(paths.authority, paths.authority_key)
    permitted = _permitted(authority.certificate) if authority else frozenset({LOCALHOST})
    outside = {n.removeprefix("*.") for n in wanted if not is_below(n, permitted)}
    if authority is None or outside:
        authority = _create_authority(paths, sorted(permitted | outside))
    server = load_pair(paths.server, paths.server)
    if server is not None:
        current = server.certificate
        names = names_of(current)
        signed = _signed_by(current, authority.certificate)
        ends, begins = current.not_valid_after_utc, current.not_valid_before_utc
        due = needs_renewal(ends, begins, names, wanted, now)
        useless = set(wanted) <= set(names) and not _is_valid(authority.certificate, now)
        if signed and (not due or useless) and covered.isdisjoint(names):
            return False
        wanted = tuple(sorted({*wanted, *names} - covered)) if signed else wanted
    _create_leaf(paths, authority, wanted, now)
    return True


def find_problem(folder: Path) -> str | None:
    """Return why clients refuse the authority at the time of this machine; None if they do not."""
    paths = Paths(folder)
    authority = load_pair(paths.authority, paths.authority_key)
    now = datetime.datetime.now(datetime.UTC)
    if authority is None or _is_valid(authority.certificate, now):
        return None
    begins = authority.certificate.not_valid_before_utc
    ends = authority.certificate.not_valid_after_utc
    return (
        f"The certificate authority {paths.authority} is valid from {begins:%Y-%m-%d} to "
        f"{ends:%Y-%m-%d}, and the clock of this machine is at {now:%Y-%m-%d %H:%M} UTC. "
        f"Correct the clock. If it is correct, run `rm {paths.authority_key} {paths.authority} "
        "&& lapwing agent stop && lapwing agent start`, then import the new authority into clients."
    )


def is_pair(file: Path) -> bool:
    """Return whether a file has a certificate and its key."""
    return load_pair(file, file) is not None


def is_intact(folder: Path) -> bool:
    """Return whether Envoy can load the server certificate: its key belongs to it."""
    return is_pair(Paths(folder).server)


def is_below(name: str, domains: Iterable[str]) -> bool:
    """Return whether a host name is one of these domains or a subdomain of one."""
    return any(name == d or name.endswith(f".{d}") for d in domains)


def needs_renewal(
    ends: datetime.datetime,
    begins: datetime.datetime,
    names: Iterable[str],
    wanted: Iterable[str],
    now: datetime.datetime,
) -> bool:
    """Return whether a certificate has to be renewed.

    It is expiring, not yet valid (the clock was set back), or without one of the wanted names.
    """
    near = ends - now < datetime.timedelta(days=RENEW_DAYS)
    return near or begins > now or not set(wanted) <= set(names)


def _is_valid(certificate: x509.Certificate, now: datetime.datetime) -> bool:
    return certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc


def _permitted(authority: x509.Certificate) -> frozenset[str]:
    """Return the domains that an authority may sign for."""
    from cryptography import x509

    try:
        found = authority.extensions.get_extension_for_class(x509.NameConstraints)
    except x509.ExtensionNotFound:
        return frozenset()
    subtrees = found.value.permitted_subtrees or []
    return frozenset(s.value for s in subtrees if isinstance(s, x509.DNSName))


def load_pair(certificate: Path, key: Path) -> KeyPair | None:
    """Load a certificate and its key; None if one is missing, damaged or not of the other."""
    from cryptography import x509

    try:
        first, *_ = x509.load_pem_x509_certificates(certificate.read_bytes())
    except (OSError, ValueError):
        return None
    private = _load_key(key)
    if private is None or first.public_key() != private.public_key():
        return None
    return KeyPair(first, private)


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey | None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        found = serialization.load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError):
        return None
    return found if isinstance(found, ec.EllipticCurvePrivateKey) else None


def _signed_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except Exception:
        return False
    return True


def _create_authority(paths: Paths, domains: Iterable[str]) -> KeyPair:
    host = platform.node().split(".")[0] or "this machine"
    key = _load_key(paths.authority_key)
    authority = create_authority(f"Lapwing local CA ({host})", domains, AUTHORITY_DAYS, key)
    write_atomic(paths.authority_key, authority.key_pem)
    write_atomic(paths.authority, authority.certificate_pem, mode=0o644)
    return authority


def _create_leaf(
    paths: Paths, authority: KeyPair, names: Iterable[str], now: datetime.datetime
) -> None:
    left = (authority.certificate.not_valid_after_utc - now).days
    days = max(1, min(LEAF_DAYS - 1, left))
    server = create_server(LOCALHOST, days, names, LOOPBACK, authority)
    chain = server.certificate_pem + authority.certificate_pem
    write_atomic(paths.server, server.key_pem + chain)
