"""Ingress to the cluster: Gateway API or a classic Ingress, HTTPS only.

In a cloud without `gateway:` the load balancer of `lapwing infra` points at the edge, and nothing
is needed here. Certificates come from cert-manager (`issuer`), from the cloud (an Ingress of GKE),
or from the Secret `<stack>-edge-tls`, which is created once.

Sources: Gateway API v1; Kubernetes documentation, Ingress; GKE documentation, ManagedCertificate
and FrontendConfig; cert-manager documentation, annotations.
"""

from __future__ import annotations

from collections.abc import Iterator

from lapwing.plan.names import EDGE_CERTIFICATE
from lapwing.render.kubernetes import edge
from lapwing.render.kubernetes.objects import ClusterEnvironment, Manifest, name, new_object
from lapwing.render.kubernetes.setting import Tree

FILE = "front.yaml"
WAVE = 7


def manifests(cluster: ClusterEnvironment) -> Iterator[Manifest]:
    """Yield the ingress of an environment that states a `gateway`."""
    gateway = cluster.settings.gateway
    if gateway is None or not edge.is_needed(cluster):
        return
    for tree in _gateway(cluster) if gateway.kind == "gateway" else _ingress(cluster):
        yield Manifest(FILE, WAVE, tree)


def _issuer(cluster: ClusterEnvironment) -> dict[str, Tree]:
    gateway = cluster.settings.gateway
    assert gateway is not None
    return {"cert-manager.io/cluster-issuer": gateway.issuer} if gateway.issuer else {}


def _gateway(cluster: ClusterEnvironment) -> Iterator[dict[str, Tree]]:
    gateway = cluster.settings.gateway
    assert gateway is not None
    cloud = cluster.settings.cloud is not None
    class_name = gateway.class_name or ("gke-l7-global-external-managed" if cloud else "envoy")
    host = cluster.domain
    shared = {"hostname": host, "allowedRoutes": {"namespaces": {"from": "Same"}}}
    tls = {"mode": "Terminate", "certificateRefs": [{"name": name(EDGE_CERTIFICATE)}]}
    listeners = [
        {"name": "https", "protocol": "HTTPS", "port": 443, **shared, "tls": tls},
        {"name": "http", "protocol": "HTTP", "port": 80, **shared},
    ]
    yield _object(
        cluster, "gateway.networking.k8s.io/v1", "Gateway", _issuer(cluster),
        spec={"gatewayClassName": class_name, "listeners": listeners},
    )  # fmt: skip
    backend = [{"name": name("edge"), "port": edge.service_port(cluster)}]
    yield _route(cluster, "front", "https", [{"backendRefs": backend}])
    redirect = {"scheme": "https", "statusCode": 301}
    filters = [{"type": "RequestRedirect", "requestRedirect": redirect}]
    yield _route(cluster, "front-http", "http", [{"filters": filters}])


def _route(
    cluster: ClusterEnvironment, part: str, listener: str, rules: list[Tree]
) -> dict[str, Tree]:
    spec = {
        "parentRefs": [{"name": name("front"), "sectionName": listener}],
        "hostnames": [cluster.domain],
        "rules": rules,
    }
    api = "gateway.networking.k8s.io/v1"
    return new_object(cluster, api, "HTTPRoute", "front", "front", called=name(part), spec=spec)


def _object(
    cluster: ClusterEnvironment,
    api: str,
    kind: str,
    annotations: dict[str, Tree] | None = None,
    *,
    spec: dict[str, Tree],
) -> dict[str, Tree]:
    return new_object(cluster, api, kind, "front", "front", annotations=annotations, spec=spec)


def _ingress(cluster: ClusterEnvironment) -> Iterator[dict[str, Tree]]:
    gateway = cluster.settings.gateway
    assert gateway is not None
    google = cluster.settings.cloud is not None and gateway.class_name in (None, "gce")
    annotations: dict[str, Tree] = dict(_issuer(cluster))
    spec: dict[str, Tree] = {}
    if google:
        # GKE's own controller reads its class from the annotation only.
        annotations["kubernetes.io/ingress.class"] = "gce"
        annotations["networking.gke.io/v1beta1.FrontendConfig"] = name("front")
        redirect = {"redirectToHttps": {"enabled": True}}
        yield _object(cluster, "networking.gke.io/v1beta1", "FrontendConfig", spec=redirect)
        if not gateway.issuer:
            annotations["networking.gke.io/managed-certificates"] = name("front")
            domains = {"domains": [cluster.domain]}
            yield _object(cluster, "networking.gke.io/v1", "ManagedCertificate", spec=domains)
    else:
        spec["ingressClassName"] = gateway.class_name or "nginx"
        annotations["nginx.ingress.kubernetes.io/force-ssl-redirect"] = "true"
    if gateway.issuer or not google:
        spec["tls"] = [{"hosts": [cluster.domain], "secretName": name(EDGE_CERTIFICATE)}]
    backend = {"service": {"name": name("edge"), "port": {"number": edge.service_port(cluster)}}}
    paths = [{"path": "/", "pathType": "Prefix", "backend": backend}]
    spec["rules"] = [{"host": cluster.domain, "http": {"paths": paths}}]
    yield _object(cluster, "networking.k8s.io/v1", "Ingress", annotations, spec=spec)
