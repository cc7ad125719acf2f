"""The network of an environment as a graph: ranges, firewall rules and network policies.

Every link is a connection that the rendered firewall and policies allow, with its ports.
"""

from __future__ import annotations

from collections.abc import Iterator

from lapwing.design.diagrams.model import Graph, Group, Link, Node, graph
from lapwing.design.diagrams.rows import arranged
from lapwing.design.labels import labels
from lapwing.design.subject import KINDS, Subject, addresses
from lapwing.inventory.model import FirewallRule

Parts = tuple[Node | Group, ...]
CLIENTS, GATEWAY, INTERNET = "clients", "gateway", "internet"


def network(subject: Subject) -> Graph:
    """Draw who may connect to whom, from the internet to the data."""
    services, links = arranged(tuple(_services(subject)), tuple(_links(subject)))
    parts = (*_edge(subject), *services, *_databases(subject))
    if subject.on_machine:
        members: tuple[Node | Group, ...] = (Group("machine", "Machine", parts, "green"),)
    elif subject.cloud is None:
        members = (_cluster(subject, parts), *_managed(subject))
    else:
        members = (_project(subject, parts), *_atlas(subject))
    ends = tuple(_ends(subject))
    title = f"{subject.stack}, {subject.environment.name}: network security"
    return graph("network", title, (*ends, *members), links)


def _ends(subject: Subject) -> Iterator[Node]:
    if subject.has_ingress:
        origin = "this machine" if subject.is_local else "any address"
        yield Node(CLIENTS, "Clients", (origin,), "users")
    if subject.has_egress:
        yield Node(INTERNET, "Internet", (), "globe", "grey")


def _project(subject: Subject, parts: Parts) -> Group:
    members: list[Node | Group] = []
    if subject.https_balancer is not None:
        lines = (f"{subject.https_balancer.rules} forwarding rules", *labels(subject, "tls"))
        members.append(Node("balancer", "HTTPS load balancer", lines, "balancer", "violet"))
    assert subject.cloud is not None
    vpc = Group(
        "vpc", ": ".join(("VPC", *labels(subject, "denied"))), tuple(_vpc(subject, parts)), "white"
    )
    members.append(vpc)
    if databases := tuple(_managed(subject)):
        title = ", ".join(("Google's network", *labels(subject, "peered")))
        members.append(Group("peered", title, databases, "orange"))
    return Group("project", f"Project {subject.cloud.identity}", tuple(members))


def _vpc(subject: Subject, parts: Parts) -> Iterator[Node | Group]:
    for direction in ("ingress", "egress"):
        rules = [r for r in subject.project.firewall if r.direction == direction]
        lines = tuple(_rule(r) for r in sorted(rules, key=lambda r: not r.allows))
        if lines:
            yield Node(direction, f"Firewall, {direction}", lines, "shield", "violet")
    for subnet in subject.project.subnets:
        ranges = "".join(f", {name} {cidr}" for name, cidr in subnet.secondary)
        title = f"Subnet {subnet.name} {subnet.cidr}{ranges}"
        inside: list[Node | Group] = [_cluster(subject, parts)]
        if subject.has_private_endpoint:
            inside.append(Node("endpoint", "Private endpoint", (), "lock", "orange"))
        yield Group("subnet", title, tuple(inside), "blue")
    for cluster in subject.project.clusters:
        lines = (cluster.control_plane,)
        yield Node("control", "Control plane", lines, "cycle", "grey")
    for nat in subject.project.nats:
        yield Node("nat", "Cloud NAT", (addresses(nat.addresses),), "exit", "grey")


def _rule(rule: FirewallRule) -> str:
    """Describe a firewall rule in a line."""
    side = "from" if rule.direction == "ingress" else "to"
    verb = "allow" if rule.allows else "deny"
    return f"{verb} {rule.ports} {side} {' or '.join(rule.ranges)}"


def _cluster(subject: Subject, parts: Parts) -> Group:
    title = "; ".join(("Cluster", *labels(subject, "private-nodes", "policies", "restricted")))
    return Group("cluster", title, parts, "green")


def _edge(subject: Subject) -> Iterator[Node]:
    if subject.facts.load_balancers:
        yield Node(GATEWAY, "Gateway or Ingress", ("of the cluster",), "balancer", "grey")
    if subject.has_ingress:
        yield Node("edge", "Envoy", labels(subject, "no-public-port"), "balancer", "violet")


def _services(subject: Subject) -> Iterator[Node]:
    for pods in subject.services:
        lines = (pods.component, *subject.limits(pods.part))
        yield Node(pods.part, pods.part, lines, "pods", "green")


def _databases(subject: Subject) -> Iterator[Node]:
    for pods in subject.data:
        yield Node(pods.part, pods.part, (KINDS[pods.component],), "database", "orange")


def _atlas(subject: Subject) -> Iterator[Node]:
    for part, database in subject.databases:
        lines = labels(subject, "no-public-database") if database.private else ()
        yield Node(part, f"{part}: MongoDB Atlas", lines, "database", "orange")


def _managed(subject: Subject) -> Iterator[Node]:
    for each in subject.facts.managed:
        yield Node(each.part, each.part, (KINDS[each.kind],), "database", "orange")


def _links(subject: Subject) -> Iterator[Link]:
    if subject.https_balancer is not None:
        yield Link(CLIENTS, "balancer", "HTTPS")
        yield Link("balancer", "ingress")
        for rule in subject.project.firewall:
            if rule.name == "allow-in-load-balancer":
                yield Link("ingress", "edge", rule.ports)
    elif subject.facts.load_balancers:
        yield Link(CLIENTS, GATEWAY, "HTTPS")
    else:
        yield Link(CLIENTS, "edge", "HTTPS" if subject.is_reachable else "lapwing open")
    if subject.on_machine:
        yield from (Link("edge", r.part, "loopback") for r in subject.facts.routes)
    exit_node = "egress" if subject.project.nats else INTERNET
    for flow in subject.facts.flows:
        target = exit_node if flow.to == INTERNET else flow.to
        yield Link(GATEWAY if flow.part == "cluster" else flow.part, target, flow.ports)
    private = {part for part, database in subject.databases if database.private}
    for pods in subject.services:
        for part, flow in subject.uses(pods.part):
            if flow.to != part:
                yield Link(pods.part, "endpoint" if part in private else part, flow.ports)
    yield from (Link("endpoint", part) for part in sorted(private))
    if subject.project.nats:
        yield from _nat_links(subject)


def _nat_links(subject: Subject) -> Iterator[Link]:
    """Link the cluster, unless its pods are linked, and the NAT gateway to the internet."""
    if not any(flow.to == INTERNET for flow in subject.facts.flows):
        yield Link("cluster", "egress")
    yield Link("egress", "nat")
    yield Link("nat", INTERNET)
    yield Link("cluster", "control")
    yield from (Link("nat", part, hidden=True) for part, _ in subject.databases)
