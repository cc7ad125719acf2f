"""What environments share: the bucket of states, the registry, the identity of CI, DNS zones."""

from __future__ import annotations

from lapwing.render.terraform.cloud import Project, zones
from lapwing.render.terraform.foundation import PROJECT, Body, bucket

REGISTRY = "images"
"""The name of the one registry."""
DEPLOYED = "deployed-"
"""The prefix of tags that keep their image, such as `deployed-production`."""
_DAY = 86400
_KEPT = 10


def state(project: Project) -> Body:
    """Render the bucket that holds the state of every root."""
    return {
        "resource": {
            "google_storage_bucket": {
                "state": {
                    "//": [
                        "States contain names and identities, but no secrets: Terraform does not "
                        "set their values.",
                        "checkov:skip=CKV_GCP_62:Cloud Audit Logs record changes; a second "
                        "bucket of access logs would have to log itself.",
                        "checkov:skip=CKV_GCP_63:It has no access logs, so none that go to itself.",
                    ],
                    "name": bucket(project),
                    "project": PROJECT,
                    "location": project.region.upper(),
                    "storage_class": "STANDARD",
                    "uniform_bucket_level_access": True,
                    "public_access_prevention": "enforced",
                    "force_destroy": False,
                    "versioning": {"enabled": True},
                    "lifecycle_rule": [
                        {
                            "condition": {"num_newer_versions": 30, "with_state": "ARCHIVED"},
                            "action": {"type": "Delete"},
                        }
                    ],
                    "lifecycle": {"prevent_destroy": True},
                    "depends_on": ["google_project_service.storage"],
                }
            }
        }
    }


def registry(project: Project) -> Body:
    """Render one registry for all environments: an image is promoted, not rebuilt."""
    return {
        "resource": {
            "google_artifact_registry_repository": {
                "images": {
                    "//": [
                        "Kept are the newest ten versions of each image, and those with a tag "
                        "that begins with `deployed-`: what runs, and rollback targets. Other "
                        "tagged images are deleted only if `collect_tagged` is true, because "
                        "that needs deployments to set those tags.",
                        "checkov:skip=CKV_GCP_84:Google's keys encrypt it; a customer-managed key "
                        "has costs and risks that only a regulation justifies.",
                    ],
                    "project": PROJECT,
                    "location": project.region,
                    "repository_id": REGISTRY,
                    "description": f"Images of {project.stack}.",
                    "format": "DOCKER",
                    "cleanup_policy_dry_run": False,
                    "cleanup_policies": [
                        {
                            "id": "collect-untagged",
                            "action": "DELETE",
                            "condition": {"tag_state": "UNTAGGED", "older_than": f"{30 * _DAY}s"},
                        },
                        {
                            "id": "keep-newest",
                            "action": "KEEP",
                            "most_recent_versions": {"keep_count": _KEPT},
                        },
                        {
                            "id": "keep-deployed",
                            "action": "KEEP",
                            "condition": {"tag_state": "TAGGED", "tag_prefixes": [DEPLOYED]},
                        },
                    ],
                    "dynamic": {
                        "cleanup_policies": {
                            "for_each": '${toset(var.collect_tagged ? ["collect-tagged"] : [])}',
                            "content": {
                                "id": "${cleanup_policies.value}",
                                "action": "DELETE",
                                "condition": {
                                    "tag_state": "TAGGED",
                                    "older_than": f"{30 * _DAY}s",
                                },
                            },
                        }
                    },
                    "vulnerability_scanning_config": {"enablement_config": "INHERITED"},
                    "depends_on": [
                        "google_project_service.artifactregistry",
                        "google_project_service.containerscanning",
                    ],
                }
            }
        },
        "output": {
            "registry": {
                "description": "The prefix of every image name.",
                "value": f"{project.region}-docker.pkg.dev/{project.identity}/{REGISTRY}",
            }
        },
    }


def ci(project: Project) -> Body:
    """Render the identity of CI: a service account without a key that may only push images.

    Users have no permission to push.
    """
    member = (
        "principal://iam.googleapis.com/${google_iam_workload_identity_pool.ci.name}"
        "/subject/${var.ci_subject}"
    )
    return {
        "resource": {
            "google_iam_workload_identity_pool": {
                "ci": {
                    "project": PROJECT,
                    "workload_identity_pool_id": "ci",
                    "display_name": "CI of the forge",
                    "depends_on": ["google_project_service.iam", "google_project_service.sts"],
                }
            },
            "google_iam_workload_identity_pool_provider": {
                "ci": {
                    "//": "Only tokens of one branch of one repository are accepted, so that a "
                    "pull request cannot push an image.",
                    "project": PROJECT,
                    "workload_identity_pool_id": "${google_iam_workload_identity_pool.ci"
                    ".workload_identity_pool_id}",
                    "workload_identity_pool_provider_id": "forge",
                    "attribute_mapping": {"google.subject": "assertion.sub"},
                    "attribute_condition": "assertion.sub == '${var.ci_subject}'",
                    "oidc": {"issuer_uri": "${var.ci_issuer}"},
                }
            },
            "google_service_account": {
                "ci": {
                    "project": PROJECT,
                    "account_id": "ci",
                    "display_name": "Builds and pushes images",
                }
            },
            "google_service_account_iam_member": {
                "ci": {
                    "service_account_id": "${google_service_account.ci.name}",
                    "role": "roles/iam.workloadIdentityUser",
                    "member": member,
                }
            },
            "google_artifact_registry_repository_iam_member": {
                "ci": {
                    "project": PROJECT,
                    "location": project.region,
                    "repository": "${google_artifact_registry_repository.images.name}",
                    "role": "roles/artifactregistry.writer",
                    "member": "${google_service_account.ci.member}",
                }
            },
        },
        "output": {
            "ci_provider": {
                "description": "The provider that exchanges the token of the pipeline.",
                "value": "${google_iam_workload_identity_pool_provider.ci.name}",
            },
            "ci_service_account": {
                "description": "The service account of the pipeline.",
                "value": "${google_service_account.ci.email}",
            },
        },
    }


def dns(project: Project) -> Body | None:
    """Render a zone for each domain; its parent zone has to delegate to the name servers."""
    found = zones([domain for _, domain in project.domains])
    if not found:
        return None
    return {
        "resource": {
            "google_dns_managed_zone": {
                zone.name: {
                    "project": PROJECT,
                    "name": zone.name,
                    "dns_name": f"{zone.domain}.",
                    "description": f"DNS zone of {project.stack}.",
                    "dnssec_config": {
                        "state": "on",
                        "default_key_specs": [
                            {"algorithm": "ecdsap256sha256", "key_length": 256, "key_type": kind}
                            for kind in ("keySigning", "zoneSigning")
                        ],
                    },
                    "depends_on": ["google_project_service.dns"],
                }
                for zone in found
            }
        },
        "output": {
            "name_servers": {
                "description": "Delegate each domain to these name servers in its parent zone.",
                "value": {
                    zone.domain: f"${{google_dns_managed_zone.{zone.name}.name_servers}}"
                    for zone in found
                },
            }
        },
    }
