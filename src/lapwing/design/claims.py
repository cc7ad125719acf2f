"""Sentences and labels with the facts of the inventory under which each is true.

A sentence is written only if it holds for what is rendered, so that no document can claim what does
not exist. To add one, add a row; `test_claims.py` evaluates every row for every golden stack and
compares the rows that have evidence with the rendered files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from lapwing.design.subject import Subject, addresses, joined

Holds = Callable[[Subject], bool]
Names = Callable[[Subject], Sequence[str]]


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


def _about(names: Names, one: str, many: str = "") -> Claim:
    """Return a claim about named parts; it holds if there are any. `{}` is their names."""

    def text(subject: Subject) -> str:
        found = names(subject)
        return (one if len(found) == 1 or not many else many).format(joined(found))

    return Claim(text, lambda subject: bool(names(subject)))


CLOUD = (
    Claim(
        lambda s: (
            f"The environment runs on one machine{f' ({s.host})' if s.host else ''}, with Envoy "
            "before the services."
        ),
        lambda s: s.on_machine,
    ),
    Claim(
        "The environment runs in an existing Kubernetes cluster, that of the kubeconfig context.",
        lambda s: not s.on_machine and s.cloud is None,
    ),
    Claim(
        lambda s: (
            "The environment runs on Google Cloud. Cluster, subnet and NAT gateway are in "
            f"{joined(c.region for c in s.project.clusters)}: traffic between services stays in "
            "the region."
        ),
        lambda s: s.cloud is not None,
    ),
    Claim(
        lambda s: f"The address is https://{s.environment.domain}.",
        lambda s: bool(s.environment.domain and s.is_reachable),
    ),
)
"""Where the environment runs."""

PROJECTS = (
    Claim(
        "The shared project has what every environment needs: registry, DNS and the identity of "
        "CI. Another project would add a load balancer, a NAT gateway and the fee of a cluster.",
        lambda s: s.shared_cloud is not None,
    ),
)

NETWORK = (
    Claim(
        "Nodes have no public address. The control plane accepts connections from authorized "
        "networks and, at its DNS endpoint, from clients that IAM allows.",
        lambda s: s.has_private_nodes,
    ),
    Claim(
        "The firewall denies ingress and egress by default.",
        lambda s: s.has_closed_firewall,
    ),
    Claim(
        lambda s: (
            f"One NAT gateway with {addresses(s.project.nats[0].addresses)} is the egress of all "
            "nodes."
        ),
        lambda s: bool(s.project.nats),
    ),
    Claim(
        "NetworkPolicies deny every connection of a pod that the stack file does not imply.",
        lambda s: s.has_closed_pods,
    ),
    _about(
        lambda s: [f.part for f in s.facts.flows if f.to == "any"],
        "{} may connect to any address on the port of a database or bucket outside of the cluster, "
        "because its address is unknown.",
    ),
    _about(
        lambda s: [p.part for p in s.services if s.facts.closed and s.reaches_internet(p.part)],
        "{} may connect to the internet.",
    ),
)

COMPUTE = (
    Claim(
        "The cluster is GKE Autopilot: it is billed per pod, not per node, and Google operates "
        "the nodes.",
        lambda s: any(c.autopilot for c in s.project.clusters),
    ),
    _about(
        lambda s: [p.part for p in s.facts.pods if p.max > p.min and not s.on_machine],
        "{} scales with its load by a HorizontalPodAutoscaler.",
        "{} scale with their load by a HorizontalPodAutoscaler.",
    ),
    _about(
        lambda s: s.spread,
        "The pods of {} are spread over zones and nodes.",
    ),
    _about(
        lambda s: [p.part for p in s.services if p.spot],
        "{} runs on spot capacity, which the cloud can reclaim.",
        "{} run on spot capacity, which the cloud can reclaim.",
    ),
    _about(
        lambda s: [p.part for p in s.facts.pods if p.max > p.min and s.on_machine],
        "{} scales with its load: the agent adds and removes replicas.",
        "{} scale with their load: the agent adds and removes replicas.",
    ),
)

DELIVERY = (
    Claim(
        "Each commit to the desired state is one deployment; the agent of the machine deploys it. "
        "CI has no access to the machine.",
        lambda s: s.on_machine and not s.environment.over_ssh,
    ),
    Claim(
        "Each commit to the desired state is one deployment: it reaches the machine over SSH, and "
        "the agent there deploys it. An SSH key for CI can only deploy this environment.",
        lambda s: s.environment.over_ssh,
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
    _about(
        lambda s: [p.part for p in s.services if p.kind == "Deployment"],
        "{} is updated by a rolling update: old pods run until new ones are ready.",
        "{} are updated by a rolling update: old pods run until new ones are ready.",
    ),
    Claim(
        lambda s: (
            "A new release starts in the idle slot; it gets all traffic after its health checks"
            f"{' and smoke tests' if _has_smoke_tests(s) else ''} have passed."
        ),
        lambda s: bool(s.blue_green),
    ),
    _about(
        lambda s: [p.part for p in s.blue_green if p.rollout and p.rollout.hold],
        "The switch of {} waits for `lapwing promote`.",
    ),
    Claim(
        "All services of a commit switch in one update of the routes.",
        lambda s: s.on_machine and bool(s.blue_green),
    ),
    _about(
        lambda s: [] if s.on_machine else [p.part for p in s.blue_green],
        "Argo Rollouts switches {}.",
        "Argo Rollouts switches {}, one after the other.",
    ),
    _about(
        lambda s: [p.part.removesuffix("-migrate") for p in s.facts.pods if p.offline],
        "The migration of {} is offline: it stops the service, and needs `--allow-downtime`.",
    ),
    Claim(
        "A rollback is another commit; while the old slot is running, it only changes the route.",
        lambda s: any(p.second_slot_s for p in s.services),
    ),
)

CONTAINERS = (
    Claim(
        lambda s: (
            f"{_images(s)} built from source, reproducibly, and without a container engine if "
            "the source is Python or Node. An image has the revision as its tag and is deployed "
            "by digest."
        ),
        lambda s: bool(s.environment.built) and not s.on_machine,
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
)

DATA = (
    _about(
        lambda s: [n for n, d in s.databases if [nodes for _, nodes in d.regions] == [3]],
        "MongoDB Atlas runs {} on three nodes in one region: it continues if one of them fails.",
        "MongoDB Atlas runs {} on three nodes each in one region: each continues if one of them "
        "fails.",
    ),
    _about(
        lambda s: [n for n, d in s.databases if len(d.regions) > 1],
        "{} has nodes in a second region, for failover.",
        "{} have nodes in a second region, for failover.",
    ),
    _about(
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
        "Nodes can only pull images; CI can push images from one branch, with a short-lived token "
        "instead of a key.",
        lambda s: s.granted("ci", "writer") and s.granted("nodes", "reader"),
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
    _about(
        lambda s: [n for n, d in s.databases if d.private],
        "{} has no public endpoint; it is reached by a private endpoint.",
        "{} have no public endpoint; each is reached by a private endpoint.",
    ),
    _about(
        lambda s: [n for n, d in s.databases if not d.private],
        "{} is reached over the internet, because the free tier of MongoDB Atlas has no private "
        "endpoint; only connections from the NAT gateway are accepted.",
    ),
    _about(
        lambda s: [m.part for m in s.facts.managed if m.private],
        "{} has a private address only, in a range that is peered with the network.",
        "{} have private addresses only, in a range that is peered with the network.",
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
    _about(
        lambda s: s.without_backup,
        "Lapwing renders no backup of {}: add one, and rehearse the restore.",
    ),
    _about(
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
    _about(
        lambda s: [
            p.part for p in s.services if p.min == 1 and s.routes(p.part) and not s.on_machine
        ],
        "{} has one pod, and is unavailable while the pod moves to another node.",
        "{} have one pod each; each is unavailable while its pod moves to another node.",
    ),
)

SECTIONS = {
    "cloud": CLOUD,
    "projects": PROJECTS,
    "network": NETWORK,
    "compute": COMPUTE,
    "delivery": DELIVERY,
    "containers": CONTAINERS,
    "data": DATA,
    "security": SECURITY,
    "open": OPEN,
}
"""The sentences of the document, by section."""


def _has_smoke_tests(subject: Subject) -> bool:
    return any(p.rollout and p.rollout.smoke_tests for p in subject.blue_green)


def _limits(subject: Subject) -> Iterator[tuple[str, str]]:
    """Yield each service with limited access, and its limits."""
    for route in subject.facts.routes:
        if found := subject.limits(route.part):
            yield route.part, ", ".join(found)


def _images(subject: Subject) -> str:
    return f"{n} images are" if (n := len(subject.environment.built)) > 1 else "1 image is"
