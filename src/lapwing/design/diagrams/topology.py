"""The architecture of an environment as a graph, read from the inventory.

From the clients through DNS and load balancer to the edge, the services with their slots, and what
each uses; around them the project, the region, the subnet and the cluster, or the machine.
"""

from __future__ import annotations

from collections.abc import Iterator

from lapwing.design.diagrams.model import Graph, Group, Link, Node, graph
from lapwing.design.diagrams.rows import arranged
from lapwing.design.labels import labels
from lapwing.design.subject import KINDS, Subject, addresses, is_process, joined, product, span
from lapwing.inventory.model import Pods

_GIB = 2**30
_ICONS = {"static": "static", "job": "cycle"}
CLIENTS, GIT, SECRETS, INTERNET = "clients", "git", "secrets", "internet"


def topology(subject: Subject) -> Graph:
    """Draw what an environment consists of, and who connects to what."""
    links = [*_ingress_links(subject), *_service_links(subject), *_platform_links(subject)]
    services, links = arranged(tuple(_services(subject)), links)
    inside = (*_edge(subject), *services, *_databases(subject))
    if subject.on_machine:
        members: tuple[Node | Group, ...] = (
            Group("machine", _machine_title(subject), (*inside, _agent()), "green"),
        )
    elif subject.cloud is None:
        members = (
            Group("cluster", "Kubernetes cluster", (*inside, *_controllers(subject)), "green"),
        )
    else:
        members = (_project(subject, inside), *_shared_project(subject), *_atlas(subject))
    outside = (*_outside(subject), *members, *_managed(subject, created=False), *_git())
    title = f"{subject.stack}, {subject.environment.name}: architecture"
    return graph("architecture", title, outside, links)


def _outside(subject: Subject) -> Iterator[Node]:
    if subject.has_ingress:
        yield Node(CLIENTS, "Clients", ("browsers and programs",), "users")
    if subject.has_egress:
        yield Node(INTERNET, "Internet", (), "globe", "grey")


def _git() -> Iterator[Node]:
    yield Node(GIT, "Git", ("desired state", "one commit is one deployment"), "git", "grey")


def _machine_title(subject: Subject) -> str:
    return f"Machine: {subject.host}" if subject.host else "Machine"


def _agent() -> Node:
    return Node("deployer", "Agent", ("deploys each commit", "no open port"), "cycle", "grey")


def _project(subject: Subject, inside: tuple[Node | Group, ...]) -> Group:
    """Draw the project of the environment: load balancer, secrets, and the region with the VPC."""
    assert subject.cloud is not None
    [cluster, *_] = subject.project.clusters
    pods = Group(
        "cluster",
        f"{joined(labels(subject, 'autopilot'))} cluster {cluster.name}",
        (*inside, *_controllers(subject)),
        "green",
    )
    network: list[Node | Group] = [pods]
    for nat in subject.project.nats:
        count = addresses(nat.addresses)
        network.append(Node("nat", "Cloud NAT", (count, "for all egress"), "exit", "grey"))
    if subject.has_private_endpoint:
        network.append(Node("endpoint", "Private endpoint", (), "lock", "orange"))
    subnet = next(iter(subject.project.subnets))
    region = Group(
        "region",
        f"Region {subject.cloud.region}" + "".join(f", {t}" for t in labels(subject, "zones")),
        (
            Group("subnet", f"VPC, private subnet {subnet.cidr}", tuple(network), "white"),
            *_peered(subject),
        ),
        "blue",
    )
    members: list[Node | Group] = []
    if subject.https_balancer is not None:
        lines = labels(subject, "tls", "cdn")
        members.append(Node("balancer", "HTTPS load balancer", lines, "balancer", "violet"))
    if subject.facts.secret_reads:
        reads = len(subject.facts.secret_reads)
        lines = (f"{reads} secret" + ("s" if reads != 1 else ""),)
        members.append(Node(SECRETS, "Secret Manager", lines, "lock", "grey"))
    return Group("project", f"Project {subject.cloud.identity}", (*members, region))


def _shared_project(subject: Subject) -> Iterator[Group]:
    if subject.shared_cloud is None:
        return
    nodes = [
        Node(f"zone{n}", "Cloud DNS", (zone,), "globe", "grey")
        for n, zone in enumerate(subject.shared.zones)
        if subject.environment.domain.endswith(zone)
    ]
    nodes += [
        Node(
            "registry",
            "Artifact Registry",
            labels(subject, "ci-pushes", "nodes-pull"),
            "registry",
            "grey",
        )
        for _ in subject.shared.registries[:1]
    ]
    yield Group("shared", f"Project {subject.shared_cloud.identity}", tuple(nodes))


def _atlas(subject: Subject) -> Iterator[Group]:
    nodes = tuple(
        Node(part, part, tuple(_atlas_lines(subject, part)), "database", "orange")
        for part, _ in subject.databases
    )
    if nodes:
        yield Group("atlas", "MongoDB Atlas", nodes, "orange")


def _atlas_lines(subject: Subject, part: str) -> Iterator[str]:
    database = dict(subject.databases)[part]
    scale = f", up to {database.max_tier}" if database.max_tier != database.tier else ""
    yield f"{product(database)}, {database.tier}{scale}"
    for region, nodes in database.regions:
        yield f"{nodes} nodes in {region}"
    if database.kept:
        yield f"backups {database.kept[0]}"


