"""MongoDB Atlas: for each database a project, a cluster with backups, and a private endpoint.

The endpoint is port-mapped: one address and one forwarding rule, whatever the number of nodes
(https://www.mongodb.com/docs/atlas/security-private-endpoint/). Database users are not here: their
passwords would be in Terraform's state.
"""

from __future__ import annotations

from lapwing.render.terraform.cloud import Project, databases
from lapwing.render.terraform.template import Body, literal, merge, render
from lapwing.stack.cloud import atlas_region
from lapwing.stack.model import Resource

_TIER, _MAX_TIER = "M10", "M30"
_GIB = 2**30
_MIN_DISK_GIB = 10
"""The smallest disk of the smallest dedicated tier."""


def atlas(project: Project) -> Body:
    """Render the databases of every environment of a project."""
    return merge(
        *(
            _database(project, f"{loaded.environment}-{name}", resource, loaded.environment)
            for loaded in project.environments
            for name, resource in databases(loaded).items()
        )
    )


def _database(project: Project, name: str, resource: Resource, environment: str) -> Body:
    body = render(
        "database",
        project,
        name=name,
        version=literal(_major(resource.version)) if resource.version else None,
        backup=resource.backup,
        protected=environment == project.folder,
        regions=_regions(project, resource),
    )
    if not resource.backup:
        del body["resource"]["mongodbatlas_cloud_backup_schedule"]
    return body


def _regions(project: Project, resource: Resource) -> list[Body]:
    tier = resource.tier or _TIER
    disk = max(_MIN_DISK_GIB, -(-(resource.storage or 0) // _GIB))
    size = {"instance_size": tier, "node_count": 3, "disk_size_gb": disk}
    scaling: Body = {"disk_gb_enabled": True, "compute_enabled": False}
    if tier != "M0":
        scaling = {
            "disk_gb_enabled": True,
            "compute_enabled": True,
            "compute_scale_down_enabled": True,
            "compute_min_instance_size": tier,
            "compute_max_instance_size": resource.max_tier or max(tier, _MAX_TIER, key=_rank),
        }
    first: Body = {
        "provider_name": "GCP",
        "region_name": atlas_region(project.region),
        "priority": 7,
        "electable_specs": size,
        "auto_scaling": scaling,
    }
    if not resource.replica_region:
        return [first]
    second = {
        "region_name": atlas_region(resource.replica_region),
        "priority": 6,
        "electable_specs": {**size, "node_count": 2},
    }
    return [first, {**first, **second}]


def _major(version: str) -> str:
    """Complete a version for Atlas: `8` becomes `8.0`."""
    parts = version.split(".")
    return ".".join((*parts, "0")[:2])


def _rank(tier: str) -> int:
    return int(tier.removeprefix("M"))
