"""Claims on databases and backups, on security, and on what is left to do."""

from __future__ import annotations

from collections.abc import Iterator

from lapwing.design.claim import Claim, about
from lapwing.design.subject import Subject, joined

DATA = (
    about(
        lambda s: [n for n, d in s.databases if [nodes for _, nodes in d.regions] == [3]],
        "MongoDB Atlas runs {} on three nodes in one region: it continues if one of them fails.",
        "MongoDB Atlas runs {} on three nodes each in one region: each continues if one of them "
        "fails.",
    ),
    about(
        lambda s: [n for n, d in s.databases if len(d.regions) > 1],
        "{} has nodes in a second region, for failover.",
        "{} have nodes in a second region, for failover.",
    ),
    about(
        lambda s: [] if s.on_machine else [p.part for p in s.data],
        "{} in the cluster is one pod with one disk, and unavailable while the pod moves to "
        "another node.",
        "{} in the cluster are one pod with one disk each; each is unavailable while its pod moves "
        "to another node.",
    ),
    Claim(
        "There is no replica in another region: while the region is unavailable, so is the data.",
        lambda s: (
            s.cloud is not None
            and bool(s.data or s.facts.managed or s.databases)
            and not any(len(d.regions) > 1 for _, d in s.databases)
        ),
    ),
    Claim(
        "Databases run on the same machine as the services.",
        lambda s: s.on_machine and bool(s.data),
    ),
)

SECURITY = (
    Claim(
        "Clients connect by HTTPS only, and Envoy is the only listener on a public address.",
        lambda s: s.on_machine and s.has_ingress,
    ),
    Claim(
        lambda s: joined(f"{p} accepts requests {x}" for p, x in _limits(s)) + ".",
        lambda s: any(_limits(s)),
    ),
    Claim(
        lambda s: (
            f"Ingress is HTTPS only: the load balancer requires {s.tls} and connects to "
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
        lambda s: (
            s.cloud is not None
            and s.edge is not None
            and s.load_balancer is None
            and not s.environment.domain
        ),
    ),
    Claim(
        "The cluster has no ingress for the stack: `lapwing open` forwards a local port to it.",
        lambda s: s.has_ingress and not s.is_reachable and s.cloud is None,
    ),
    Claim(
        "There is no ingress: no service has a route, so there is no load balancer.",
        lambda s: s.cloud is not None and s.edge is None and s.https_balancer is None,
    ),
    Claim(
        "Two layers deny connections by default: the firewall at the borders of the network, and "
        "NetworkPolicies between pods.",
        lambda s: s.has_closed_firewall and s.has_closed_pods,
    ),
    Claim(
        "Nodes can only pull images; CI can push images from release branches, with a short-lived "
        "token instead of a key.",
        lambda s: s.granted("ci", "writer") and s.granted("nodes", "reader"),
    ),
    Claim(
        "Pods run without root and without privileges: the namespace enforces the Pod Security "
        "level `restricted`.",
        lambda s: s.has_restricted_pods,
    ),
    Claim(
        "Secrets that are not generated are in Secret Manager, in one region, with access per "
        "secret; External Secrets reads them with Workload Identity instead of a key, and copies "
        "them into the cluster.",
        lambda s: bool(s.facts.secret_reads),
    ),
    Claim(
        "Secrets are Kubernetes Secrets, which `lapwing deploy` creates from its encrypted store.",
        lambda s: s.environment.deployed_by == "lapwing",
    ),
    Claim("Secrets are encrypted at rest.", lambda s: s.on_machine),
    Claim("Lapwing puts no secret in plain text into git, logs or command lines.", lambda _: True),
    about(
        lambda s: [n for n, d in s.databases if d.private],
        "{} has no public endpoint; it is reached by a private endpoint.",
        "{} have no public endpoint; each is reached by a private endpoint.",
    ),
    about(
        lambda s: [n for n, d in s.databases if not d.private],
        "{} is reached over the internet, because the free tier of MongoDB Atlas has no private "
        "endpoint; only connections from the NAT gateway are accepted.",
    ),
    about(
        lambda s: [m.part for m in s.facts.managed if m.private],
        "{} has a private address only, in a range that is peered with the network.",
        "{} have private addresses only, in a range that is peered with the network.",
    ),
)

OPEN = (
    about(
        lambda s: (
            []
            if s.on_machine or s.environment.registry
            else [i.service for i in s.environment.built]
        ),
        "Set `registry`, to which the image of {} is pushed; only kind and minikube need none.",
        "Set `registry`, to which the images of {} are pushed; only kind and minikube need none.",
    ),
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
    about(
        lambda s: [m.part for m in s.facts.managed if m.product],
        "Terraform keeps the password of {} in its state: restrict who can read the bucket.",
        "Terraform keeps the passwords of {} in its state: restrict who can read the bucket.",
    ),
    about(
        lambda s: s.without_backup,
        "Lapwing renders no backup of {}: add one, and rehearse the restore.",
    ),
    about(
        lambda s: [
            *(n for n, d in s.databases if d.backup),
            *(m.part for m in s.facts.managed if m.backup),
        ],
        "Measure how long a restore of {} takes: until then, the recovery time is unknown.",
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
    about(
        lambda s: [
            p.part for p in s.services if p.min == 1 and s.routes(p.part) and not s.on_machine
        ],
        "{} has one pod, and is unavailable while the pod moves to another node.",
        "{} have one pod each; each is unavailable while its pod moves to another node.",
    ),
)


def _limits(subject: Subject) -> Iterator[tuple[str, str]]:
    """Yield each service with limited access, and its limits."""
    for route in subject.facts.routes:
        if found := subject.limits(route.part):
            yield route.part, ", ".join(found)
