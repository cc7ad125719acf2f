"""Whether the domains of a server point to it: the authority connects before it signs."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator

from lapwing.observed.checks import CheckResult
from lapwing.plan.model import Document


def check_domains(documents: Iterable[Document], bind: str) -> Iterator[CheckResult]:
    """Check the host names for which a public authority issues certificates.

    `bind` is the address that Envoy listens on.
    """
    public = (document for document in documents if document.acme and document.services)
    for host in dict.fromkeys(host for document in public for host in document.public_hosts):
        yield _check(host, bind)


def _check(host: str, bind: str) -> CheckResult:
    name = f"domain {host}"
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        reason = error.strerror or str(error)
        return CheckResult(name, False, f"cannot be resolved ({reason}): add a DNS record for it")
    addresses = sorted({str(address[0]) for *_, address in found})
    listed = ", ".join(addresses)
    newer = next((address for address in addresses if ":" in address), None)
    if newer is not None and "." in bind:
        problem = (
            f"has the IPv6 address {newer}, but Envoy listens on {bind}: remove the AAAA record"
        )
        return CheckResult(name, False, problem)
    if any(map(_is_local, addresses)):
        return CheckResult(name, True, f"points to this machine ({listed})")
    return CheckResult(
        name,
        None,
        f"points to {listed}, which is not an address of this machine: correct the DNS record, "
        "unless a proxy or a public address of the provider forwards to this machine",
    )


def _is_local(address: str) -> bool:
    """Return whether an address is one of this machine: no other one can be bound."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True
