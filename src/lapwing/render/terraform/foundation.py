"""What every root begins with: versions, the place of its state, variables, the project itself.

The functions of this package each return the content of one file, in Terraform's JSON syntax
(https://developer.hashicorp.com/terraform/language/syntax/json). `//` is a comment there, inside
the body of a block; it must not be in the value of an attribute. Text from the stack file that is
not restricted to a pattern goes through `literal`.
"""

from __future__ import annotations

from typing import Any

from lapwing.plan.names import endpoint_group
from lapwing.render.terraform.cloud import SHARED, Project, databases

Body = dict[str, Any]
PROJECT = "${google_project.main.project_id}"

GOOGLE = "~> 6.50"
"""The version of the google provider that the tests validate against."""
ATLAS = "~> 2.9"
"""The first version of the mongodbatlas provider with the port-mapped endpoint."""

_SERVICES = {
    "artifactregistry": "the registry",
    "certificatemanager": "certificates of the load balancer",
    "compute": "the network and the load balancer",
    "container": "the cluster",
    "containerscanning": "image scanning",
    "billingbudgets": "budget alerts",
    "dns": "DNS zones",
    "iam": "service accounts",
    "iamcredentials": "tokens of service accounts",
    "secretmanager": "secrets",
    "storage": "the bucket of Terraform's states",
    "sts": "workload identity federation, without keys",
}


def named(name: str, **body: Any) -> Body:
    """Build the body of a resource of the project, with a name."""
    return {"project": PROJECT, "name": name, **body}


def literal(text: str) -> str:
    """Escape text of the stack file, which Terraform would read as a template otherwise."""
    return text.replace("${", "$${").replace("%{", "%%{")


def bucket(project: Project) -> str:
    """Return the name of the bucket of states, which follows from the shared project."""
    return f"{project.shared}-terraform-state"


def versions(project: Project) -> Body:
    """Render the versions of Terraform and of the providers."""
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
                "//": "The billing API needs a project whose quota it uses.",
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
            "MONGODB_ATLAS_CLIENT_SECRET; they are not in any file."
        }
    return body


def _google(project: Project) -> Body:
    return {
        "project": project.identity,
        "region": project.region,
        "default_labels": {"stack": project.stack, "managed-by": "lapwing"},
    }


def backend(project: Project) -> Body:
    """Render the backend of the state: a bucket of the shared project, versioned and locked."""
    first = (
        "Before the first apply the bucket does not exist: move this file away, run `terraform "
        "init` and `apply`, move it back, and run `terraform init -migrate-state`."
        if project.folder == SHARED
        else f"The root `{SHARED}`, which is applied first, creates the bucket."
    )
    place = {"bucket": bucket(project), "prefix": project.folder}
    return {"//": first, "terraform": {"backend": {"gcs": place}}}


def variables(project: Project) -> Body:
    """Render the variables: what is not in the stack file, such as the billing account."""
    found: Body = {
        "billing_account": {
            "type": "string",
            "description": "The id of the billing account, such as 000000-AAAAAA-000000.",
        },
        "folder_id": {
            "type": "string",
            "default": None,
            "description": "The folder of the organisation that contains the project, or null.",
        },
    }
    if project.folder == SHARED:
        found |= _variables_of_ci()
        return {"variable": found}
    found["authorized_networks"] = {
        "type": "map(string)",
        "default": {},
        "description": "Networks with access to the cluster's control plane: name to CIDR block. "
        "Empty: no access from outside Google Cloud.",
    }
    if project.domains:
        found["edge_zones"] = {
            "type": "map(set(string))",
            "default": {},
            "description": "The zones in which the cluster created the endpoint group of each "
            "environment's edge. Empty before the first deployment; afterwards, for each "
            f"environment, the output of: {_zones_of(project)}",
        }
        found["cloud_armor"] = {
            "type": "bool",
            "default": False,
            "description": "Whether Cloud Armor protects the load balancer. Each policy, rule and "
            "request is billed, so it is off until there is an attack.",
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
            "description": "Whether tagged images are deleted, too, if they are older than 30 "
            "days, not among the newest ten, and have no tag `deployed-...`. Set it only if every "
            "deployment sets such a tag: otherwise images in use would be deleted.",
        },
        "ci_issuer": {
            "type": "string",
            "default": "https://token.actions.githubusercontent.com",
            "description": "The issuer of the OpenID Connect tokens of the forge's CI.",
        },
        "ci_subject": {
            "type": "string",
            "description": "The subject (`sub`) of the tokens of the branch that may push images, "
            "for example repo:company/app:ref:refs/heads/main.",
        },
    }


def project(project: Project) -> Body:
    """Render the project and the Google services that it uses."""
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
                    "//": "checkov:skip=CKV2_GCP_5:Changes are always logged. Logs of reads, in "
                    "every service, are billed by the GiB; they are on for secrets.",
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
                    "project": PROJECT,
                    "service": f"{name}.googleapis.com",
                    "disable_on_destroy": False,
                }
                for name in sorted(services)
            },
        }
    }


def budget(project: Project) -> Body | None:
    """Render alerts at 50, 90 and 100 per cent of the budget, and for a forecast above it.

    They are sent to the administrators of the billing account.
    """
    if project.budget is None or project.folder == SHARED:
        return None
    dollars, cents = divmod(round(project.budget * 100), 100)
    amount: Body = {"currency_code": "USD", "units": str(dollars)}
    if cents:
        amount["nanos"] = cents * 10_000_000
    rules: list[Body] = [{"threshold_percent": part} for part in (0.5, 0.9, 1.0)]
    rules.append({"threshold_percent": 1.0, "spend_basis": "FORECASTED_SPEND"})
    return {
        "//": "A budget sends alerts; it stops nothing. MongoDB Atlas bills are not included.",
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
    """Report whether this root has a managed database."""
    return project.folder != SHARED and any(databases(e) for e in project.environments)