def _peered(subject: Subject) -> Iterator[Group]:
    """Draw the databases in Google's network, which is peered with that of the project."""
    nodes = tuple(_managed(subject, created=True))
    if nodes:
        yield Group(
            "peered", ", ".join(("Google's network", *labels(subject, "peered"))), nodes, "orange"
        )


def _managed(subject: Subject, *, created: bool) -> Iterator[Node]:
    """Draw the databases outside of the cluster, by whether Terraform creates them."""
    for each in (m for m in subject.facts.managed if bool(m.product) == created):
        where = each.product or "outside of the cluster"
        lines = (KINDS[each.kind], where, *(("standby in another zone",) if each.standby else ()))
        yield Node(each.part, each.part, lines, "database", "orange")


def _edge(subject: Subject) -> Iterator[Node]:
    if subject.on_machine:
        if subject.has_ingress:
            yield Node("edge", "Envoy", labels(subject, "one-switch"), "balancer", "violet")
    elif subject.edge is not None:
        count = _count(subject.edge)
        yield Node("edge", "Edge (Envoy)", (count,), "balancer", "violet")


def _services(subject: Subject) -> Iterator[Node]:
    for pods in subject.services:
        lines = [" ".join([pods.component, *subject.routes(pods.part)])]
        if pods.component != "job":
            lines.append(_count(pods))
        if pods.schedule is not None:
            lines.append(f"schedule {pods.schedule}")
        lines += [f"volume {each.path}" for each in pods.volumes]
        if pods.spot:
            lines.append("on spot capacity")
        icon = _ICONS.get(pods.component, "pods")
        slots = pods.rollout is not None
        yield Node(pods.part, pods.part, tuple(lines), icon, "green", slots)


def _count(pods: Pods) -> str:
    unit = "replica" if is_process(pods) else "pod"
    return f"{span(pods.min, pods.max)} {unit}" + ("s" if pods.max != 1 else "")


def _databases(subject: Subject) -> Iterator[Node]:
    sizes = {d.name: d.size for d in subject.facts.disks}
    for pods in subject.data:
        lines = [KINDS[pods.component]]
        disk = next((size for name, size in sizes.items() if name.endswith(pods.name)), None)
        if disk is not None:
            lines.append(f"{_count(pods)}, disk of {disk / _GIB:g} GiB")
        yield Node(pods.part, pods.part, tuple(lines), "database", "orange")


def _controllers(subject: Subject) -> Iterator[Node]:
    """Draw the programs that a cluster needs for what is rendered, as one box."""
    lines = tuple(
        f"{name}: {what}" for name in subject.facts.controllers for what in labels(subject, name)
    )
    if lines:
        yield Node("controllers", "Controllers", lines, "cycle", "grey")


def _ingress_links(subject: Subject) -> Iterator[Link]:
    if not subject.has_ingress:
        return
    if subject.https_balancer is not None:
        yield Link(CLIENTS, "zone0", "DNS", dashed=True)
        yield Link(CLIENTS, "balancer", f"HTTPS {subject.environment.domain}")
        yield Link("balancer", "edge", _allowed_port(subject))
        yield Link("balancer", "controllers", hidden=True)
    elif subject.on_machine:
        yield Link(CLIENTS, "edge", "HTTPS")
    else:
        yield Link(CLIENTS, "edge", "HTTPS" if subject.is_reachable else "lapwing open")
    for route in subject.facts.routes:
        yield Link("edge", route.part, route.prefix)


def _allowed_port(subject: Subject) -> str:
    rules = [r for r in subject.project.firewall if r.name == "allow-in-load-balancer"]
    return rules[0].ports if rules else ""


def _service_links(subject: Subject) -> Iterator[Link]:
    private = {part for part, database in subject.databases if database.private}
    served = {p.part for p in subject.services}
    for flow in subject.facts.flows:
        if flow.part in served and flow.to in served:
            yield Link(flow.part, flow.to, "after")
    for pods in subject.services:
        for part in dict.fromkeys(part for part, _ in subject.uses(pods.part)):
            yield Link(pods.part, "endpoint" if part in private else part)
        if subject.reaches_internet(pods.part) and not subject.project.nats:
            yield Link(pods.part, INTERNET)
    yield from (Link("endpoint", part) for part in sorted(private))
    yield Link("nat", INTERNET)
    yield from (Link("nat", each.part, hidden=True) for each in subject.facts.managed)


def _platform_links(subject: Subject) -> Iterator[Link]:
    """Yield who gets the commits, the secrets and the images, and the egress of the cluster."""
    who = {"agent": "deployer", "argocd": "controllers", "lapwing": "cluster"}
    by = subject.environment.deployed_by
    what = "lapwing deploy" if by == "lapwing" else "commits"
    yield Link(GIT, who[by], what, dashed=True)
    if subject.facts.secret_reads:
        yield Link(SECRETS, "controllers", "secrets", dashed=True)
    if subject.uses_shared_registry:
        yield Link("registry", "cluster", "images", dashed=True)
    for rule in subject.project.firewall:
        if rule.name == "allow-out-https":
            yield Link("cluster", "nat", rule.ports)
