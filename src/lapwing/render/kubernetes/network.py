"""Network policies: no connection is allowed, but for what the stack file implies.

Ingress and egress are denied for every pod of the namespace. Allowed are: DNS; from the ingress to
the edge; from the edge to services that have a route; from a service to the resources it needs, and
from a job to the services that it runs after; from smoke tests to the preview, from the traffic
analysis to the edge's counters; and to the internet if the stack file says so.

Source: Kubernetes documentation, Network Policies; Google Cloud, firewall rules of load balancers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lapwing.plan.names import INSTANCE
from lapwing.render.addresses import ATLAS_PORTS, DATABASES, NODES, PRIVATE_NETWORKS
from lapwing.render.kubernetes import backup, edge, pod
from lapwing.render.kubernetes.analysis import STATS_PORT, is_watched
from lapwing.render.kubernetes.edge_config import ends_tls
from lapwing.render.kubernetes.objects import ClusterEnvironment, Manifest, new_object, selector
from lapwing.render.kubernetes.setting import Scope, Setting, Tree
from lapwing.render.kubernetes.workloads import is_rollout
from lapwing.stack.cloud import is_free_tier
from lapwing.stack.model import Service
from lapwing.stack.resource_reference import PORTS

FILE = "network.yaml"
WAVE = 1
LOAD_BALANCERS = ("35.191.0.0/16", "130.211.0.0/22")
"""The addresses of Google's load balancers and their health checks. Source: Google Cloud, firewall
rules for Application Load Balancers."""
OURS = {"matchLabels": {INSTANCE: Scope.PREFIX}}
NODE_LOCAL_DNS = "169.254.20.10"
METADATA_SERVER = "169.254.169.254"
"""Addresses of DNS servers on a node: NodeLocal DNSCache, and Cloud DNS, which GKE Autopilot uses.
Sources: Kubernetes documentation, Using NodeLocal DNSCache; GKE documentation, Using Cloud DNS."""
IDENTITY_SERVERS = ((METADATA_SERVER, 80), ("169.254.169.252", 988))
"""Where pods get the tokens of their service account on GKE, with Dataplane V2 and without. Source:
GKE documentation, Control communication between Pods and Services using network policies."""
INTERNET = {"ipBlock": {"cidr": "0.0.0.0/0", "except": list(PRIVATE_NETWORKS)}}
DNS_PORTS = [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]


def manifests(cluster: ClusterEnvironment) -> Iterator[Manifest]:
    """Yield the policies of an environment."""
    for tree in (
        _closed(cluster),
        _dns(cluster),
        *_of_edge(cluster),
        *_of_services(cluster),
        *_of_tests(cluster),
        *_of_resources(cluster),
        *_of_backups(cluster),
    ):
        yield Manifest(FILE, WAVE, tree)


def _closed(cluster: ClusterEnvironment) -> dict[str, Tree]:
    return _object(cluster, "closed", {"podSelector": OURS, "policyTypes": ["Ingress", "Egress"]})


def _dns(cluster: ClusterEnvironment) -> dict[str, Tree]:
    """Build the policy for DNS: cluster DNS, caches on the nodes and, in a cloud, its server."""
    system = {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}
    labelled = {"key": "k8s-app", "operator": "In", "values": ["kube-dns", "node-local-dns"]}
    peers: list[Tree] = [
        {"namespaceSelector": system, "podSelector": {"matchExpressions": [labelled]}}
    ]
    addresses = [NODE_LOCAL_DNS] + ([METADATA_SERVER] if cluster.settings.cloud else [])
    peers += [{"ipBlock": {"cidr": f"{address}/32"}} for address in addresses]
    egress = [{"to": peers, "ports": DNS_PORTS}]
    spec = {"podSelector": OURS, "policyTypes": ["Egress"], "egress": egress}
    return _object(cluster, "names", spec)


def _of_edge(cluster: ClusterEnvironment) -> Iterator[dict[str, Tree]]:
    if not edge.is_needed(cluster):
        return
    watched = any(is_rollout(cluster, s) and is_watched(s) for s in cluster.services.values())
    ingress: list[Tree] = [{"ports": [_tcp("web")], **_clients(cluster)}]
    if watched:
        ingress.append(_from(["watch"], STATS_PORT))
    egress = [_to(part, pod.port(s)) for part, s in cluster.services.items() if s.route]
    yield _policy(cluster, "edge", ingress=ingress, egress=egress)
    if watched:
        yield _policy(cluster, "watch", egress=[_to("edge", STATS_PORT)])


def _clients(cluster: ClusterEnvironment) -> dict[str, Tree]:
    """Build the peers that may connect to the edge.

    The pods of a gateway or an Ingress controller are in a namespace that only the owner of the
    cluster knows, so any namespace is allowed; from outside, only load balancers.
    """
    if ends_tls(cluster):
        return {}
    found: list[Tree] = []
    if cluster.settings.cloud is not None:
        found = [{"ipBlock": {"cidr": block}} for block in LOAD_BALANCERS]
    if cluster.settings.gateway is not None and not cluster.settings.uses_gke_gateway:
        found.append({"namespaceSelector": {}})
    return {"from": found}


def _of_services(cluster: ClusterEnvironment) -> Iterator[dict[str, Tree]]:
    late = [(n, s.after) for n, s in cluster.services.items() if s.after]
    for part, service in cluster.services.items():
        callers: list[str] = []
        if service.kind in ("web", "static"):
            callers += ["edge"] if service.route else []
            callers += [f"{part}-smoke"] if _has_smoke_tests(cluster, service) else []
            callers += [job for job, after in late if part in after]
        egress = _egress(cluster, service)
        ingress = [_from(callers, pod.port(service))] if callers else []
        yield _policy(cluster, part, ingress=ingress, egress=egress)
        if service.migrate is not None:
            yield _policy(cluster, f"{part}-migrate", egress=egress)


def _has_smoke_tests(cluster: ClusterEnvironment, service: Service) -> bool:
    return is_rollout(cluster, service) and bool(service.rollout.smoke)


def _of_tests(cluster: ClusterEnvironment) -> Iterator[dict[str, Tree]]:
    """Let a smoke test connect to the preview, and to what its service connects to."""
    for part, service in cluster.services.items():
        if _has_smoke_tests(cluster, service):
            egress = [_to(part, pod.port(service)), *_egress(cluster, service)]
            yield _policy(cluster, f"{part}-smoke", egress=egress)


def _egress(cluster: ClusterEnvironment, service: Service) -> list[Tree]:
    """Build the connections that a service may open."""
    found: list[Tree] = []
    for need in service.needs:
        if need in cluster.own_resources:
            found.append(_to(need, PORTS[cluster.own_resources[need].kind]))
        else:
            found.append(_to_managed(cluster, need))
    for part in service.after:
        if cluster.services[part].kind in ("web", "static"):
            found.append(_to(part, pod.port(cluster.services[part])))
    if service.internet:
        limit = {} if service.internet is True else {"ports": [_tcp(p) for p in service.internet]}
        found.append({"to": [INTERNET], **limit})
    return found


def _to_managed(cluster: ClusterEnvironment, need: str) -> dict[str, Tree]:
    """Build the connection to a database outside of the cluster.

    In a cloud it has an address in a range that `lapwing infra` renders; the free tier of MongoDB
    Atlas has a public address. Elsewhere the address is known only from the URL, a secret.
    """
    resource = cluster.managed_resources[need]
    ports = [_tcp(PORTS[resource.kind])]
    in_cloud, is_atlas = cluster.settings.cloud is not None, resource.kind == "mongodb"
    if is_atlas:
        first, last = ATLAS_PORTS
        ports = [{**_tcp(first), "endPort": last}]
    if not in_cloud:
        return {"ports": ports}
    if is_free_tier(resource):
        return {"to": [INTERNET], "ports": ports}
    addresses = Setting(
        f"resources.{need}.addresses", NODES if is_atlas else DATABASES, f"The range of {need}."
    )
    return {"to": [{"ipBlock": {"cidr": addresses}}], "ports": ports}


def _of_resources(cluster: ClusterEnvironment) -> Iterator[dict[str, Tree]]:
    for part, resource in cluster.own_resources.items():
        users = {n: s for n, s in cluster.services.items() if part in s.needs}
        callers = [*users, *(f"{n}-migrate" for n, s in users.items() if s.migrate)]
        callers += [f"{n}-smoke" for n, s in users.items() if _has_smoke_tests(cluster, s)]
        callers += [backup.PART] if cluster.settings.backup else []
        ingress = [_from(sorted(callers), PORTS[resource.kind])] if callers else []
        yield _policy(cluster, part, ingress=ingress, egress=[])


def _of_backups(cluster: ClusterEnvironment) -> Iterator[dict[str, Tree]]:
    """Let backups connect to the databases, and to the bucket.

    The address of an `endpoint` is not known, and may be private. The identity of pods on Google
    Cloud comes from a server on the node.
    """
    wanted = cluster.settings.backup
    if wanted is None:
        return
    egress = [_to(part, PORTS[r.kind]) for part, r in cluster.own_resources.items()]
    if wanted.port is not None:
        peers = {} if wanted.endpoint else {"to": [INTERNET]}
        egress.append({**peers, "ports": [_tcp(wanted.port)]})
    if wanted.port is not None and not wanted.in_s3:
        for address, port in IDENTITY_SERVERS:
            server = [{"ipBlock": {"cidr": f"{address}/32"}}]
            egress.append({"to": server, "ports": [_tcp(port)]})
    yield _policy(cluster, backup.PART, egress=egress)


def _policy(
    cluster: ClusterEnvironment, part: str, *, egress: list[Tree], ingress: list[Tree] | None = None
) -> dict[str, Tree]:
    """Build the policy of the pods of `part`. Without `ingress`, that of the namespace holds."""
    rules = {"egress": egress} if ingress is None else {"ingress": ingress, "egress": egress}
    types = [direction.capitalize() for direction in rules]
    spec = {"podSelector": {"matchLabels": selector(part)}, "policyTypes": types, **rules}
    return _object(cluster, part, spec)


def _object(cluster: ClusterEnvironment, part: str, spec: dict[str, Tree]) -> dict[str, Tree]:
    return new_object(cluster, "networking.k8s.io/v1", "NetworkPolicy", part, "network", spec=spec)


def _from(parts: Iterable[str], port: int) -> dict[str, Tree]:
    return {"from": [_pods(part) for part in parts], "ports": [_tcp(port)]}


def _to(part: str, port: int) -> dict[str, Tree]:
    return {"to": [_pods(part)], "ports": [_tcp(port)]}


def _pods(part: str) -> dict[str, Tree]:
    return {"podSelector": {"matchLabels": selector(part)}}


def _tcp(port: int | str) -> dict[str, Tree]:
    return {"protocol": "TCP", "port": port}
