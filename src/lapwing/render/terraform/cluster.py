"""The cluster of a project, who its nodes are, and the secrets that it may read. Pure."""

from __future__ import annotations

from lapwing.render.terraform.cloud import Project, secrets
from lapwing.render.terraform.foundation import Body
from lapwing.render.terraform.network import CONTROL_PLANE, NODE_TAG
from lapwing.render.terraform.shared import REGISTRY

_PROJECT = "${google_project.main.project_id}"


def cluster(project: Project) -> Body:
    """GKE Autopilot: private nodes, nobody at the control plane who is not on the list."""
    return {
        "resource": {
            "google_container_cluster": {
                "main": {
                    "//": [
                        "Autopilot: pods are paid for, not machines. Workload Identity, Shielded "
                        "Nodes and Dataplane V2, with NetworkPolicies, are always on.",
                        *_exceptions(),
                    ],
                    "project": _PROJECT,
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
    autopilot = "Autopilot sees to it by itself."
    checks = ("CKV_GCP_12", "CKV_GCP_13", "CKV_GCP_61", "CKV_GCP_68", "CKV_GCP_69")
    return [
        *(f"checkov:skip={check}:{autopilot}" for check in checks),
        "checkov:skip=CKV_GCP_65:Groups for RBAC need a Google Workspace domain, which a stack "
        "file does not know.",
        "checkov:skip=CKV_GCP_66:Binary Authorization needs attestors; Argo CD deploys by digest "
        "from one registry that only CI writes to.",
    ]


def identities(project: Project) -> Body:
    """Who nodes are: they write logs and metrics, and read images. Nothing else."""
    nodes = "${google_service_account.nodes.member}"
    return {
        "resource": {
            "google_service_account": {
                "nodes": {
                    "project": _PROJECT,
                    "account_id": "nodes",
                    "display_name": "Nodes of the cluster",
                }
            },
            "google_project_iam_member": {
                "nodes": {
                    "//": "Logs and metrics.",
                    "project": _PROJECT,
                    "role": "roles/container.defaultNodeServiceAccount",
                    "member": nodes,
                }
            },
            "google_artifact_registry_repository_iam_member": {
                "nodes": {
                    "//": "Nodes read images of the shared project and write none.",
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
    """A secret for each name that a service asks for, without a value: `gcloud secrets versions
    add` puts values in, so that none is in git or in Terraform's state. External Secrets in the
    cluster reads them, each by name."""
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
                    "//": "Who read which secret, and when.",
                    "project": _PROJECT,
                    "service": "secretmanager.googleapis.com",
                    "audit_log_config": [{"log_type": "DATA_READ"}, {"log_type": "DATA_WRITE"}],
                }
            },
            "google_secret_manager_secret": {
                name: {
                    "project": _PROJECT,
                    "secret_id": name,
                    "labels": {"environment": environment},
                    "replication": {"user_managed": {"replicas": [{"location": project.region}]}},
                    "depends_on": ["google_project_service.secretmanager"],
                }
                for name, environment in names
            },
            "google_secret_manager_secret_iam_member": {
                name: {
                    "project": _PROJECT,
                    "secret_id": f"${{google_secret_manager_secret.{name}.secret_id}}",
                    "role": "roles/secretmanager.secretAccessor",
                    "member": reader,
                    "depends_on": ["google_container_cluster.main"],
                }
                for name, _ in names
            },
        }
    }
