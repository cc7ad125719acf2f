"""Dependencies of resources on the Google services that they need.

Creating a resource fails while its service is disabled, and a reference to the project does not
make Terraform wait for the service. So a resource that does not depend on its
`google_project_service`, directly or by other resources, gets a `depends_on`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

from lapwing.render.terraform.template import Body

SERVICES = {
    "google_artifact_registry": "artifactregistry",
    "google_billing_budget": "billingbudgets",
    "google_certificate_manager": "certificatemanager",
    "google_compute": "compute",
    "google_container": "container",
    "google_dns": "dns",
    "google_iam": "iam",
    "google_project_iam": "iam",
    "google_redis": "redis",
    "google_secret_manager": "secretmanager",
    "google_service_account": "iam",
    "google_service_networking": "servicenetworking",
    "google_sql": "sqladmin",
    "google_storage": "storage",
}
"""The service of each kind of resource, by the beginning of its name."""
_REFERENCE = re.compile(r"\b(google_\w+)\.([\w-]+)")
_Address = tuple[str, str]


def service_of(kind: str) -> str | None:
    """Return the service of a kind of resource; None for projects and other providers."""
    return next((s for prefix, s in SERVICES.items() if kind.startswith(prefix)), None)


def enable_first(files: Mapping[str, Body | None]) -> None:
    """Add missing dependencies on services to the resources of one root.

    A service that the root does not enable belongs to a project of another root.
    """
    resources = dict(_resources(files))
    uses = {a: set(_REFERENCE.findall(json.dumps(body))) for a, body in resources.items()}
    for (kind, name), body in resources.items():
        enabled = ("google_project_service", service_of(kind) or "")
        if enabled in resources and enabled not in _reachable((kind, name), uses):
            body.setdefault("depends_on", []).append(".".join(enabled))
            uses[kind, name].add(enabled)


def _resources(files: Mapping[str, Body | None]) -> Iterator[tuple[_Address, Body]]:
    for file in files.values():
        for kind, bodies in (file or {}).get("resource", {}).items():
            for name, body in bodies.items():
                yield (kind, name), body


def _reachable(start: _Address, uses: Mapping[_Address, set[_Address]]) -> set[_Address]:
    found: set[_Address] = set()
    waiting = [start]
    while waiting:
        new = uses.get(waiting.pop(), set()) - found
        found |= new
        waiting += new
    return found
