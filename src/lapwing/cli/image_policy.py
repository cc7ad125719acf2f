"""`lapwing image policy`: print the policy by which a cluster runs signed images only."""

from __future__ import annotations

import click

from lapwing.cli.context import Context
from lapwing.cli.options import declared_environment_option


@click.command("policy")
@click.argument("kind", type=click.Choice(["kyverno", "sigstore"]))
@declared_environment_option
@click.pass_obj
def policy(context: Context, kind: str, environment: str) -> None:
    """Print an admission policy for clusters: only signed images of the stack's services run.

    It is a ClusterPolicy of Kyverno, or a ClusterImagePolicy of Sigstore's policy-controller, with
    the public key or the identity of `signing`. Apply it with `kubectl apply -f -`, as an
    administrator of the cluster. Lapwing itself does not.
    """
    from lapwing.render.image_policy import kyverno_policy, sigstore_policy

    render = {"kyverno": kyverno_policy, "sigstore": sigstore_policy}[kind]
    context.printer.data(render(context.load(environment)).rstrip("\n"))
