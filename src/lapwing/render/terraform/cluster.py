"""Around the cluster of a project: the firewall, and the secrets in Secret Manager."""

from __future__ import annotations

from lapwing.plan.names import EXTERNAL_SECRETS
from lapwing.render.terraform.cloud import Project, internet_ports, managed, secrets
from lapwing.render.terraform.template import Body, merge, render
from lapwing.stack.resource_reference import PORTS


def firewall(project: Project) -> Body:
    """Render a firewall that denies ingress and egress except for required connections."""
    kinds = {r.kind for e in project.environments for r in managed(e).values()}
    ports = sorted(str(PORTS[kind]) for kind in kinds)
    body = render("firewall", project, ports=ports, internet=internet_ports(project))
    if not kinds:
        del body["resource"]["google_compute_firewall"]["allow_out_databases"]
    if not (project.domains or project.gke_domains):
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
        *(
            render("secrets", project, secret=name, environment=where, reader=EXTERNAL_SECRETS)
            for name, where in names
        )
    )
