"""MongoDB Atlas: for each database a project, a cluster with backups, and a private endpoint.

The endpoint is port-mapped: one address and one forwarding rule, whatever the number of nodes
(https://www.mongodb.com/docs/atlas/security-private-endpoint/). Database users are not here: their
passwords would be in Terraform's state.
"""

from __future__ import annotations

from typing import Any

from lapwing.render.terraform.cloud import Project, databases
from lapwing.render.terraform.foundation import PROJECT, Body, has_database, literal
from lapwing.stack.cloud import atlas_region
from lapwing.stack.model import Resource

_TIER, _MAX_TIER = "M10", "M30"
_GIB = 2**30
_MIN_DISK_GIB = 10
"""The smallest disk of the smallest dedicated tier."""


def atlas(project: Project) -> Body | None:
    """Render the databases of every environment of a project; None if no service needs one."""
    if not has_database(project):
        return None
    resources: dict[str, dict[str, Any]] = {}
    outputs: Body = {}
    for loaded in project.environments:
        for name, resource in databases(loaded).items():
            whole = f"{loaded.environment}-{name}"
            protected = loaded.environment == project.folder
            for kind, body in _database(project, whole, resource, protected).items():
                resources.setdefault(kind, {})[whole] = body
            outputs[f"{whole}_connection"] = {
                "description": "Connection strings without user and password. Only the private "
                "endpoint is reachable.",
                "value": f"${{mongodbatlas_advanced_cluster.{whole}.connection_strings}}",
            }
    return {"resource": resources, "output": outputs}


def _database(project: Project, name: str, resource: Resource, protected: bool) -> Body:
    here = f"${{mongodbatlas_project.{name}.id}}"
    found: Body = {
        "mongodbatlas_project": {
            "//": "One project for each database: private endpoints are a project's.",
            "name": f"{project.stack}-{name}",
            "org_id": "${var.atlas_organization_id}",
            "is_collect_database_specifics_statistics_enabled": True,
            "is_data_explorer_enabled": False,
        },
        "mongodbatlas_advanced_cluster": _cluster(project, name, resource, here, protected),
    }
    if resource.backup:
        found["mongodbatlas_cloud_backup_schedule"] = {
            "project_id": here,
            "cluster_name": f"${{mongodbatlas_advanced_cluster.{name}.name}}",
            "reference_hour_of_day": 3,
            "reference_minute_of_hour": 0,
            "restore_window_days": 7,
            "policy_item_daily": {
                "frequency_interval": 1,
                "retention_unit": "days",
                "retention_value": 7,
            },
            "policy_item_weekly": [
                {"frequency_interval": 6, "retention_unit": "weeks", "retention_value": 4}
            ],
            "policy_item_monthly": [
                {"frequency_interval": 40, "retention_unit": "months", "retention_value": 12}
            ],
        }
    return {**found, **_endpoint(project, name, here)}


def _cluster(project: Project, name: str, resource: Resource, here: str, protected: bool) -> Body:
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
    config: Body = {
        "provider_name": "GCP",
        "region_name": atlas_region(project.region),
        "priority": 7,
        "electable_specs": size,
        "auto_scaling": scaling,
    }
    configs = [config]
    if resource.replica_region:
        configs.append(
            {
                **config,
                "region_name": atlas_region(resource.replica_region),
                "priority": 6,
                "electable_specs": {**size, "node_count": 2},
            }
        )
    body: Body = {
        "//": "Three nodes in three zones. Auto-scaling changes the tier within its limits, so "
        "Terraform ignores changes of it. A second region, if any, is for failover.",
        "project_id": here,
        "name": name,
        "cluster_type": "REPLICASET",
        "backup_enabled": resource.backup,
        "pit_enabled": resource.backup,
        "termination_protection_enabled": protected,
    }
    if resource.version:
        body["mongo_db_major_version"] = literal(_major(resource.version))
    body["replication_specs"] = [{"region_configs": configs}]
    body["lifecycle"] = {"ignore_changes": ["replication_specs"]}
    return body


def _endpoint(project: Project, name: str, here: str) -> Body:
    service = f"mongodbatlas_privatelink_endpoint.{name}"
    address = f"google_compute_address.{name}"
    return {
        "mongodbatlas_privatelink_endpoint": {
            "project_id": here,
            "provider_name": "GCP",
            "region": project.region,
            "port_mapping_enabled": True,
        },
        "google_compute_address": {
            "project": PROJECT,
            "region": project.region,
            "name": f"mongodb-{name}",
            "address_type": "INTERNAL",
            "subnetwork": "${google_compute_subnetwork.nodes.id}",
        },
        "google_compute_forwarding_rule": {
            "project": PROJECT,
            "region": project.region,
            "name": f"mongodb-{name}",
            "network": "${google_compute_network.main.id}",
            "load_balancing_scheme": "",
            "ip_address": f"${{{address}.id}}",
            "target": f"${{{service}.service_attachment_names[0]}}",
        },
        "mongodbatlas_privatelink_endpoint_service": {
            "project_id": here,
            "provider_name": "GCP",
            "private_link_id": f"${{{service}.private_link_id}}",
            "endpoint_service_id": f"${{google_compute_forwarding_rule.{name}.name}}",
            "private_endpoint_ip_address": f"${{{address}.address}}",
            "gcp_project_id": PROJECT,
        },
    }


def _major(version: str) -> str:
    """Complete a version for Atlas: `8` becomes `8.0`."""
    parts = version.split(".")
    return ".".join((*parts, "0")[:2])


def _rank(tier: str) -> int:
    return int(tier.removeprefix("M"))
