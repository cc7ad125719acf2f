"""The local authority and the certificate that Envoy shows, as OpenSSL sees them."""

from __future__ import annotations

import datetime
import socket
import ssl
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509

from lapwing.agent.proxy import certificates
from lapwing.agent.proxy.certificates import (
    AUTHORITY_DAYS,
    LEAF_DAYS,
    RENEW_DAYS,
    Paths,
    ensure,
    is_below,
    names_for,
    needs_renewal,
)

DOMAINS = ("shop.localhost", "shop.example")


def certificate(path: Path) -> x509.Certificate:
    """The first certificate of a file."""
    return x509.load_pem_x509_certificate(path.read_bytes())


def accepted(folder: Path, host: str) -> bool:
    """Whether a client that trusts the authority takes the certificate for this host: a real
    handshake of OpenSSL, over a pair of sockets."""
    paths = Paths(folder)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(paths.server)
    client = ssl.create_default_context(cafile=str(paths.authority))
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            server.wrap_socket(theirs, server_side=True).close()
        except (ssl.SSLError, OSError):
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        client.wrap_socket(ours, server_hostname=host).close()
    except ssl.SSLCertVerificationError:
        return False
    finally:
        ours.close()
        thread.join()
    return True


def test_names() -> None:
    assert names_for(()) == ("*.localhost", "localhost")
    assert set(names_for(DOMAINS)) == {
        "localhost",
        "*.localhost",
        "shop.localhost",
        "*.shop.localhost",
        "shop.example",
        "*.shop.example",
    }


def test_clients_accept_every_name_and_no_other(tmp_path: Path) -> None:
    assert ensure(tmp_path, ("shop.localhost",))
    for host in ("localhost", "shop.localhost", "preview.shop.localhost", "127.0.0.1", "::1"):
        assert accepted(tmp_path, host), host
    for host in ("shop.example", "a.b.shop.localhost", "127.0.0.2"):
        assert not accepted(tmp_path, host), host


def test_custom_domain_is_covered(tmp_path: Path) -> None:
    """The authority may sign for it, and still for localhost, and for nobody else."""
    ensure(tmp_path, ("shop.localhost",))
    before = Paths(tmp_path).authority.read_bytes()
    assert ensure(tmp_path, DOMAINS)
    assert Paths(tmp_path).authority.read_bytes() != before
    for host in ("localhost", "shop.localhost", "shop.example", "preview.shop.example"):
        assert accepted(tmp_path, host), host
    found = certificate(Paths(tmp_path).authority)
    constraints = found.extensions.get_extension_for_class(x509.NameConstraints)
    assert constraints.critical
    permitted = {str(s.value) for s in constraints.value.permitted_subtrees or ()}
    assert permitted == {"localhost", "shop.example", "127.0.0.0/8", "::1/128"}


def test_authority_is_created_once(tmp_path: Path) -> None:
    ensure(tmp_path, DOMAINS)
    files = {p: p.read_bytes() for p in tmp_path.iterdir()}
    assert not ensure(tmp_path, DOMAINS)
    assert not ensure(tmp_path, ())
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == files
    assert ensure(tmp_path, (*DOMAINS, "mill.localhost", "www.shop.example"))
    assert Paths(tmp_path).authority.read_bytes() == files[Paths(tmp_path).authority]
    assert accepted(tmp_path, "mill.localhost")
    assert accepted(tmp_path, "shop.example")


