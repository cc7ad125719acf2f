"""Claims on where an environment runs, its network, its pods, and how releases reach it."""

from __future__ import annotations

from lapwing.design.claim import Claim, about
from lapwing.design.subject import Subject, addresses, joined

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
        lambda s: (
            f"The shared project has {joined(_shared(s))}, which every environment needs. Every "
            "other project has a cluster and a NAT gateway, and a load balancer if it has a domain."
        ),
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
    Claim(
        "Envoy connects to the services over the loopback address.",
        lambda s: s.on_machine and s.has_ingress,
    ),
    about(
        lambda s: [f.part for f in s.facts.flows if f.to == "any"],
        "{} may connect to any address on the port of a database or bucket outside of the cluster, "
        "because its address is unknown.",
    ),
    about(
        lambda s: [f.part for f in s.facts.flows if f.to == "internet"],
        "{} may connect to the internet.",
    ),
)

COMPUTE = (
    Claim(
        "The cluster is GKE Autopilot: it is billed per pod, not per node, and Google operates "
        "the nodes.",
        lambda s: any(c.autopilot for c in s.project.clusters),
    ),
    about(
        lambda s: [p.part for p in s.facts.pods if p.max > p.min and not s.on_machine],
        "{} scales with its load by a HorizontalPodAutoscaler.",
        "{} scale with their load by a HorizontalPodAutoscaler.",
    ),
    about(
        lambda s: s.spread,
        "The pods of {} are spread over zones and nodes.",
    ),
    about(
        lambda s: [p.part for p in s.services if p.spot],
        "{} runs on spot capacity, which the cloud can reclaim.",
        "{} run on spot capacity, which the cloud can reclaim.",
    ),
    about(
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
        "A root application creates the Argo CD application of each environment (app of apps); "
        "`lapwing bootstrap` applies it once.",
        lambda s: s.environment.has_root_application,
    ),
    Claim(
        "Each commit to the desired state is one deployment; `lapwing deploy` creates the commit "
        "and applies it to the cluster.",
        lambda s: s.environment.deployed_by == "lapwing",
    ),
    about(
        lambda s: [p.part for p in s.services if p.kind == "Deployment"],
        "{} is updated by a rolling update: old pods run until new ones are ready.",
        "{} are updated by a rolling update: old pods run until new ones are ready.",
    ),
    Claim(
        lambda s: (
            "A new release starts in the idle slot; it gets all traffic after its health checks"
            f"{_smoke_tests(s)} have passed."
        ),
        lambda s: bool(s.blue_green),
    ),
    about(
        lambda s: [p.part for p in s.blue_green if p.rollout and p.rollout.hold],
        "The switch of {} waits for `lapwing promote`.",
    ),
    Claim(
        "All services of a commit switch in one update of the routes.",
        lambda s: s.on_machine and bool(s.blue_green),
    ),
    about(
        lambda s: [] if s.on_machine else [p.part for p in s.blue_green],
        "Argo Rollouts switches {}.",
        "Argo Rollouts switches {}, each when its checks have passed, so not at the same moment.",
    ),
    about(
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
        lambda s: f"{_images(s)} built from source.",
        lambda s: bool(s.environment.built),
    ),
    Claim(
        "An image has the tags `latest` and its git revision, and after a release its semantic "
        "version; it is deployed by digest.",
        lambda s: _is_pushed(s) and s.environment.has_version_tags,
    ),
    Claim(
        "An image has the tags `latest` and its git revision, and is deployed by digest. A release "
        "also tags it with its semantic version if the stack file has `registry`.",
        lambda s: _is_pushed(s) and not s.environment.has_version_tags,
    ),
    about(
        lambda s: [i.service for i in s.environment.built if i.kind == "program"],
        "Lapwing builds {} reproducibly and without a container engine: the packages are one "
        "layer and the program is the layer above, so a change of the program does not build or "
        "push the packages again.",
    ),
    about(
        lambda s: [i.service for i in s.environment.built if i.kind == "static" and not i.base],
        "The image of {} has no base image: it contains Caddy, the files, and the hashed files of "
        "earlier releases, because pages that are open in a browser still request them.",
        "The images of {} have no base image: they contain Caddy, the files, and the hashed files "
        "of earlier releases, because pages that are open in a browser still request them.",
    ),
    about(
        lambda s: [i.service for i in s.environment.built if i.kind == "dockerfile"],
        "Docker or Podman builds {} from a Dockerfile, which decides whether the image is "
        "reproducible.",
    ),
    about(
        lambda s: s.published,
        "{} is a published image, which the stack file names.",
        "{} are published images, which the stack file names.",
    ),
    about(
        lambda s: [p.part for p in s.services if s.on_machine and not p.images],
        "A release of {} is a process bundle: the source with its dependencies, built once and "
        "never changed.",
    ),
    Claim(
        "Built images are in one registry of the shared project, which scans them, keeps the "
        "newest ten of each service and deletes untagged ones after 30 days.",
        lambda s: s.uses_shared_registry,
    ),
    Claim(
        lambda s: f"Built images are in the registry {s.environment.registry}.",
        lambda s: _is_pushed(s) and not s.uses_shared_registry,
    ),
)


def _is_pushed(subject: Subject) -> bool:
    """Return whether images are built and pushed to a registry."""
    built = bool(subject.environment.built) and not subject.on_machine
    return built and bool(subject.environment.registry)


def _shared(subject: Subject) -> tuple[str, ...]:
    found = {
        "registry": subject.shared.registries,
        "DNS zones": subject.shared.zones,
        "identity of CI": subject.granted("ci", "writer"),
    }
    return tuple(f"the {name}" for name, there in found.items() if there)


def _smoke_tests(subject: Subject) -> str:
    tested = [p.part for p in subject.blue_green if p.rollout and p.rollout.smoke_tests]
    if len(tested) == len(subject.blue_green):
        return " and smoke tests"
    return f" (of {joined(tested)} also smoke tests)" if tested else ""


def _images(subject: Subject) -> str:
    return f"{n} images are" if (n := len(subject.environment.built)) > 1 else "1 image is"
