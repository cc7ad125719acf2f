"""Names that a cloud prescribes: regions, project ids, cluster tiers.

The regions are in `regions.toml`, with their source and date. A region that is not listed is
refused: otherwise `terraform apply` would be the first to notice a typing error. Clouds open new
regions; `new_region: true` of a `cloud` accepts one that this version does not list.
"""

from __future__ import annotations

import functools
import tomllib
from typing import TYPE_CHECKING, Any

from lapwing.system import package_data

if TYPE_CHECKING:
    from lapwing.stack.environment import Environment
    from lapwing.stack.model import Resource, Stack

PROJECT_ID = r"[a-z][a-z0-9-]{4,28}[a-z0-9]"
"""A project id of Google Cloud: 6 to 30 of these."""
REGION = r"[a-z]+(-[a-z]+)+[0-9]+"
TIERS = ("M0", "M10", "M20", "M30", "M40", "M50", "M60", "M80", "M140", "M200", "M300")
"""Cluster tiers of MongoDB Atlas on Google Cloud, the smallest first (Atlas: Cluster Tier)."""
DEFAULT_TIER = "M10"
FREE_TIER = "M0"
_AREAS = {
    "northamerica": "north_america",
    "southamerica": "south_america",
    "me": "middle_east",
}


@functools.cache
def _data() -> dict[str, Any]:
    return tomllib.loads(package_data.read("stack", "regions.toml"))


def gcp_regions() -> tuple[str, ...]:
    """List the regions of Google Cloud."""
    return tuple(_data()["gcp"]["regions"])


def atlas_region(region: str) -> str:
    """Return Atlas's name of a Google Cloud region: EUROPE_WEST_3 for `europe-west3`."""
    names: dict[str, str] = _data()["atlas"]["names"]
    if region in names:
        return names[region]
    area, _, rest = region.partition("-")
    zone = rest.rstrip("0123456789")
    return f"{_AREAS.get(area, area)}_{zone}_{rest[len(zone) :]}".replace("-", "_").upper()


def project_of(stack: Stack, environment: str) -> str:
    """Return the project id of an environment that has a cloud."""
    cloud = stack.environments[environment].cloud
    return (cloud.project if cloud else None) or f"{stack.stack}-{environment}"


def shared_project_of(stack: Stack) -> str:
    """Return the id of the project for what all environments share."""
    clouds = (e.cloud for e in stack.environments.values() if e.cloud)
    return next((c.shared_project for c in clouds if c.shared_project), f"{stack.stack}-shared")


def registry_of(stack: Stack, environment: Environment) -> str | None:
    """Return where images of services are, as HOST/FOLDER; None if it is not set.

    It is the one of the environment, of the stack, or in a cloud the one that `lapwing infra`
    creates, in the region of the first environment with a cloud.
    """
    found = environment.registry or stack.registry
    return found if found is not None or environment.cloud is None else cloud_registry(stack)


def cloud_registry(stack: Stack) -> str | None:
    """Return the registry that `lapwing infra` creates; None without a cloud."""
    regions = (e.cloud.region for e in stack.environments.values() if e.cloud)
    region = next(regions, None)
    return region and f"{region}-docker.pkg.dev/{shared_project_of(stack)}/images"


_VERSIONS = {
    "mysql": ("8.4", "MYSQL_{}_{}", {"5": "7", "8": "4"}, ("5.7", "8.0", "8.4")),
    "postgres": ("17", "POSTGRES_{}", {}, tuple(map(str, range(10, 18)))),
    "redis": ("7.2", "REDIS_{}_{}", {"7": "2"}, ("7.0", "7.2")),
}
"""By kind: the default version, Google's name, the newest minor versions, and the offered ones."""


def managed_versions(kind: str) -> tuple[str, ...]:
    """List the versions that Cloud SQL or Memorystore offers of a kind of resource."""
    return _VERSIONS[kind][3]


def managed_version(kind: str, version: str | None) -> str | None:
    """Return Google's name of a version, such as `POSTGRES_17`; None if it is not offered."""
    default, name, newest, offered = _VERSIONS[kind]
    parts = (version or default).split(".")
    if kind == "postgres":
        parts = parts[:1]
    elif len(parts) == 1:
        parts.append(newest.get(parts[0], "0"))
    return name.format(*parts) if ".".join(parts[:2]) in offered else None


def is_free_tier(resource: Resource) -> bool:
    """Return whether it is Atlas's free tier, which has no private endpoint and no backups."""
    return resource.kind == "mongodb" and resource.tier == FREE_TIER


def is_managed(resource: Resource, environment: Environment) -> bool:
    """Return whether a resource is operated outside of the cluster, by a cloud or by the team."""
    in_cloud = environment.cloud is not None and resource.kind == "mongodb"
    return environment.target == "kubernetes" and (resource.managed or in_cloud)