def test_modes(tmp_path: Path) -> None:
    folder = tmp_path / "certificates"
    ensure(folder, ())
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in folder.iterdir()}
    assert modes == {"ca.pem": 0o644, "ca.key": 0o600, "server.pem": 0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_validity_periods(tmp_path: Path) -> None:
    ensure(tmp_path, ())
    for path, days in (
        (Paths(tmp_path).server, LEAF_DAYS),
        (Paths(tmp_path).authority, AUTHORITY_DAYS + 1),
    ):
        found = certificate(path)
        length = found.not_valid_after_utc - found.not_valid_before_utc
        assert length == datetime.timedelta(days=days)


@pytest.mark.parametrize("name", ["ca.pem", "ca.key", "server.pem"])
@pytest.mark.parametrize("damage", [None, b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_missing_or_damaged_files_are_created_again(
    tmp_path: Path, name: str, damage: bytes | None
) -> None:
    ensure(tmp_path, DOMAINS)
    if damage is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(damage)
    assert ensure(tmp_path, DOMAINS) is (name != "ca.pem")
    assert accepted(tmp_path, "shop.example")
    assert not ensure(tmp_path, DOMAINS)


@pytest.mark.parametrize("part", ["key", "certificate", "chain"])
def test_partly_damaged_server_certificate_is_created_again(tmp_path: Path, part: str) -> None:
    ensure(tmp_path, DOMAINS)
    path = Paths(tmp_path).server
    blocks = path.read_bytes().split(b"-----BEGIN ")
    number = {"key": 1, "certificate": 2, "chain": 3}[part]
    blocks[number] = blocks[number][:40] + b"\n" + blocks[number][60:]
    path.write_bytes(b"-----BEGIN ".join(blocks))
    authority = Paths(tmp_path).authority.read_bytes()
    assert not certificates.is_intact(tmp_path)
    assert ensure(tmp_path, DOMAINS)
    assert certificates.is_intact(tmp_path)
    assert accepted(tmp_path, "shop.example")
    assert Paths(tmp_path).authority.read_bytes() == authority


def test_key_of_another_certificate_is_replaced(tmp_path: Path) -> None:
    ensure(tmp_path, DOMAINS)
    ensure(tmp_path / "other", DOMAINS)
    path, mark = Paths(tmp_path).server, b"-----BEGIN CERTIFICATE"
    key = Paths(tmp_path / "other").server.read_bytes().partition(mark)[0]
    path.write_bytes(key + b"".join(path.read_bytes().partition(mark)[1:]))
    assert not certificates.is_intact(tmp_path)
    assert ensure(tmp_path, DOMAINS)
    assert accepted(tmp_path, "shop.example")


def test_certificate_of_another_authority_is_replaced(tmp_path: Path) -> None:
    for name in ("one", "other"):
        ensure(tmp_path / name, ())
    Paths(tmp_path / "one").authority_key.write_bytes(
        Paths(tmp_path / "other").authority_key.read_bytes()
    )
    assert ensure(tmp_path / "one", ())
    assert accepted(tmp_path / "one", "localhost")


NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("begins", "ends", "wanted", "renewed"),
    [
        (-10, RENEW_DAYS + 1, "a", False),
        (-10, RENEW_DAYS - 1, "a", True),
        (-10, -1, "a", True),
        (1, 300, "a", True),
        (-10, 300, "c", True),
    ],
)
def test_renewal(begins: int, ends: int, wanted: str, renewed: bool) -> None:
    start, end = (NOW + datetime.timedelta(days=d) for d in (begins, ends))
    assert needs_renewal(end, start, ["a", "b"], [wanted], NOW) is renewed


def test_expiring_certificate_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made with a short life, it is replaced, by the same authority."""
    with monkeypatch.context() as short:
        short.setattr(certificates, "LEAF_DAYS", RENEW_DAYS)
        ensure(tmp_path, DOMAINS)
    authority = Paths(tmp_path).authority.read_bytes()
    assert ensure(tmp_path, ())
    assert Paths(tmp_path).authority.read_bytes() == authority
    assert accepted(tmp_path, "shop.example")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Set the clock to another day, counted from today."""

    def set_clock(days: int) -> None:
        class Clock(datetime.datetime):
            @classmethod
            def now(cls, tz: datetime.tzinfo | None = None) -> Clock:
                return cls.fromtimestamp(time.time() + days * 86400, tz)

        monkeypatch.setattr(datetime, "datetime", Clock)

    return set_clock


@pytest.mark.parametrize("days", [-10, AUTHORITY_DAYS + 10])
def test_wrong_clock_replaces_no_authority(
    tmp_path: Path, clock: Callable[[int], None], days: int
) -> None:
    ensure(tmp_path, DOMAINS)
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    assert certificates.find_problem(tmp_path) is None
    clock(days)
    assert not ensure(tmp_path, DOMAINS)
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before
    problem = certificates.find_problem(tmp_path)
    assert problem is not None
    assert f"the clock of this machine is at {datetime.datetime.now(datetime.UTC):%Y-%m}" in problem


def test_server_certificate_ends_with_its_authority(
    tmp_path: Path, clock: Callable[[int], None]
) -> None:
    ensure(tmp_path, DOMAINS)
    authority = certificate(Paths(tmp_path).authority)
    clock(AUTHORITY_DAYS - 100)
    assert ensure(tmp_path, DOMAINS)
    assert certificate(Paths(tmp_path).authority) == authority
    server = certificate(Paths(tmp_path).server)
    assert server.not_valid_after_utc <= authority.not_valid_after_utc


@pytest.mark.parametrize("damage", [b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_key_of_the_authority_is_kept(tmp_path: Path, damage: bytes) -> None:
    """A client that trusts its certificate accepts what is signed after that was damaged."""
    ensure(tmp_path, DOMAINS)
    trusted = Paths(tmp_path).authority.read_bytes()
    Paths(tmp_path).authority.write_bytes(damage)
    Paths(tmp_path).server.unlink()
    assert ensure(tmp_path, DOMAINS)
    Paths(tmp_path).authority.write_bytes(trusted)
    assert accepted(tmp_path, "shop.example")


def test_subdomains() -> None:
    assert is_below("a.b.example", ["b.example"])
    assert is_below("*.b.example", ["b.example"])
    assert is_below("b.example", ["b.example"])
    assert not is_below("ab.example", ["b.example"])
