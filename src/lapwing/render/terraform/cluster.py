"""Around the cluster of a project: the firewall, secrets, and the access of backups."""

from __future__ import annotations

from lapwing.plan.names import EXTERNAL_SECRETS
from lapwing.render.addresses import ATLAS_PORTS
from lapwing.render.terraform.cloud import (
    Project,
    buckets,
    databases,
    internet_ports,
    managed,
    secrets,
)
from lapwing.render.terraform.template import Body, merge, render
from lapwing.stack.cloud import is_free_tier
from lapwing.stack.resource_reference import PORTS


def firewall(project: Project) -> Body:
    """Render a firewall that denies ingress and egress except for required connections."""
    kinds = {r.kind for e in project.environments for r in managed(e).values()}
    ports, atlas = sorted(str(PORTS[kind]) for kind in kinds), "-".join(map(str, ATLAS_PORTS))
    body = render("firewall", project, ports=ports, atlas=atlas, internet=internet_ports(project))
    rules = body["resource"]["google_compute_firewall"]
    if not kinds:
        del rules["allow_out_databases"]
    if not any(is_free_tier(r) for e in project.environments for r in databases(e).values()):
        del rules["allow_out_atlas"]
    if not project.all_domains:
        del rules["allow_in_load_balancer"]
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


def backups(project: Project) -> Body:
    """Render the access of backups to their buckets in Cloud Storage."""
    return merge(
        *(
            render(
                "backups",
                project,
                name=f"{environment}-backup",
                bucket=bucket,
                environment=environment,
            )
            for environment, bucket in buckets(project).items()
        )
    )
