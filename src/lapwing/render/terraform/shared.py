"""What environments share: the bucket of states, the registry, CI's identity, DNS zones. Pure."""

from __future__ import annotations

from lapwing.render.terraform.cloud import Project, zones
from lapwing.render.terraform.foundation import Body, bucket

REGISTRY = "images"
"""The name of the one registry."""
DEPLOYED = "deployed-"
"""How a tag begins that keeps its image, such as `deployed-production`."""
_DAY = 86400
_KEPT = 10


def state(project: Project) -> Body:
    """The bucket that holds the state of every root."""
    return {
        "resource": {
            "google_storage_bucket": {
                "state": {
                    "//": [
                        "States hold names and identities, and no secret: values of secrets are "
                        "not Terraform's business here.",
                        "checkov:skip=CKV_GCP_62:Cloud Audit Logs tell who changes it; a second "
                        "bucket of access logs would have to log itself.",
                        "checkov:skip=CKV_GCP_63:It writes no access logs, so it cannot log to "
                        "itself.",
                    ],
                    "name": bucket(project),
                    "project": "${google_project.main.project_id}",
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
    """One registry for all environments: an image is promoted, not built again."""
    return {
        "resource": {
            "google_artifact_registry_repository": {
                "images": {
                    "//": [
                        "The newest ten of each image stay, and so does whatever carries a tag "
                        "that begins with `deployed-`: what runs, and what can be rolled back to. "
                        "A registry cannot know that by itself, so it collects tagged images only "
                        "once `collect_tagged` says that deployments set those tags.",
                        "checkov:skip=CKV_GCP_84:Google's own keys encrypt it; a key of one's own "
                        "is worth its price and its danger only where a rule asks for it.",
                    ],
                    "project": "${google_project.main.project_id}",
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
                "description": "What the name of every image begins with.",
                "value": f"{project.region}-docker.pkg.dev/{project.identity}/{REGISTRY}",
            }
        },
    }


def ci(project: Project) -> Body:
    """Who CI is: a service account without a key, that may write to the registry and nothing
    else. People are not in the list: they do not push."""
    member = (
        "principal://iam.googleapis.com/${google_iam_workload_identity_pool.ci.name}"
        "/subject/${var.ci_subject}"
    )
    return {
        "resource": {
            "google_iam_workload_identity_pool": {
                "ci": {
                    "project": "${google_project.main.project_id}",
                    "workload_identity_pool_id": "ci",
                    "display_name": "CI of the forge",
                    "depends_on": ["google_project_service.iam", "google_project_service.sts"],
                }
            },
            "google_iam_workload_identity_pool_provider": {
                "ci": {
                    "//": "A token counts only if it is for one branch of one repository, so that "
                    "a pull request cannot push an image.",
                    "project": "${google_project.main.project_id}",
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
                    "project": "${google_project.main.project_id}",
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
                    "project": "${google_project.main.project_id}",
                    "location": project.region,
                    "repository": "${google_artifact_registry_repository.images.name}",
                    "role": "roles/artifactregistry.writer",
                    "member": "${google_service_account.ci.member}",
                }
            },
        },
        "output": {
            "ci_provider": {
                "description": "The provider that the pipeline exchanges its token with.",
                "value": "${google_iam_workload_identity_pool_provider.ci.name}",
            },
            "ci_service_account": {
                "description": "The service account that the pipeline becomes.",
                "value": "${google_service_account.ci.email}",
            },
        },
    }


def dns(project: Project) -> Body | None:
    """A zone for each domain. The zone above it has to delegate to the name servers."""
    found = zones([domain for _, domain in project.domains])
    if not found:
        return None
    return {
        "resource": {
            "google_dns_managed_zone": {
                zone.name: {
                    "project": "${google_project.main.project_id}",
                    "name": zone.name,
                    "dns_name": f"{zone.domain}.",
                    "description": f"Names of {project.stack}.",
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
                "description": "Delegate each domain to these in the zone above it.",
                "value": {
                    zone.domain: f"${{google_dns_managed_zone.{zone.name}.name_servers}}"
                    for zone in found
                },
            }
        },
    }
