"""What every root begins with: versions, where its state is, variables, the project itself. Pure.

The functions of this room each return the content of one file, as Terraform's JSON syntax has it
(https://developer.hashicorp.com/terraform/language/syntax/json). `//` is a comment there, inside
the body of a block; never put one inside the value of an attribute.
"""

from __future__ import annotations

from typing import Any

from lapwing.plan.names import endpoint_group
from lapwing.render.terraform.cloud import SHARED, Project, databases

Body = dict[str, Any]

GOOGLE = "~> 6.50"
"""The version of the google provider that the rendering was checked against."""
ATLAS = "~> 2.9"
"""The first version of the mongodbatlas provider whose documents have the port-mapped endpoint."""

_SERVICES = {
    "artifactregistry": "the registry",
    "certificatemanager": "certificates of the load balancer",
    "compute": "the network and the load balancer",
    "container": "the cluster",
    "containerscanning": "scanning of images",
    "billingbudgets": "budget alerts",
    "dns": "names",
    "iam": "service accounts",
    "iamcredentials": "tokens of service accounts",
    "secretmanager": "secrets",
    "storage": "the bucket of Terraform's states",
    "sts": "identities from outside, without keys",
}


def literal(text: str) -> str:
    """Escape text of the stack file, which Terraform would read as a template otherwise."""
    return text.replace("${", "$${").replace("%{", "%%{")


def bucket(project: Project) -> str:
    """The name of the bucket of states: that of the shared project, so that it is known before."""
    return f"{project.shared}-terraform-state"


def versions(project: Project) -> Body:
    """The versions of Terraform and of the providers."""
    providers = {"google": {"source": "hashicorp/google", "version": GOOGLE}}
    body: Body = {
        "//": f"The project {project.identity} of the stack {project.stack}. Works with Terraform "
        "and with OpenTofu.",
        "terraform": {"required_version": ">= 1.6.0", "required_providers": providers},
        "provider": {"google": [_google(project)]},
    }
    if project.budget is not None and project.folder != SHARED:
        body["provider"]["google"].append(
            {
                "//": "The billing service wants to know a project that its use is counted for.",
                "alias": "billing",
                "billing_project": project.identity,
                "user_project_override": True,
                **_google(project),
            }
        )
    if has_database(project):
        providers["mongodbatlas"] = {"source": "mongodb/mongodbatlas", "version": ATLAS}
        body["provider"]["mongodbatlas"] = {
            "//": "Reads its credentials from MONGODB_ATLAS_CLIENT_ID and "
            "MONGODB_ATLAS_CLIENT_SECRET; they are in no file."
        }
    return body


def _google(project: Project) -> Body:
    return {
        "project": project.identity,
        "region": project.region,
        "default_labels": {"stack": project.stack, "managed-by": "lapwing"},
    }


def backend(project: Project) -> Body:
    """Where the state is: in a bucket of the shared project, versioned and locked."""
    first = (
        "For the very first apply the bucket is not there yet: move this file away, run `terraform "
        "init` and `apply`, put it back, and run `terraform init -migrate-state`."
        if project.folder == SHARED
        else f"The bucket is made by the root `{SHARED}`, which is applied first."
    )
    place = {"bucket": bucket(project), "prefix": project.folder}
    return {"//": first, "terraform": {"backend": {"gcs": place}}}


def variables(project: Project) -> Body:
    """What the stack file cannot know: who pays, and who may reach the control plane."""
    found: Body = {
        "billing_account": {
            "type": "string",
            "description": "The id of the billing account, such as 000000-AAAAAA-000000.",
        },
        "folder_id": {
            "type": "string",
            "default": None,
            "description": "The folder of the organisation that holds the project; null for none.",
        },
    }
    if project.folder == SHARED:
        found |= _variables_of_ci()
        return {"variable": found}
    found["authorized_networks"] = {
        "type": "map(string)",
        "default": {},
        "description": "Networks that may reach the cluster's control plane: name to CIDR block. "
        "Empty: nobody from outside Google Cloud.",
    }
    if project.domains:
        found["edge_zones"] = {
            "type": "map(set(string))",
            "default": {},
            "description": "The zones in which the cluster has made the endpoint group of each "
            "environment's edge. Empty until it was deployed once; then, for each, the environment "
            f"and what this prints: {_zones_of(project)}",
        }
        found["cloud_armor"] = {
            "type": "bool",
            "default": False,
            "description": "Whether Cloud Armor stands before the load balancer. It has a price "
            "for each policy, rule and request, so it is off until somebody attacks.",
        }
    if has_database(project):
        found["atlas_organization_id"] = {
            "type": "string",
            "description": "The id of the organisation at MongoDB Atlas.",
        }
    return {"variable": found}


