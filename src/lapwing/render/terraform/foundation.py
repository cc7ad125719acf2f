"""What every root begins with: versions, the place of its state, variables, the project itself."""

from __future__ import annotations

from lapwing.plan.image_retention import ImageRetention
from lapwing.plan.names import endpoint_group
from lapwing.render.terraform.cloud import SHARED, Project, buckets, databases, managed
from lapwing.render.terraform.template import Body, render


def versions(project: Project) -> Body:
    """Render the versions of Terraform and of the providers."""
    write_only = project.folder != SHARED and any(map(managed, project.environments))
    body = render("versions", project, least="1.11.0" if write_only else "1.6.0")
    if project.budget is None or project.folder == SHARED:
        del body["provider"]["google"][1]
    if not has_database(project):
        del body["provider"]["mongodbatlas"]
        del body["terraform"]["required_providers"]["mongodbatlas"]
    if not has_password(project):
        del body["terraform"]["required_providers"]["random"]
    return body


def backend(project: Project) -> Body:
    """Render the backend of the state: a bucket of the shared project, versioned and locked."""
    first = (
        "Before the first apply the bucket does not exist: move this file away, run `terraform "
        "init` and `apply`, move it back, and run `terraform init -migrate-state`."
        if project.folder == SHARED
        else f"The root `{SHARED}`, which is applied first, creates the bucket."
    )
    return render("backend", project, first=first)


def registry(project: Project) -> Body:
    """Render the registry, with the clean-up policies of `lapwing image prune`."""
    policy = ImageRetention()
    return render(
        "registry", project, policies=policy.cleanup_policies(), tagged=policy.collect_tagged()
    )


def variables(project: Project) -> Body:
    """Render the variables: what is not in the stack file, such as the billing account."""
    needed = ["billing_account", "folder_id"]
    if project.folder == SHARED:
        needed += ["collect_tagged", "ci_issuer", "ci_subjects"]
    else:
        needed.append("authorized_networks")
        needed += ["edge_zones", "cloud_armor"] if project.domains else []
        needed += ["atlas_organization_id"] if has_database(project) else []
    variable = render("variables", project, commands=_zones_of(project))
    return {"variable": {name: variable[name] for name in needed}}


def _zones_of(project: Project) -> str:
    groups = [(e, endpoint_group(project.stack, e)) for e, _ in project.domains]
    return "; ".join(
        f"{environment}: gcloud compute network-endpoint-groups list --project {project.identity} "
        f"--filter name={group} --format 'value(zone.basename())'"
        for environment, group in groups
    )


def project(project: Project) -> Body:
    """Render the project and the Google services that it uses."""
    needed = {"compute", "container", "iam", "iamcredentials", "secretmanager"}
    if project.folder == SHARED:
        needed = {"artifactregistry", "containerscanning", "iam", "iamcredentials", "storage"}
        needed |= {"sts"} | ({"dns"} if project.all_domains else set())
    else:
        needed |= {"certificatemanager"} if project.certified_domains else set()
        needed |= {"billingbudgets"} if project.budget is not None else set()
        needed |= {"storage"} if buckets(project) else set()
        kinds = {r.kind for e in project.environments for r in managed(e).values()}
        needed |= {"servicenetworking"} if kinds else set()
        needed |= {"redis" if kind == "redis" else "sqladmin" for kind in kinds}
    body = render("project", project)
    services = body["resource"]["google_project_service"]
    body["resource"]["google_project_service"] = {n: s for n, s in services.items() if n in needed}
    return body


def budget(project: Project) -> Body | None:
    """Render alerts at 50, 90 and 100 per cent of the budget, and for a forecast above it.

    They are sent to the administrators of the billing account.
    """
    if project.budget is None or project.folder == SHARED:
        return None
    dollars, cents = divmod(round(project.budget * 100), 100)
    return render("budget", project, dollars=str(dollars), nanos=cents * 10_000_000 or None)


def has_password(project: Project) -> bool:
    """Report whether this root generates the password of a database of Cloud SQL."""
    kinds = (r.kind for e in project.environments for r in managed(e).values())
    return project.folder != SHARED and any(kind != "redis" for kind in kinds)


def has_database(project: Project) -> bool:
    """Report whether this root has a managed database."""
    return project.folder != SHARED and any(databases(e) for e in project.environments)
