"""Around the cluster of a project: the firewall, and the secrets in Secret Manager."""

from __future__ import annotations

from lapwing.render.terraform.cloud import Project, secrets
from lapwing.render.terraform.template import Body, merge, render


def firewall(project: Project) -> Body:
    """Render a firewall that denies ingress and egress except for required connections."""
    body = render("firewall", project)
    if not project.domains:
        del body["resource"]["google_compute_firewall"]["allow_in_load_balancer"]
    return body


def secret_manager(project: Project) -> Body:
    """Render a secret for each name in the stack file, without a value."""
    names = [
        (f"{loaded.stack.stack}-{loaded.environment}-{secret}", loaded.environment)
        for loaded in project.environments
        for secret in secrets(loaded)
    ]
    return merge(
        *(render("secrets", project, secret=name, environment=where) for name, where in names)
    )
