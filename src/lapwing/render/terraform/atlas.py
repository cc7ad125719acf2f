"""MongoDB Atlas: for each database a project, a cluster with backups, and a private endpoint.

The endpoint is port-mapped: one address and one forwarding rule, whatever the number of nodes. The
free tier has neither endpoint nor backups: it accepts connections of the NAT gateway. Database
users are not here: their passwords would be in Terraform's state.

Sources: https://www.mongodb.com/docs/atlas/security-private-endpoint/,
https://www.mongodb.com/docs/atlas/reference/free-shared-limitations/ and "Auto-Scaling with
Effective Fields" of the provider's documentation of mongodbatlas_advanced_cluster (since 2.3).
"""

from __future__ import annotations

from lapwing.render.terraform.cloud import Project, databases
from lapwing.render.terraform.template import Body, literal, merge, render
from lapwing.stack.cloud import DEFAULT_TIER, FREE_TIER, atlas_region, is_free_tier
from lapwing.stack.model import Resource

_MAX_TIER = "M30"
_ABOUT = (
    "Three nodes in three zones. Auto-scaling changes the tier and the disk within its limits. "
    "With effective fields, Terraform does not revert that. A second region, if any, is for "
    "failover."
)
_ABOUT_FREE = (
    "The free tier: three nodes and 512 MB that are shared with others, without backups and a "
    "private endpoint, and only in some regions."
)
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
    public = is_free_tier(resource)
    backup = resource.backup and not public
    body = render(
        "database",
        project,
        name=name,
        about=_ABOUT_FREE if public else _ABOUT,
        reachable="public" if public else "private",
        version=literal(_major(resource.version)) if resource.version else None,
        backup=backup,
        protected=environment == project.folder,
        regions=[_free(project)] if public else _regions(project, resource),
        scales=None if public else True,
    )
    if not backup:
        del body["resource"]["mongodbatlas_cloud_backup_schedule"]
    endpoint = "database_public" if public else "database_private"
    return merge(body, render(endpoint, project, name=name))


def _free(project: Project) -> Body:
    """Render the free tier: Atlas chooses the number of nodes, the disk and the version."""
    return {
        "provider_name": "TENANT",
        "backing_provider_name": "GCP",
        "region_name": atlas_region(project.region),
        "priority": 7,
        "electable_specs": {"instance_size": FREE_TIER},
    }


def _regions(project: Project, resource: Resource) -> list[Body]:
    tier = resource.tier or DEFAULT_TIER
    disk = max(_MIN_DISK_GIB, -(-(resource.storage or 0) // _GIB))
    size = {"instance_size": tier, "node_count": 3, "disk_size_gb": disk}
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
