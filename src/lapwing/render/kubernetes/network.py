"""Who may talk to whom: nobody, but for what the stack file implies. Pure.

Both ways are closed for every pod of the namespace. Open are: names (DNS); from in front to the
edge; from the edge to services that have a route; from a service to the resources it needs, and
from a job to the services that it runs after; from smoke tests to the preview, from who judges live
traffic to the edge's counters; and to the internet where the stack file says so.

Source: Kubernetes documents, Network Policies; Google Cloud, firewall rules of load balancers.
"""

from __future__ import annotations

from collections.abc import Iterator

from lapwing.plan.names import INSTANCE, NAME
from lapwing.render.kubernetes import edge, pod
from lapwing.render.kubernetes.analysis import STATS_PORT, is_watched
from lapwing.render.kubernetes.setting import Joined, Scope, Tree
from lapwing.render.kubernetes.target import Manifest, Target, meta, name, selector
from lapwing.render.kubernetes.workloads import is_rollout
from lapwing.stack.model import Service
from lapwing.stack.resource_reference import PORTS

FILE = "network.yaml"
WAVE = 1
LOAD_BALANCERS = ("35.191.0.0/16", "130.211.0.0/22")
"""Where Google's load balancers and their health checks come from. Source: Google Cloud, firewall
rules for Application Load Balancers."""
INSIDE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16")
"""What is not the internet: private networks, and the metadata server."""
ATLAS = (27015, 27017)
"""Ports of MongoDB Atlas, also behind a private endpoint."""


def manifests(target: Target) -> Iterator[Manifest]:
    """The policies of an environment."""
    for tree in (
        _closed(target),
        _names(target),
        *_of_edge(target),
        *_of_services(target),
        *_of_tests(target),
        *_of_resources(target),
    ):
        yield Manifest(FILE, WAVE, tree)


def _closed(target: Target) -> dict[str, Tree]:
    spec: dict[str, Tree] = {"podSelector": _ours(), "policyTypes": ["Ingress", "Egress"]}
    return _policy(target, name("closed"), "closed", spec)


def _names(target: Target) -> dict[str, Tree]:
    dns = {
        "to": [
            {
                "namespaceSelector": {
                    "matchLabels": {"kubernetes.io/metadata.name": "kube-system"}
                },
                "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
            }
        ],
        "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}],
    }
    # Node-local caches of names: GKE's, and the usual one.
    cache = {
        "to": [{"ipBlock": {"cidr": "169.254.20.10/32"}}],
        "ports": dns["ports"],
    }
    spec = {"podSelector": _ours(), "policyTypes": ["Egress"], "egress": [dns, cache]}
    return _policy(target, name("names"), "names", spec)


def _of_edge(target: Target) -> Iterator[dict[str, Tree]]:
    if not edge.is_needed(target):
        return
    watched = any(is_rollout(target, s) and is_watched(s) for s in target.services.values())
    ingress: list[Tree] = [{"ports": [_tcp("web")], **_from_in_front(target)}]
    if watched:
        ingress.append({"from": [_pods("watch")], "ports": [_tcp(STATS_PORT)]})
    egress = [
        {"to": [_pods(part)], "ports": [_tcp(pod.port(service))]}
        for part, service in target.services.items()
        if service.route
    ]
    spec = {
        "podSelector": {"matchLabels": selector("edge")},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": ingress,
        "egress": egress,
    }
    yield _policy(target, name("edge"), "edge", spec)
    if watched:
        egress = [{"to": [_pods("edge")], "ports": [_tcp(STATS_PORT)]}]
        yield _policy(target, name("watch"), "watch", _egress("watch", egress))


def _from_in_front(target: Target) -> dict[str, Tree]:
    """Who may reach the edge. A gateway's or an Ingress controller's pods are in a namespace that
    only the cluster's owner knows, so any namespace may; from outside, only load balancers."""
    if edge.ends_tls(target):
        return {}
    found: list[Tree] = []
    if target.environment.cloud is not None:
        found = [{"ipBlock": {"cidr": block}} for block in LOAD_BALANCERS]
    if target.environment.gateway is not None:
        found.append({"namespaceSelector": {}})
    return {"from": found}


