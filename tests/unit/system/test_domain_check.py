"""The check of `lapwing doctor` that the domains of a server point to it."""

from __future__ import annotations

import msgspec
import pytest

from lapwing.commands.domain_check import check_domains
from lapwing.plan.model import Acme, Deployment, Document, Service

ACME = Acme(email="ops@example.com", directory="https://acme.example.com")


@pytest.mark.parametrize(
    ("host", "bind", "ok", "seen"),
    [
        ("127.0.0.1", "0.0.0.0", True, "points to this machine (127.0.0.1)"),
        ("192.0.2.7", "0.0.0.0", None, "points to 192.0.2.7, which is not an address of this"),
        ("nothing.invalid", "0.0.0.0", False, "add a DNS record for it"),
        ("2001:db8::1", "0.0.0.0", False, "has the IPv6 address 2001:db8::1, but Envoy listens on"),
        ("2001:db8::1", "::", None, "points to 2001:db8::1, which is not an address of this"),
    ],
    ids=["here", "elsewhere", "unknown", "ipv6-without-listener", "ipv6-elsewhere"],
)
def test_check_reports_where_a_domain_points(
    host: str, bind: str, ok: bool | None, seen: str
) -> None:
    """The host is an address, which resolves to itself."""
    document = Document(
        stack="shop",
        environment="vps",
        domains=(host,),
        deployment=Deployment(actor="ada"),
        acme=ACME,
        services={"web": Service(kind="web", route="/", revision="r1", release="web-1")},
    )
    local = msgspec.structs.replace(document, domains=("shop.localhost",))
    stopped = msgspec.structs.replace(document, domains=("192.0.2.9",), services={})
    assert not [*check_domains([local, stopped], bind)]
    [found] = check_domains([document], bind)
    assert (found.check, found.ok) == (f"domain {host}", ok)
    assert seen in found.seen


def test_domains_without_a_public_certificate_are_not_checked() -> None:
    local = Document(
        stack="shop",
        environment="local",
        domains=("shop.localhost",),
        deployment=Deployment(actor="ada"),
    )
    assert list(check_domains([local], "localhost")) == []
