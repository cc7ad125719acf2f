"""Errors of the Kubernetes API: what a failed request means, and what to do next."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from lapwing.errors import (
    ClusterError,
    ClusterLoginError,
    ClusterUnreachableError,
    KindMissingError,
    QuotaError,
)
from lapwing.kubernetes.kubeconfig import ClusterAccess

PROVIDERS = {
    "argoproj.io": "Argo Rollouts (and, for Application, Argo CD)",
    "external-secrets.io": "the External Secrets Operator",
    "gateway.networking.k8s.io": "the Gateway API's standard channel",
    "cert-manager.io": "cert-manager",
    "networking.gke.io": "Google Kubernetes Engine (it is part of the cluster there)",
    "cloud.google.com": "Google Kubernetes Engine (it is part of the cluster there)",
}
"""What installs the custom resource definitions of an API group."""


class FieldConflictError(ClusterError):
    """Fields to apply are owned by other field managers: `owners` maps manager to fields."""

    code = "field-conflict"

    def __init__(self, message: str, owners: Mapping[str, tuple[str, ...]]) -> None:
        """Keep the fields of each owner."""
        super().__init__(message)
        self.owners = owners


def unreachable(access: ClusterAccess, error: Exception) -> ClusterUnreachableError:
    """Build the error for an API server that cannot be reached."""
    hint = "Check that it is running and that the network reaches it, or name another context "
    hint += "with `--context NAME`."
    if access.local:
        hint = "Start it with `lapwing up -e NAME --create`, which creates a missing cluster, too."
    return ClusterUnreachableError(
        f"The API server of context {access.context!r} is unreachable at {access.server} "
        f"({type(error).__name__}).",
        hint=hint,
    )


def api_error(code: int, status: Mapping[str, Any], what: str) -> ClusterError:
    """Build the error for a `Status` that the API server returned for a request."""
    message = str(status.get("message") or f"status {code}").rstrip(".")
    causes = (status.get("details") or {}).get("causes") or ()
    made: ClusterError
    if code == 401:
        made = ClusterLoginError(
            "The API server rejected the credentials: authentication failed (401).",
            hint="Log in to the cluster again, or name another context with `--context NAME`.",
        )
    elif code == 409 and any(c.get("reason") == "FieldManagerConflict" for c in causes):
        made = FieldConflictError(f"{what}: {message}", _owners(causes))
    elif code == 403 and ("exceeded quota" in message or "LimitRange" in message):
        made = quota_error(what, message)
    elif code == 403:
        made = ClusterLoginError(
            f"Permission denied by the API server: {message}.",
            hint="Ask the cluster's administrator for this permission, or use another login.",
        )
    elif code == 404 and "namespaces" in message:
        made = ClusterError(
            f"{what}: {message}.",
            hint="The namespace may be terminating: check with `kubectl get namespaces`.",
        )
    else:
        made = ClusterError(f"{what}: {message}.")
    made.reason, made.status = str(status.get("reason") or ""), code
    return made


def quota_error(what: str, message: str) -> QuotaError:
    """Build the error for an exceeded quota, with the API server's own message."""
    found = re.search(r"(exceeded quota.*|.*LimitRange.*)", message)
    return QuotaError(
        f"{what}: {found.group(1) if found else message}.",
        hint="Ask for a larger quota, or lower `resources` and `replicas` in the stack file.",
    )


def _owners(causes: Any) -> dict[str, tuple[str, ...]]:
    owners: dict[str, list[str]] = {}
    for cause in causes:
        named = re.search(r'conflict with "([^"]+)"', str(cause.get("message")))
        owner = named.group(1) if named else "unknown"
        owners.setdefault(owner, []).append(str(cause.get("field", "")))
    return {owner: tuple(fields) for owner, fields in owners.items()}


def kind_missing(version: str, kind: str) -> KindMissingError:
    """Build the error for a kind that the cluster does not have, with what installs it."""
    group = version.partition("/")[0] if "/" in version else ""
    provider = PROVIDERS.get(group) or PROVIDERS.get(group.split(".", 1)[-1])
    hint = f"Install {provider} in the cluster first." if provider else None
    return KindMissingError(f"The cluster has no kind {kind} ({version}).", hint=hint)


def parse_status(text: str) -> Mapping[str, Any]:
    """Parse the `Status` of a failed request; a proxy's error page becomes its message."""
    try:
        found = json.loads(text)
    except ValueError:
        return {"message": text.strip()[:500]}
    return found if isinstance(found, dict) else {}
