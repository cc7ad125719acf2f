"""Certificates of a public authority, from a real ACME server that refuses some nonces."""

from __future__ import annotations

import contextlib
import datetime
import http.client
import json
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509

from lapwing.system.x509 import names_of
from tests.deployed import until
from tests.installation import Installation, free_port, installation
from tests.integration.proxy.pebble import Authority, pebble

STACK = """\
stack: {name}
services:
  api: {{build: ., command: python app.py, route: /, rollout: {{analysis: false}}}}
environments:
  live:
    domains: [{domain}]
    redirects: {redirects}
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


def deploy(
    where: Installation,
    authority: Authority,
    domain: str,
    name: str = "shop",
    redirects: str = "{}",
    status: int = 0,
) -> str:
    directory = authority.directory
    stack = STACK.format(name=name, domain=domain, redirects=redirects, directory=directory)
    where.write(
        {"lapwing.yaml": stack, "app.py": APP, "requirements.txt": "",
         "ca.pem": authority.trusted.read_text()}
    )  # fmt: skip
    return where.run("deploy", "-e", "live", status=status).stderr


def location(where: Installation, url: str, *, port: int | None = None) -> tuple[int, str]:
    """The status and Location of the answer to a request, sent to a port of Envoy."""
    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    connection: http.client.HTTPConnection
    if scheme == "http":
        assert port is not None
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    else:
        context = ssl._create_unverified_context()
        connection = http.client.HTTPSConnection(
            "127.0.0.1", where.port, timeout=30, context=context
        )
    with contextlib.closing(connection):
        connection.request("POST", f"/{path}", headers={"Host": host})
        answer = connection.getresponse()
        return answer.status, answer.headers.get("location", "")


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
    folder = where.home / "certificates"
    for file in ("acme.key", "public.pem"):
        assert (folder / file).stat().st_mode & 0o777 == 0o600
    until(lambda: where.json("status", "-e", "live")["problem"] is None)
    where.run("agent", "stop")
    where.run("agent", "start")
    assert is_public(served(where, "app.example.com"))


def test_redirected_host_is_in_the_certificate_and_keeps_path_and_query(
    where: Installation, authority: Authority
) -> None:
    deploy(where, authority, "app.example.com, app.example.org",
           redirects="{www.example.com: app.example.com}")  # fmt: skip
    until(lambda: is_public(served(where, "www.example.com")), "the certificate")
    names = names_of(served(where, "app.example.org"))
    assert names == ["app.example.com", "app.example.org", "www.example.com"]
    to = (308, "https://app.example.com/a%20b?c=d&e")
    assert location(where, "https://www.example.com/a%20b?c=d&e") == to
    port = where.port
    to = (308, f"https://app.example.com:{port}/a?b")
    assert location(where, f"https://www.example.com:{port}/a?b") == to
    plain = int(where.environ["LAPWING_HTTP_PORT"])
    to = (307, "https://www.example.com/a?b")
    assert location(where, "http://www.example.com/a?b", port=plain) == to
    to = (307, f"https://www.example.com:{port}/a?b")
    assert location(where, f"http://www.example.com:{plain}/a?b", port=plain) == to
    assert location(where, "https://app.example.org/")[0] == 501  # The application: no POST.
    other = where.beside("other")
    error = deploy(other, authority, "other.example.com", "other",
                   redirects="{www.example.com: other.example.com}", status=1)  # fmt: skip
    assert "Host name www.example.com is already used by shop/live" in error
    assert location(where, "https://www.example.com/") == (308, "https://app.example.com/")


def test_host_name_can_become_a_redirect_and_back(where: Installation) -> None:
    """Without an authority: the certificate is a local one."""
    files = {"app.py": APP, "requirements.txt": ""}
    for ingress, status in (
        ("domains: [app.example.com, www.example.com]", 501),
        ("domain: app.example.com, redirects: {www.example.com: app.example.com}", 308),
        ("domains: [app.example.com, www.example.com]", 501),
    ):
        stack = (
            f"{STACK.format(name='shop', domain='', redirects='', directory='').split('env')[0]}"
        )
        where.write({**files, "lapwing.yaml": f"{stack}environments: {{live: {{{ingress}}}}}\n"})
        where.run("deploy", "-e", "live")
        assert location(where, "https://www.example.com/x")[0] == status


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
    assert problem.startswith("The public certificate for elsewhere.example.com is missing. ")
    assert "The ACME authority localhost could not check the domain (" in problem
    assert "127.0.0.99" in problem
    assert "Set the A and AAAA records of the domain to the address of this server" in problem
    assert "The next attempt is at" in problem
    assert other.json("status", "-e", "live")["problem"] is None
    other.run("down", "-e", "live")


def test_refused_domain_does_not_block_certificates_of_other_domains(
    where: Installation, authority: Authority
) -> None:
    """The whole order is refused, and only its text names the domain."""
    deploy(where, authority, "app.example.com, blocked.example.com")
    until(lambda: is_public(served(where, "app.example.com")), "the certificate")
    problem = where.json("status", "-e", "live", status=1)["problem"]
    assert problem.startswith("The public certificate for blocked.example.com is missing. ")
    assert "refused a certificate (rejectedIdentifier): " in problem
    assert "Use a domain that the authority accepts, or another authority." in problem


def test_unreachable_authority_is_named_with_the_cause(
    where: Installation, authority: Authority
) -> None:
    port = free_port()
    stopped = replace(authority, directory=f"https://localhost:{port}/dir")
    deploy(where, stopped, "app.example.com")
    until(lambda: where.call("status", "-e", "live").returncode == 1, "the failed attempt")
    problem = where.json("status", "-e", "live", status=1)["problem"]
    assert "authority localhost cannot be reached (Connection refused). Check `dir" in problem
    assert "HTTPSConnectionPool" not in problem


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