def _of_services(target: Target) -> Iterator[dict[str, Tree]]:
    late = [(n, s.after) for n, s in target.services.items() if s.after]
    for part, service in target.services.items():
        ingress: list[Tree] = []
        if service.kind in ("web", "static"):
            callers = [_pods("edge")] if service.route else []
            if is_rollout(target, service) and service.rollout.smoke:
                callers.append(_pods(f"{part}-smoke"))
            callers += [_pods(job) for job, after in late if part in after]
            if callers:
                ingress = [{"from": callers, "ports": [_tcp(pod.port(service))]}]
        egress = reached(target, service)
        spec: dict[str, Tree] = {
            "podSelector": {"matchLabels": selector(part)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress,
            "egress": egress,
        }
        yield _policy(target, name(part), part, spec)
        if service.migrate is not None:
            job = f"{part}-migrate"
            yield _policy(target, name(job), job, _egress(job, egress))


def _of_tests(target: Target) -> Iterator[dict[str, Tree]]:
    """A test may reach the preview, and what its service reaches."""
    for part, service in target.services.items():
        if is_rollout(target, service) and service.rollout.smoke:
            job = f"{part}-smoke"
            own = {"to": [_pods(part)], "ports": [_tcp(pod.port(service))]}
            yield _policy(target, name(job), job, _egress(job, [own, *reached(target, service)]))


def reached(target: Target, service: Service) -> list[Tree]:
    """Where a service may open connections to."""
    found: list[Tree] = []
    for need in service.needs:
        if need in target.own_resources:
            kind = target.own_resources[need].kind
            found.append({"to": [_pods(need)], "ports": [_tcp(PORTS[kind])]})
        else:
            kind = target.managed_resources[need].kind
            found.append({"ports": [_managed(kind)]})
    for part in service.after:
        if target.services[part].kind in ("web", "static"):
            port = pod.port(target.services[part])
            found.append({"to": [_pods(part)], "ports": [_tcp(port)]})
    if service.internet:
        block = {"cidr": "0.0.0.0/0", "except": list(INSIDE)}
        found.append({"to": [{"ipBlock": block}]})
    return found


def _managed(kind: str) -> dict[str, Tree]:
    if kind == "mongodb":
        return {"protocol": "TCP", "port": ATLAS[0], "endPort": ATLAS[1]}
    return _tcp(PORTS[kind])


def _of_resources(target: Target) -> Iterator[dict[str, Tree]]:
    for part, resource in target.own_resources.items():
        users = [n for n, s in target.services.items() if part in s.needs]
        jobs = [f"{n}-migrate" for n in users if target.services[n].migrate]
        jobs += [
            f"{n}-smoke"
            for n in users
            if is_rollout(target, target.services[n]) and target.services[n].rollout.smoke
        ]
        callers = [_pods(n) for n in sorted([*users, *jobs])]
        rule = [{"from": callers, "ports": [_tcp(PORTS[resource.kind])]}] if callers else []
        spec: dict[str, Tree] = {
            "podSelector": {"matchLabels": selector(part)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": rule,
            "egress": [],
        }
        yield _policy(target, name(part), part, spec)


def _policy(target: Target, called: Joined, part: str, spec: dict[str, Tree]) -> dict[str, Tree]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": meta(target, called, part, "network"),
        "spec": spec,
    }


def _egress(part: str, rules: list[Tree]) -> dict[str, Tree]:
    return {
        "podSelector": {"matchLabels": selector(part)},
        "policyTypes": ["Egress"],
        "egress": rules,
    }


def _ours() -> dict[str, Tree]:
    return {"matchLabels": {INSTANCE: Scope.PREFIX}}


def _pods(part: str) -> dict[str, Tree]:
    return {"podSelector": {"matchLabels": {NAME: part, INSTANCE: Scope.PREFIX}}}


def _tcp(port: int | str) -> dict[str, Tree]:
    return {"protocol": "TCP", "port": port}