def _zones_of(project: Project) -> str:
    groups = [(e, endpoint_group(project.stack, e)) for e, _ in project.domains]
    return "; ".join(
        f"{environment}: gcloud compute network-endpoint-groups list --project {project.identity} "
        f"--filter name={group} --format 'value(zone.basename())'"
        for environment, group in groups
    )


def _variables_of_ci() -> Body:
    return {
        "collect_tagged": {
            "type": "bool",
            "default": False,
            "description": "Whether images with tags are collected, too, when they are older than "
            "30 days, not among the newest ten, and have no tag `deployed-...`. Only once every "
            "deployment sets such a tag: what runs would be deleted else.",
        },
        "ci_issuer": {
            "type": "string",
            "default": "https://token.actions.githubusercontent.com",
            "description": "The issuer of the OpenID Connect tokens of the forge's CI.",
        },
        "ci_subject": {
            "type": "string",
            "description": "The subject (`sub`) of the tokens of the branch that may push images, "
            "such as repo:company/app:ref:refs/heads/main.",
        },
    }


def project(project: Project) -> Body:
    """The project and the services that it uses."""
    services = ["compute", "container", "iam", "iamcredentials"]
    if project.folder == SHARED:
        services = ["artifactregistry", "containerscanning", "iam", "iamcredentials", "storage"]
        services += ["sts"] + (["dns"] if project.domains else [])
    elif project.domains:
        services.append("certificatemanager")
    if project.folder != SHARED:
        services.append("secretmanager")
    if project.budget is not None and project.folder != SHARED:
        services.append("billingbudgets")
    return {
        "resource": {
            "google_project": {
                "main": {
                    "//": "checkov:skip=CKV2_GCP_5:Who changes what is always logged. Logging who "
                    "reads what, in every service, is paid by the GiB; secrets have it on.",
                    "name": project.identity,
                    "project_id": project.identity,
                    "billing_account": "${var.billing_account}",
                    "folder_id": "${var.folder_id}",
                    "auto_create_network": False,
                    "deletion_policy": "PREVENT",
                    "labels": {"stack": project.stack, "part": project.folder},
                }
            },
            "google_project_service": {
                name: {
                    "//": f"For {_SERVICES[name]}.",
                    "project": "${google_project.main.project_id}",
                    "service": f"{name}.googleapis.com",
                    "disable_on_destroy": False,
                }
                for name in sorted(services)
            },
        }
    }


def budget(project: Project) -> Body | None:
    """Alerts at half, at nine tenths and at the whole of the budget, and when the month is
    forecast to end above it. They are sent to the administrators of the billing account."""
    if project.budget is None or project.folder == SHARED:
        return None
    dollars, cents = divmod(round(project.budget * 100), 100)
    amount: Body = {"currency_code": "USD", "units": str(dollars)}
    if cents:
        amount["nanos"] = cents * 10_000_000
    rules: list[Body] = [{"threshold_percent": part} for part in (0.5, 0.9, 1.0)]
    rules.append({"threshold_percent": 1.0, "spend_basis": "FORECASTED_SPEND"})
    return {
        "//": "A budget alerts; it does not stop anything. What MongoDB Atlas bills is not in it.",
        "resource": {
            "google_billing_budget": {
                "main": {
                    "provider": "google.billing",
                    "billing_account": "${var.billing_account}",
                    "display_name": project.identity,
                    "budget_filter": {
                        "projects": ["projects/${google_project.main.number}"],
                        "calendar_period": "MONTH",
                    },
                    "amount": {"specified_amount": amount},
                    "threshold_rules": rules,
                    "depends_on": ["google_project_service.billingbudgets"],
                }
            }
        },
    }


def has_database(project: Project) -> bool:
    """Whether a managed database is in this root."""
    return project.folder != SHARED and any(databases(e) for e in project.environments)
