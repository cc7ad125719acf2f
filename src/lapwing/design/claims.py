"""Sentences and labels with the facts of the inventory under which each is true.

A sentence is written only if it holds for what is rendered, so that no document can claim what does
not exist. To add one, add a row; `test_claims.py` evaluates every row for every golden stack and
compares the rows that have evidence with the rendered files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from lapwing.design.subject import Subject, addresses, joined

Holds = Callable[[Subject], bool]


@dataclass(frozen=True, slots=True)
class Claim:
    """A sentence or a label, and whether it holds for an environment."""

    text: str | Callable[[Subject], str]
    holds: Holds

    def __call__(self, subject: Subject) -> str:
        """Return the text with the values of an environment."""
        return self.text if isinstance(self.text, str) else self.text(subject)


def sentences(claims: Iterable[Claim], subject: Subject) -> Iterator[str]:
    """Yield the texts that hold for an environment."""
    return (claim(subject) for claim in claims if claim.holds(subject))


CLOUD = (
    Claim(
        lambda s: f"The environment runs on one machine{_host(s)}, with Envoy before the services.",
        lambda s: s.on_machine,
    ),
    Claim(
        "The environment runs in an existing Kubernetes cluster, that of the kubeconfig context.",
        lambda s: not s.on_machine and s.cloud is None,
    ),
    Claim(
        lambda s: f"The environment runs on Google Cloud, in the region {_region(s)}.",
        lambda s: s.cloud is not None,
    ),
    Claim(
        lambda s: (
            f"Cluster, subnet and NAT are in {_region(s)}, so that traffic between services "
            "stays in the region."
        ),
        lambda s: s.cloud is not None and _regions(s) == {_region(s)},
    ),
    Claim(
        lambda s: f"The address is https://{s.environment.domain}.",
        lambda s: bool(s.environment.domain and s.has_ingress),
    ),
)
"""Where the environment runs."""

NETWORK = (
    Claim(
        "Nodes have no public address, and the control plane accepts authorized networks only.",
        lambda s: s.has_private_nodes,
    ),
    Claim(
        "The firewall denies ingress and egress by default.",
        lambda s: s.has_closed_firewall,
    ),
    Claim(
        lambda s: f"One NAT gateway with {_addresses(s)} is the egress of all nodes.",
        lambda s: bool(s.project.nats),
    ),
    Claim(
        "NetworkPolicies deny every connection of a pod that the stack file does not imply.",
        lambda s: s.has_closed_pods,
    ),
    Claim(
        lambda s: f"{joined(_to_internet(s))} may connect to the internet.",
        lambda s: bool(_to_internet(s)) and bool(s.facts.closed),
    ),
)

COMPUTE = (
    Claim(
        "The cluster is GKE Autopilot: it is billed per pod, not per node, and Google operates "
        "the nodes.",
        lambda s: any(c.autopilot for c in s.project.clusters),
    ),
    Claim(
        lambda s: (
            f"{joined(p.part for p in s.services if p.max > p.min)} scale with their load "
            "by a HorizontalPodAutoscaler."
        ),
        lambda s: not s.on_machine and sum(p.max > p.min for p in s.services) > 1,
    ),
    Claim(
        lambda s: (
            f"{joined(p.part for p in s.services if p.max > p.min)} scales with its load "
            "by a HorizontalPodAutoscaler."
        ),
        lambda s: not s.on_machine and sum(p.max > p.min for p in s.services) == 1,
    ),
    Claim(
        "The pods of a service are spread over zones and nodes.",
        lambda s: any(p.spread for p in s.services),
    ),
    Claim(
        lambda s: (
            f"{joined(p.part for p in s.services if p.spot)} run on spot capacity, which "
            "the cloud can reclaim."
        ),
        lambda s: any(p.spot for p in s.services),
    ),
    Claim(
        "The number of replicas is fixed: there is no autoscaling on a machine.",
        lambda s: s.on_machine,
    ),
)

DELIVERY = (
    Claim(
        "Each commit to the desired state is one deployment; the agent of the machine deploys it. "
        "CI has no access to the machine.",
        lambda s: s.environment.deployed_by == "agent",
    ),
    Claim(
        "Each commit to the desired state is one deployment; Argo CD applies it. CI has no access "
        "to the cluster.",
        lambda s: s.environment.deployed_by == "argocd",
    ),
    Claim(
        "Each commit to the desired state is one deployment; `lapwing deploy` creates the commit "
        "and applies it to the cluster.",
        lambda s: s.environment.deployed_by == "lapwing",
    ),
    Claim(
        "Services are Deployments: a rolling update replaces one pod after the other, and old "
        "pods keep serving until new ones are ready.",
        lambda s: not s.on_machine and not s.blue_green and bool(s.services),
    ),
    Claim(
        "A new release starts in the idle slot, must pass its health checks and smoke tests, and "
        "then gets all traffic.",
        lambda s: bool(s.blue_green),
    ),
    Claim(
        "All services of a commit switch in one update of the routes.",
        lambda s: s.on_machine and bool(s.blue_green),
    ),
    Claim(
        "Each service has a Rollout, which switches its Service: the services of a commit switch "
        "one after the other.",
        lambda s: not s.on_machine and bool(s.blue_green),
    ),
    Claim(
        lambda s: (
            f"The migration of {joined(_offline(s))} is offline: an upgrade that needs it stops "
            "the service, and needs `--allow-downtime`."
        ),
        lambda s: bool(_offline(s)),
    ),
    Claim(
        "A rollback is another commit; while the old slot is running, it only changes the route.",
        lambda s: any(p.second_slot_s for p in s.services),
    ),
)

CONTAINERS = (
    Claim(
        lambda s: (
            f"{len(s.environment.built)} images are built from source, reproducibly and "
            "without a container engine where the source is Python or Node; the image of a service "
            "has the revision as its tag and is deployed by digest."
        ),
        lambda s: len(s.environment.built) > 1 and not s.on_machine,
    ),
    Claim(
        "One image is built from source, reproducibly and without a container engine if the "
        "source is Python or Node; it has the revision as its tag and is deployed by digest.",
        lambda s: len(s.environment.built) == 1 and not s.on_machine,
    ),
    Claim(
        "Services are published images, which the stack file names.",
        lambda s: not s.environment.built and not s.on_machine,
    ),
    Claim(
        "A release is a process bundle: the source with its dependencies, built once and never "
        "changed.",
        lambda s: s.on_machine and not any(p.images for p in s.services),
    ),
    Claim(
        "Built images are in one registry of the shared project, which scans them, keeps the "
        "newest ten of each service and deletes untagged ones after 30 days.",
        lambda s: bool(s.shared.registries and s.environment.built),
    ),
    Claim(
        "CI may push images; nodes may only pull them.",
        lambda s: _granted(s, "ci", "writer") and _granted(s, "nodes", "reader"),
    ),
)

DATA = (
    Claim(
        lambda s: (
            f"MongoDB Atlas runs {joined(n for n, d in s.databases if len(d.regions) == 1)} on "
            "three nodes in one region, and continues if one of them fails."
        ),
        lambda s: any(len(d.regions) == 1 and d.regions[0][1] == 3 for _, d in s.databases),
    ),
    Claim(
        lambda s: (
            "Databases with nodes in a second region, for failover: "
            f"{joined(n for n, d in s.databases if len(d.regions) > 1)}."
        ),
        lambda s: any(len(d.regions) > 1 for _, d in s.databases),
    ),
    Claim(
        lambda s: (
            f"{joined(p.part for p in s.data)} in the cluster is one pod with one disk: "
            "while the pod moves to another node, it does not answer."
        ),
        lambda s: not s.on_machine and len(s.data) == 1,
    ),
    Claim(
        lambda s: (
            f"{joined(p.part for p in s.data)} in the cluster are one pod with one disk "
            "each: while a pod moves to another node, it does not answer."
        ),
        lambda s: not s.on_machine and len(s.data) > 1,
    ),
    Claim(
        "Databases run on the same machine as the services.",
        lambda s: s.on_machine and bool(s.data),
    ),
)

SECURITY = (
    Claim(
        "Clients connect by HTTPS only, and Envoy is the only listener.",
        lambda s: s.on_machine and s.has_ingress,
    ),
    Claim(
        lambda s: (
            f"Ingress is HTTPS only: the load balancer requires {_tls(s)} and connects to "
            "one port of the edge."
        ),
        lambda s: s.https_balancer is not None,
    ),
    Claim(
        "Ingress is the Gateway or Ingress of the cluster, which connects to the edge.",
        lambda s: bool(s.facts.load_balancers),
    ),
    Claim(
        "There is no load balancer, because no `domain` is set: the services cannot be reached "
        "from the internet.",
        lambda s: s.cloud is not None and s.edge is not None and s.load_balancer is None,
    ),
    Claim(
        "There is no ingress: no service has a route, so there is no load balancer.",
        lambda s: s.cloud is not None and s.edge is None and s.https_balancer is None,
    ),
    Claim(
        "Nodes can only pull images; CI can push images from one branch, with a short-lived token "
        "instead of a key.",
        lambda s: _granted(s, "ci", "writer") and _granted(s, "nodes", "reader"),
    ),
    Claim(
        "Pods run without root and without privileges: the namespace enforces the Pod Security "
        "level `restricted`.",
        lambda s: s.has_restricted_pods,
    ),
    Claim(
        "Secrets that are not generated are in Secret Manager, in one region, with access per "
        "secret; External Secrets copies them into the cluster.",
        lambda s: bool(s.facts.secret_reads),
    ),
    Claim(
        "Secrets are Kubernetes Secrets, which `lapwing deploy` creates from its encrypted store.",
        lambda s: s.environment.deployed_by == "lapwing",
    ),
    Claim("Secrets are encrypted at rest.", lambda s: s.on_machine),
    Claim("Lapwing puts no secret in plain text into git, logs or command lines.", lambda _: True),
    Claim(
        "The database has no public endpoint; it is reached by a private endpoint.",
        lambda s: s.has_private_endpoint,
    ),
)

OPEN = (
    Claim(
        lambda s: (
            f"Delegate {joined(s.shared.zones)} to the name servers of the zone, and set the "
            "networks that may reach the control plane, before the first `terraform apply`."
        ),
        lambda s: bool(s.shared.zones and s.project.clusters),
    ),
    Claim(
        "Cloud Armor is rendered but off: set `cloud_armor` at the first abuse.",
        lambda s: s.https_balancer is not None,
    ),
    Claim(
        lambda s: (
            f"Lapwing renders no backup of {joined(_without_backup(s))}: add one, and rehearse the "
            "restore."
        ),
        lambda s: bool(_without_backup(s)),
    ),
    Claim(
        lambda s: (
            f"Measure how long a restore of {joined(n for n, d in s.databases if d.backup)} takes: "
            "until then, the recovery time is unknown."
        ),
        lambda s: any(d.backup for _, d in s.databases),
    ),
    Claim(
        "There is no staging environment in the cloud: releases are tested in the idle slot only.",
        lambda s: s.cloud is not None and s.alone and bool(s.blue_green),
    ),
    Claim(
        "Without Argo Rollouts, errors and latency are not analyzed after a release.",
        lambda s: not s.on_machine and not s.blue_green,
    ),
    Claim(
        "One machine is one point of failure: decide which outage is acceptable.",
        lambda s: s.on_machine,
    ),
    Claim(
        lambda s: f"Services with one pod are down while the pod moves: {joined(_single(s))}.",
        lambda s: bool(_single(s)),
    ),
)

SECTIONS = {
    "cloud": CLOUD,
    "network": NETWORK,
    "compute": COMPUTE,
    "delivery": DELIVERY,
    "containers": CONTAINERS,
    "data": DATA,
    "security": SECURITY,
    "open": OPEN,
}
"""The sentences of the document, by section."""

LABELS: dict[str, Claim] = {
    "autopilot": Claim(
        lambda s: "GKE Autopilot" if s.project.clusters[0].autopilot else "GKE",
        lambda s: bool(s.project.clusters),
    ),
    "zones": Claim("pods spread over its zones", lambda s: any(p.spread for p in s.services)),
    "tls": Claim(
        lambda s: _tls(s),  # noqa: PLW0108 - it is defined below
        lambda s: bool(s.https_balancer and s.https_balancer.min_tls),
    ),
    "cdn": Claim(
        "Cloud CDN for static files",
        lambda s: s.has_cdn,
    ),
    "ci-pushes": Claim("CI pushes", lambda s: _granted(s, "ci", "writer")),
    "nodes-pull": Claim("nodes only pull", lambda s: _granted(s, "nodes", "reader")),
    "denied": Claim(
        "the firewall denies ingress and egress by default",
        lambda s: s.has_closed_firewall,
    ),
    "private-nodes": Claim("private nodes", lambda s: s.has_private_nodes),
    "policies": Claim("NetworkPolicies deny by default", lambda s: s.has_closed_pods),
    "restricted": Claim("pods are restricted", lambda s: s.has_restricted_pods),
    "no-public-port": Claim("the only listener", lambda s: s.on_machine and s.has_ingress),
    "no-public-database": Claim(
        "no public endpoint",
        lambda s: s.has_private_endpoint,
    ),
    "one-switch": Claim(
        "one switch for all services", lambda s: s.on_machine and bool(s.blue_green)
    ),
    "Argo CD": Claim("applies each commit", lambda s: s.environment.deployed_by == "argocd"),
    "Argo Rollouts": Claim("switches the slots", lambda s: bool(s.blue_green)),
    "External Secrets": Claim("copies secrets", lambda s: bool(s.facts.secret_reads)),
}
"""Labels of pictures."""


def label(subject: Subject, name: str) -> str:
    """Return a label, or the empty text if it does not hold."""
    claim = LABELS[name]
    return claim(subject) if claim.holds(subject) else ""


def labels(subject: Subject, *names: str) -> tuple[str, ...]:
    """Return the labels that hold."""
    return tuple(text for text in (label(subject, name) for name in names) if text)


def _host(subject: Subject) -> str:
    host = subject.environment.machine
    return f" ({host.provider} {host.type} in {host.location})" if host else ""


def _offline(subject: Subject) -> list[str]:
    return [p.part.removesuffix("-migrate") for p in subject.facts.pods if p.offline]


def _tls(subject: Subject) -> str:
    balancer = subject.https_balancer
    return f"TLS {balancer.min_tls} or newer" if balancer else ""


def _region(subject: Subject) -> str:
    return subject.cloud.region if subject.cloud else ""


def _regions(subject: Subject) -> set[str]:
    facts = subject.project
    network = {each.region for each in facts.subnets} | {each.region for each in facts.nats}
    return network | {each.region for each in facts.clusters}


def _addresses(subject: Subject) -> str:
    return addresses(sum(n.addresses for n in subject.project.nats))


def _to_internet(subject: Subject) -> list[str]:
    return [p.part for p in subject.services if subject.reaches_internet(p.part)]


def _without_backup(subject: Subject) -> list[str]:
    """Return the databases with data that no rendered object backs up; a cache has none."""
    saved = {b.database for b in subject.facts.backups}
    inside = [p.part for p in subject.data if p.component != "redis" and p.part not in saved]
    outside = [m.part for m in subject.facts.managed if m.kind != "redis"]
    return [*inside, *outside, *(name for name, d in subject.databases if not d.backup)]


def _single(subject: Subject) -> list[str]:
    if subject.on_machine:
        return []
    served = [p for p in subject.services if subject.routes(p.part)]
    return [p.part for p in served if p.min == 1]


def _granted(subject: Subject, identity: str, role: str) -> bool:
    grants = (*subject.project.grants, *subject.shared.grants)
    return any(g.identity == identity and g.role.endswith(f".{role}") for g in grants)
