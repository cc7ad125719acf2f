"""The cluster of a project, the identity of its nodes, and the secrets in Secret Manager."""

from __future__ import annotations

from lapwing.render.terraform.cloud import Project, secrets
from lapwing.render.terraform.foundation import PROJECT, Body
from lapwing.render.terraform.network import CONTROL_PLANE, NODE_TAG
from lapwing.render.terraform.shared import REGISTRY


def cluster(project: Project) -> Body:
    """Render GKE Autopilot: private nodes, and an allow list for the control plane."""
    return {
        "resource": {
            "google_container_cluster": {
                "main": {
                    "//": [
                        "Autopilot: billed per pod, not per node. Workload Identity, Shielded "
                        "Nodes and Dataplane V2, with NetworkPolicies, are always on.",
                        *_exceptions(),
                    ],
                    "project": PROJECT,
                    "name": project.stack,
                    "location": project.region,
                    "enable_autopilot": True,
                    "deletion_protection": True,
                    "network": "${google_compute_network.main.id}",
                    "subnetwork": "${google_compute_subnetwork.nodes.id}",
                    "ip_allocation_policy": {
                        "cluster_secondary_range_name": "pods",
                        "services_secondary_range_name": "services",
                    },
                    "private_cluster_config": {
                        "enable_private_nodes": True,
                        "enable_private_endpoint": False,
                        "master_ipv4_cidr_block": CONTROL_PLANE,
                    },
                    "master_authorized_networks_config": {
                        "gcp_public_cidrs_access_enabled": False,
                        "dynamic": {
                            "cidr_blocks": {
                                "for_each": "${var.authorized_networks}",
                                "content": {
                                    "display_name": "${cidr_blocks.key}",
                                    "cidr_block": "${cidr_blocks.value}",
                                },
                            }
                        },
                    },
                    "release_channel": {"channel": "REGULAR"},
                    "maintenance_policy": {
                        "//": "Saturday and Sunday, 02:00 to 08:00 UTC.",
                        "recurring_window": {
                            "start_time": "2026-01-03T02:00:00Z",
                            "end_time": "2026-01-03T08:00:00Z",
                            "recurrence": "FREQ=WEEKLY;BYDAY=SA,SU",
                        },
                    },
                    "cluster_autoscaling": {
                        "auto_provisioning_defaults": {
                            "service_account": "${google_service_account.nodes.email}",
                            "oauth_scopes": [
                                "https://www.googleapis.com/auth/cloud-platform",
                            ],
                        }
                    },
                    "node_pool_auto_config": {"network_tags": {"tags": [NODE_TAG]}},
                    "gateway_api_config": {"channel": "CHANNEL_STANDARD"},
                    "security_posture_config": {
                        "mode": "BASIC",
                        "vulnerability_mode": "VULNERABILITY_DISABLED",
                    },
                    "resource_labels": {"stack": project.stack},
                    "depends_on": [
                        "google_project_service.container",
                        "google_compute_router_nat.main",
                        "google_project_iam_member.nodes",
                    ],
                }
            }
        },
        "output": {
            "cluster": {
                "description": "The cluster, for `gcloud container clusters get-credentials`.",
                "value": "${google_container_cluster.main.name}",
            }
        },
    }


def _exceptions() -> list[str]:
    autopilot = "Autopilot manages this."
    checks = ("CKV_GCP_12", "CKV_GCP_13", "CKV_GCP_61", "CKV_GCP_68", "CKV_GCP_69")
    return [
        *(f"checkov:skip={check}:{autopilot}" for check in checks),
        "checkov:skip=CKV_GCP_65:Groups for RBAC need a Google Workspace domain, which is "
        "not in the stack file.",
        "checkov:skip=CKV_GCP_66:Binary Authorization needs attestors; Argo CD deploys by digest "
        "from one registry that only CI writes to.",
    ]


def identities(project: Project) -> Body:
    """Render the identity of nodes: it writes logs and metrics, and reads images. Nothing else."""
    nodes = "${google_service_account.nodes.member}"
    return {
        "resource": {
            "google_service_account": {
                "nodes": {
                    "project": PROJECT,
                    "account_id": "nodes",
                    "display_name": "Nodes of the cluster",
                }
            },
            "google_project_iam_member": {
                "nodes": {
                    "//": "Logs and metrics.",
                    "project": PROJECT,
                    "role": "roles/container.defaultNodeServiceAccount",
                    "member": nodes,
                }
            },
            "google_artifact_registry_repository_iam_member": {
                "nodes": {
                    "//": "Nodes read images of the shared project and cannot write any.",
                    "project": project.shared,
                    "location": project.region,
                    "repository": REGISTRY,
                    "role": "roles/artifactregistry.reader",
                    "member": nodes,
                }
            },
        }
    }


def secret_manager(project: Project) -> Body | None:
    """Render a secret for each name in the stack file, without a value.

    `gcloud secrets versions add` sets values, so that none is in git or in Terraform's state.
    External Secrets in the cluster reads them, each by name.
    """
    names = [
        (f"{loaded.stack.stack}-{loaded.environment}-{secret}", loaded.environment)
        for loaded in project.environments
        for secret in secrets(loaded)
    ]
    if not names:
        return None
    reader = (
        "principal://iam.googleapis.com/projects/${google_project.main.number}/locations/global"
        "/workloadIdentityPools/${google_project.main.project_id}.svc.id.goog"
        "/subject/ns/external-secrets/sa/external-secrets"
    )
    return {
        "resource": {
            "google_project_iam_audit_config": {
                "secrets": {
                    "//": "Logs who reads which secret, and when.",
                    "project": PROJECT,
                    "service": "secretmanager.googleapis.com",
                    "audit_log_config": [{"log_type": "DATA_READ"}, {"log_type": "DATA_WRITE"}],
                }
            },
            "google_secret_manager_secret": {
                name: {
                    "project": PROJECT,
                    "secret_id": name,
                    "labels": {"environment": environment},
                    "replication": {"user_managed": {"replicas": [{"location": project.region}]}},
                    "depends_on": ["google_project_service.secretmanager"],
                }
                for name, environment in names
            },
            "google_secret_manager_secret_iam_member": {
                name: {
                    "project": PROJECT,
                    "secret_id": f"${{google_secret_manager_secret.{name}.secret_id}}",
                    "role": "roles/secretmanager.secretAccessor",
                    "member": reader,
                    "depends_on": ["google_container_cluster.main"],
                }
                for name, _ in names
            },
        }
    }
