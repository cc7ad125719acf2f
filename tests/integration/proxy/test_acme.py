"""Certificates of a public authority, from a real ACME server that refuses some nonces."""

from __future__ import annotations

import datetime
import json
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from tests.deployed import until
from tests.installation import Installation, free_port, installation
from tests.integration.proxy.pebble import Authority, pebble

STACK = """\
stack: {name}
services:
  api: {{build: ., command: python app.py, route: /, rollout: {{analysis: false}}}}
environments:
  live:
    domain: {domain}
    tls: {{acme: {{email: ops@example.com, directory: "{directory}", ca: ca.pem}}}}
"""
APP = """\
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"served")
    def log_message(self, *arguments): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


@pytest.fixture
def where(tmp_path: Path) -> Iterator[Installation]:
    with installation(tmp_path / "i", LAPWING_HTTP_PORT=str(free_port())) as made:
        yield made
        made.call("down", "-e", "live")


@pytest.fixture
def authority(where: Installation, tmp_path: Path) -> Iterator[Authority]:
    with pebble(tmp_path / "pebble", int(where.environ["LAPWING_HTTP_PORT"])) as made:
        yield made


def deploy(where: Installation, authority: Authority, domain: str, name: str = "shop") -> None:
    stack = STACK.format(name=name, domain=domain, directory=authority.directory)
    where.write(
        {"lapwing.yaml": stack, "app.py": APP, "requirements.txt": "",
         "ca.pem": authority.trusted.read_text()}
    )  # fmt: skip
    where.run("deploy", "-e", "live")


def served(where: Installation, name: str) -> x509.Certificate:
    """The certificate that a client gets which asks for a name."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", where.port), 10) as connection,
        context.wrap_socket(connection, server_hostname=name) as tls,
    ):
        return x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"")


def is_public(certificate: x509.Certificate) -> bool:
    return "Pebble" in certificate.issuer.rfc4514_string()


def test_domain_gets_a_public_certificate(where: Installation, authority: Authority) -> None:
    deploy(where, authority, "app.example.com")
    until(lambda: is_public(served(where, "app.example.com")), "the certificate")
    assert not is_public(served(where, "localhost"))
    certificates = where.home / "certificates"
    for file in ("acme.key", "public.pem"):
        assert (certificates / file).stat().st_mode & 0o777 == 0o600
    until(lambda: where.json("status", "-e", "live")["problem"] is None)
    where.run("agent", "stop")
    where.run("agent", "start")
    assert is_public(served(where, "app.example.com"))


def test_authority_that_refuses_many_nonces_delays_no_certificate(
    where: Installation, tmp_path: Path
) -> None:
    port = int(where.environ["LAPWING_HTTP_PORT"])
    with pebble(tmp_path / "refusing", port, PEBBLE_WFE_NONCEREJECT="30") as authority:
        deploy(where, authority, "app.example.com")
        until(lambda: is_public(served(where, "app.example.com")), "the certificate")
    record = where.home / "certificates" / "acme.json"
    assert not record.exists() or json.loads(record.read_text())["failed"] == 0


def test_domain_that_points_elsewhere_is_reported_and_keeps_no_other_from_a_certificate(
    where: Installation, authority: Authority
) -> None:
    authority.set_address("elsewhere.example.com", "127.0.0.99")
    deploy(where, authority, "elsewhere.example.com")
    other = where.beside("other")
    deploy(other, authority, "app.example.com", "other")
    until(lambda: is_public(served(where, "app.example.com")), "the certificate")
    problem = where.json("status", "-e", "live", status=1)["problem"]
    assert "could not check elsewhere.example.com" in problem
    assert "127.0.0.99" in problem
    assert "The next attempt is at" in problem
    other.run("down", "-e", "live")


def test_certificate_is_renewed_before_it_ends(where: Installation, authority: Authority) -> None:
    deploy(where, authority, "app.example.com")
    until(lambda: is_public(served(where, "app.example.com")), "the certificate")
    first = served(where, "app.example.com")
    where.run("agent", "stop")
    public = where.home / "certificates" / "public.pem"
    public.write_bytes(ending_soon(public.read_bytes()))
    where.run("agent", "start")
    until(lambda: served(where, "app.example.com").serial_number != first.serial_number)
    until(lambda: is_public(served(where, "app.example.com")), "the renewal")


def ending_soon(pem: bytes) -> bytes:
    """The same certificate with less than a third of its lifetime left, by another signer."""
    from cryptography.hazmat.primitives import hashes, serialization

    key = serialization.load_pem_private_key(pem, None)
    old, *_ = x509.load_pem_x509_certificates(pem)
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(old.subject)
        .issuer_name(x509.Name([]))
        .public_key(old.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=80))
        .not_valid_after(now + datetime.timedelta(days=10))
    )
    for extension in old.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    made = builder.sign(key, hashes.SHA256())
    end = pem.index(b"-----BEGIN CERTIFICATE")
    return pem[:end] + made.public_bytes(serialization.Encoding.PEM)


def test_failed_attempts_back_off_over_restarts(where: Installation, authority: Authority) -> None:
    deploy(where, authority, "blocked.example.com")
    record = where.home / "certificates" / "acme.json"
    until(record.exists, "the first attempt")
    where.run("agent", "stop")
    where.run("agent", "start")
    time.sleep(7)
    attempts = json.loads(record.read_text())
    assert attempts["failed"] == 1
    assert attempts["next"] > time.time()
    problem = where.json("status", "-e", "live", status=1)["problem"]
    assert "refused" in problem
