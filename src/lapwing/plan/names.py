"""Names, labels and annotations of the objects that an environment has in a cluster.

The renderer writes them and the Kubernetes client reads them back, so both take them from here and
neither imports the other.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

NAME = "app.kubernetes.io/name"
INSTANCE = "app.kubernetes.io/instance"
PART_OF = "app.kubernetes.io/part-of"
MANAGED_BY = "app.kubernetes.io/managed-by"
COMPONENT = "app.kubernetes.io/component"
VERSION = "app.kubernetes.io/version"
ENVIRONMENT = "lapwing.dev/environment"

OFFLINE_MIGRATION = "lapwing.dev/offline-migration-of"
"""Annotation of a migration that needs every connection closed: the service that it belongs to."""
STOPS = "lapwing.dev/stops"
"""Annotation: the services that use the same database, separated by spaces."""
BACKS_UP = "lapwing.dev/backs-up"
"""Annotation of a migration: the database in the cluster that is backed up before it. Of a CronJob:
the databases that it backs up, separated by spaces."""

TASK = "lapwing.dev/task"
"""Label: which task of an upgrade a pod or a Job is."""
PROBE = "probe"
"""The task that starts a version once, without traffic."""

MIGRATED_BY = "lapwing.dev/migrated-by"
"""Annotation of the volume of a database: the image whose offline migrations were run last."""

EDGE = "edge"
"""The name of the certificate map and of the TLS policy of a project, which Terraform creates."""

MAX_NAME_LENGTH = 63
"""Characters of a name that becomes a label or a host name, and of an endpoint group's name.
Source: RFC 1123; Google Cloud, "Standalone network endpoint groups"."""
EDGE_CERTIFICATE = "edge-tls"
"""The end of the name of the Secret with the certificate of the edge."""
EXTERNAL_SECRETS = "external-secrets"
"""The namespace and the service account of External Secrets; IAM allows it to read secrets."""
PULL_SECRET = "registry-login"  # noqa: S105 - the name of an object
"""The end of the name of the Secret with the logins of the registries of the images."""
FILES = (
    "namespace.yaml",
    "secrets.yaml",
    "network.yaml",
    "data.yaml",
    "jobs.yaml",
    "workloads.yaml",
    "edge.yaml",
    "front.yaml",
    "after.yaml",
)
"""The manifest files, one for each concern, in the order in which they are applied."""


@dataclass(frozen=True, slots=True)
class RequiredSecret:
    """A Secret that pods refer to.

    `part` ends its name. `keys` maps each key to the number of characters to generate, or to None
    for a value that users set under the name `variable`.
    """

    part: str
    keys: dict[str, int | None]
    variable: str | None = None

    @property
    def generated(self) -> dict[str, int]:
        """The keys whose values are generated, with the number of characters."""
        return {key: length for key, length in self.keys.items() if length is not None}


def secret_part(variable: str) -> str:
    """Return the end of the name of the Secret for a variable.

    Object names have no capitals, so a variable that is not all in capitals gets a digest, and two
    variables never share a Secret.
    """
    slug = variable.lower().replace("_", "-").strip("-")
    if slug.upper().replace("-", "_") != variable:
        slug = f"{slug}-{_digest(variable)}".lstrip("-")
    return f"secret-{slug}"


def dump_container(resource: str) -> str:
    """Return the name of the container that dumps a database: at most 45 characters.

    The prefix keeps it different from the other containers of backups, `store`, `fetch` and
    `server`, which a resource may be named too.
    """
    return f"dump-{resource}"


def edge_address(environment: str) -> str:
    """Return the name of the address, created by Terraform, of a load balancer of GKE."""
    return f"edge-{environment}"


def endpoint_group(stack: str, environment: str) -> str:
    """Return the name of the endpoint group between a Google Cloud load balancer and the edge.

    The cluster creates the group, as an annotation of the edge's Service asks for, and Terraform
    looks it up by name. Environments may share a project, so the name contains the environment.
    """
    name = f"{stack}-{environment}-edge"
    if len(name) <= MAX_NAME_LENGTH:
        return name
    return f"{name[: MAX_NAME_LENGTH - 9].rstrip('-')}-{_digest(name)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def split_digest(image: str) -> tuple[str, str]:
    """Return the name of an image and its digest, empty if the name does not determine the content.

    In the nodes of a local cluster, the digest is in the tag.
    """
    name, _, digest = re.sub(r":sha256-([0-9a-f]{64})$", r"@sha256:\1", image).partition("@")
    return name, digest


def release_of(image: str) -> str:
    """Return the release name of an image.

    It is the last part of the image's name, with its tag or the start of its digest.
    """
    name, digest = split_digest(image)
    last = name.rpartition("/")[2]
    if digest:
        return f"{last.partition(':')[0]}@{digest.partition(':')[2][:12]}"
    return last if ":" in last else f"{last}:latest"
