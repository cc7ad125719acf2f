"""Sentences about security, each with the facts of the inventory under which it is true.

A sentence is written only if it holds for what is rendered, so the document cannot claim what does
not exist. To add one, add a row; `test_claims.py` compares the rows with the rendered files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lapwing.inventory.model import Environment, Inventory, StackInventory

Holds = Callable[[Environment, Inventory], bool]


@dataclass(frozen=True, slots=True)
class Claim:
    """A sentence, and whether it holds for an environment and its cloud project."""

    text: str
    holds: Holds


def _has_edge(environment: Environment) -> bool:
    return any(p.component == "edge" for p in environment.facts.pods)


SECURITY = (
    Claim(
        "Clients connect by HTTPS only, and Envoy is the only listener.",
        lambda e, _: e.project is None,
    ),
    Claim(
        "Ingress is HTTPS only: the load balancer requires TLS 1.2 or newer and connects to one "
        "port of the edge.",
        lambda _, project: bool(project.load_balancers),
    ),
    Claim(
        "Ingress is the Gateway or Ingress of the cluster, which connects to the edge.",
        lambda e, project: (
            e.project is not None and not project.load_balancers and bool(e.facts.load_balancers)
        ),
    ),
    Claim(
        "There is no load balancer, because no `domain` is set: the services cannot be reached "
        "from the internet.",
        lambda e, project: (
            e.project is not None
            and _has_edge(e)
            and not project.load_balancers
            and not e.facts.load_balancers
        ),
    ),
    Claim(
        "There is no ingress: no service has a route, so there is no load balancer.",
        lambda e, project: (
            e.project is not None and not _has_edge(e) and not project.load_balancers
        ),
    ),
    Claim(
        "The firewall denies ingress and egress by default; nodes have no public address, and the "
        "control plane accepts authorized networks only. Nodes can only pull images; CI can push "
        "images from one branch, with a short-lived token instead of a key.",
        lambda _, project: bool(project.clusters),
    ),
    Claim(
        "Secrets that are not generated are in Secret Manager, in one region, with access per "
        "secret; "
        "External Secrets copies them into the cluster.",
        lambda e, _: bool(e.facts.secret_reads),
    ),
    Claim(
        "Secrets are Kubernetes Secrets, which `lapwing deploy` creates from its encrypted store.",
        lambda e, _: e.deployed_by == "lapwing",
    ),
    Claim("Secrets are encrypted at rest.", lambda e, _: e.target == "machine"),
    Claim("No secret is in plain text in git, logs or command lines.", lambda _e, _p: True),
    Claim(
        "The database has no public endpoint; it is reached by a private endpoint.",
        lambda _, project: (
            bool(project.databases) and any(e.scope == "network" for e in project.endpoints)
        ),
    ),
)


def security(found: StackInventory) -> Iterator[str]:
    """Yield the sentences that hold for a stack in one environment."""
    [environment] = found.environments
    project = found.projects[0].facts if found.projects else Inventory()
    return (claim.text for claim in SECURITY if claim.holds(environment, project))
