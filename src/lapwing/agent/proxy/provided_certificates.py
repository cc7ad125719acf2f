"""Certificates of users: `tls: {certificate: FILE, key: NAME}`.

The certificate is in the document, its key in the encrypted store. Envoy reads both from one file
(0600), which is written again when one of them changes. Envoy's bootstrap has a fixed number of
such certificates, which limits how many a machine can use.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from pathlib import Path

from lapwing.agent.proxy.public_certificate import WARN_DAYS
from lapwing.agent.proxy.xds import PROVIDED
from lapwing.agent.state import EnvironmentState
from lapwing.desired.secrets import SecretStore
from lapwing.errors import ReplicaError, SecretError
from lapwing.plan.model import Certificate, Document
from lapwing.system import x509

Key = tuple[str, str]
"""The names of a stack and an environment."""


def wanted(states: Iterable[EnvironmentState]) -> dict[Key, Certificate]:
    """Return the certificates of active documents; one in a rollout is not checked yet."""
    return {
        (state.stack, state.environment): state.document.edge.certificate
        for state in states
        if state.generations and state.document and state.document.edge
        if state.document.edge.certificate is not None
    }


def hosts(states: Iterable[EnvironmentState]) -> frozenset[str]:
    """Return the host names that these certificates are used for."""
    states = list(states)
    chosen = wanted(states)
    found: set[str] = set()
    for state in states:
        certificate = chosen.get((state.stack, state.environment))
        if certificate is not None and state.document is not None:
            found.update(x509.covered(certificate.chain, state.document.hosts))
    return frozenset(found)


def contents(
    chosen: Mapping[Key, Certificate], folder: Path, secrets: SecretStore
) -> dict[Path, bytes]:
    """Return the files for Envoy, each with a key and its chain.

    If the key was removed from the store, that in the file is kept, if there is one.
    """
    found = {}
    for (stack, environment), certificate in sorted(chosen.items()):
        path = folder / f"{stack}.{environment}.pem"
        try:
            key = secrets.get(stack, environment, certificate.key.secret, certificate.key.version)
            found[path] = f"{key.rstrip()}\n{certificate.chain}".encode()
        except SecretError:
            if is_usable(path):
                found[path] = path.read_bytes()
    return found


def is_usable(path: Path) -> bool:
    """Return whether Envoy can load a file."""
    try:
        text = path.read_text()
    except (OSError, ValueError):
        return False
    return x509.find_fault(text, text, ()) is None


def check(document: Document, states: Iterable[EnvironmentState], secrets: SecretStore) -> None:
    """Check the certificate of a document before it is deployed. Raises ReplicaError."""
    certificate = document.edge.certificate if document.edge else None
    if certificate is None:
        return
    key = (document.stack, document.environment)
    if len({*wanted(states), key}) > len(PROVIDED):
        raise ReplicaError(
            f"A machine can use only {len(PROVIDED)} certificates of `tls: {{certificate: FILE}}`.",
            hint="Use `tls: {acme: EMAIL}` here, or stop another "
            "environment (`lapwing down -e NAME`).",
        )
    secret = certificate.key.secret
    private = secrets.get(*key, secret, certificate.key.version)
    if fault := x509.find_fault(certificate.chain, private, document.public_hosts):
        raise ReplicaError(
            f"The certificate of `tls` cannot be used: {fault}.",
            hint=f"Replace it and its key (`lapwing secret set {secret} -e "
            f"{document.environment}`), and deploy again.",
        )


def problem(state: EnvironmentState) -> str | None:
    """Return a message if the certificate of an environment expires soon, otherwise None."""
    certificate = wanted([state]).get((state.stack, state.environment))
    if certificate is None:
        return None
    ends = x509.expiry(certificate.chain)
    if ends - datetime.datetime.now(datetime.UTC) >= datetime.timedelta(days=WARN_DAYS):
        return None
    return (
        f"The certificate of {state.stack}/{state.environment} is valid until {ends:%Y-%m-%d}. "
        f"Replace its file and its key (`lapwing secret set {certificate.key.secret} -e "
        f"{state.environment}`), and deploy again."
    )
