"""The document that a machine pulls: what only that machine knows is left to it.

CI has neither the values of secrets nor the database servers of the machine. In the document that
it commits, the version of a secret is `current` or `generate:LENGTH`, and a resource names its kind
and what the machine may use. `complete` fills in both on the machine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec.structs import replace

from lapwing.plan.make import resource
from lapwing.plan.model import Document, Resource, SecretVersion
from lapwing.stack.load import LoadedStack

CURRENT = "current"
"""The version of a secret that has to be set on the machine."""
GENERATE = re.compile(r"generate:(\d+)")
"""The version of a secret that the machine generates with this length, unless it is set."""


def secrets(loaded: LoadedStack) -> dict[str, str]:
    """Return the version of each secret of an environment as CI writes it."""
    tls = loaded.settings.tls
    names = [*loaded.basic_auth, *([tls.key] if tls is not None and tls.key else [])]
    found = dict.fromkeys(names, CURRENT)
    for service in loaded.stack.services.values():
        for secret in service.secrets:
            length = secret.generate
            found[secret.name] = CURRENT if length is None else f"generate:{length}"
    return found


def resources(loaded: LoadedStack) -> dict[str, Resource]:
    """Return the resources as CI writes them.

    The provider is `embedded` where the machine may use it, else `machine`.
    """
    return {
        name: replace(resource(name, wanted), provider="embedded" if wanted.embedded else "machine")
        for name, wanted in loaded.stack.resources.items()
    }


def secrets_of(document: Document) -> dict[str, str]:
    """Return the version of each secret that a document uses."""
    found = {users.secret: users.version for users in document.basic_auth}
    if document.edge and (certificate := document.edge.certificate):
        found[certificate.key.secret] = certificate.key.version
    for service in document.services.values():
        found |= service.secrets
    return found


def complete(
    document: Document, versions: Mapping[str, str], bound: Mapping[str, Resource]
) -> Document:
    """Return a document with the versions of secrets and the resources of this machine."""

    def find(given: SecretVersion) -> SecretVersion:
        return SecretVersion(secret=given.secret, version=versions[given.secret])

    document = document.replace_users(find)
    edge = document.edge
    if edge and (certificate := edge.certificate):
        edge = replace(edge, certificate=replace(certificate, key=find(certificate.key)))
    services = {
        name: replace(
            service,
            secrets={secret: versions[secret] for secret in service.secrets},
            needs={need: bound[need].binding() for need in service.needs},
        )
        for name, service in document.services.items()
    }
    return replace(document, edge=edge, services=services, resources=dict(bound))
