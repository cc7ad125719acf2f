"""Host names of environments on one machine: each belongs to one of them, and has a certificate.

A deployment is checked against the desired state before the build, and again by the agent against
the running environments, because another deployment may have changed them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from lapwing.errors import StateError
from lapwing.plan.model import Document


def find_conflict(
    names: Collection[str], others: Iterable[tuple[str, Document]]
) -> tuple[str, str] | None:
    """Return one of these names that another environment uses, and that environment.

    `others` are documents with their environments. Names of previews count, too.
    """
    for owner, document in others:
        for name in document.with_previews:
            if name in names:
                return name, owner
    return None


def conflict_error(name: str, owner: str) -> StateError:
    """Return the error for a name that belongs to another environment (`STACK/ENVIRONMENT`)."""
    stack, _, environment = owner.partition("/")
    return StateError(
        f"Host name {name} is already used by {owner}.",
        hint="Remove it from `domains` and `redirects` here, or stop the other environment: run "
        f"`lapwing down -e {environment}` in the folder of the stack {stack}.",
    )


def describe_untrusted(document: Document) -> str | None:
    """Return which host names have the certificate of the machine's local authority only."""
    hosts = document.public_hosts
    if not hosts or not document.services or document.acme:
        return None
    if document.edge and document.edge.certificate is not None:
        return None
    return (
        f"Browsers do not trust the certificate of {', '.join(hosts)}: a local CA issued it. "
        f"Set `tls: {{acme: EMAIL}}` in `environments: {document.environment}` and deploy again."
    )
