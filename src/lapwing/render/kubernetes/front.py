"""Ingress to the cluster: Gateway API or a classic Ingress, HTTPS only.

In a cloud without `gateway:` the load balancer of `lapwing infra` points at the edge, and nothing
is needed here. Certificates come from cert-manager (`issuer`), from the cloud (a Gateway of GKE
uses the certificate map of `lapwing infra`, an Ingress of GKE a ManagedCertificate), or from the
Secret `<stack>-edge-tls`, which is created once.

A load balancer that GKE makes has policies like the one of `lapwing infra`: its health check is the
edge's `/ready`, streams may last an hour, and connections are drained.

Sources: Gateway API v1; Kubernetes documentation, Ingress; GKE documentation, Gateway policies
(HealthCheckPolicy, GCPBackendPolicy, GCPGatewayPolicy), BackendConfig, ManagedCertificate and
FrontendConfig; cert-manager documentation, annotations.
"""

from __future__ import annotations

from collections.abc import Iterator

from lapwing.plan.names import EDGE, EDGE_CERTIFICATE, edge_address
from lapwing.render.kubernetes import edge
from lapwing.render.kubernetes.edge_config import PORT
from lapwing.render.kubernetes.objects import ClusterEnvironment, Manifest, name, new_object
from lapwing.render.kubernetes.setting import Tree
from lapwing.stack.environment import GKE_CLASSES

FILE = "front.yaml"
WAVE = 7
STREAM_TIMEOUT_S = 3600
"""As that of the backend services of `lapwing infra`."""
GATEWAY_API = "gateway.networking.k8s.io/v1"
POLICIES = "networking.gke.io/v1"


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
    is_gke = cluster.settings.uses_gke_gateway
    class_name = gateway.class_name or (GKE_CLASSES["gateway"] if is_gke else "envoy")
    host = cluster.domain
    shared = {"hostname": host, "allowedRoutes": {"namespaces": {"from": "Same"}}}
    tls = {"mode": "Terminate", "certificateRefs": [{"name": name(EDGE_CERTIFICATE)}]}
    has_map = is_gke and not gateway.issuer
    listeners = [
        {
            "name": "https",
            "protocol": "HTTPS",
            "port": 443,
            **shared,
            **({} if has_map else {"tls": tls}),
        },
        {"name": "http", "protocol": "HTTP", "port": 80, **shared},
    ]
    annotations = {"networking.gke.io/certmap": EDGE} if has_map else _issuer(cluster)
    spec: dict[str, Tree] = {"gatewayClassName": class_name, "listeners": listeners}
    if is_gke:
        address = edge_address(cluster.loaded.environment)
        spec["addresses"] = [{"type": "NamedAddress", "value": address}]
    yield _object(cluster, GATEWAY_API, "Gateway", annotations, spec=spec)
    backend = [{"name": name("edge"), "port": edge.service_port(cluster)}]
    yield _route(cluster, "front", "https", [{"backendRefs": backend}])
    redirect = {"scheme": "https", "statusCode": 301}
    filters = [{"type": "RequestRedirect", "requestRedirect": redirect}]
    yield _route(cluster, "front-http", "http", [{"filters": filters}])
    if is_gke:
        yield from _gateway_policies(cluster)


def _gateway_policies(cluster: ClusterEnvironment) -> Iterator[dict[str, Tree]]:
    """Yield the settings of the load balancer of a Gateway, for the edge and for its TLS."""
    service = {"group": "", "kind": "Service", "name": name("edge")}
    check = {
        "type": "HTTP",
        "httpHealthCheck": {
            "portSpecification": "USE_FIXED_PORT",
            "port": PORT,
            "requestPath": "/ready",
        },
    }
    intervals = {"checkIntervalSec": 5, "timeoutSec": 2}
    backend = {
        "timeoutSec": STREAM_TIMEOUT_S,
        "connectionDraining": {"drainingTimeoutSec": edge.GRACE_S},
        "logging": {"enabled": True, "sampleRate": 1_000_000},
    }
    gateway = {"group": GATEWAY_API.partition("/")[0], "kind": "Gateway", "name": name("front")}
    for kind, default, target in (
        ("HealthCheckPolicy", {**intervals, "config": check}, service),
        ("GCPBackendPolicy", backend, service),
        ("GCPGatewayPolicy", {"sslPolicy": EDGE}, gateway),
    ):
        yield _object(cluster, POLICIES, kind, spec={"default": default, "targetRef": target})


def _route(
    cluster: ClusterEnvironment, part: str, listener: str, rules: list[Tree]
) -> dict[str, Tree]:
    spec = {
        "parentRefs": [{"name": name("front"), "sectionName": listener}],
        "hostnames": [cluster.domain],
        "rules": rules,
    }
    return new_object(
        cluster, GATEWAY_API, "HTTPRoute", "front", "front", called=name(part), spec=spec
    )


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
    google = cluster.settings.uses_gke_gateway
    annotations: dict[str, Tree] = dict(_issuer(cluster))
    spec: dict[str, Tree] = {}
    if google:
        # GKE's own controller reads its class from the annotation only.
        annotations["kubernetes.io/ingress.class"] = GKE_CLASSES["ingress"]
        address = edge_address(cluster.loaded.environment)
        annotations["kubernetes.io/ingress.global-static-ip-name"] = address
        annotations["networking.gke.io/v1beta1.FrontendConfig"] = name("front")
        redirect = {"redirectToHttps": {"enabled": True}, "sslPolicy": EDGE}
        yield _object(cluster, "networking.gke.io/v1beta1", "FrontendConfig", spec=redirect)
        yield _object(cluster, "cloud.google.com/v1", "BackendConfig", spec=_backend_config())
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


def _backend_config() -> dict[str, Tree]:
    """Build the settings of the load balancer of an Ingress; the edge's Service refers to them."""
    check = {"type": "HTTP", "requestPath": "/ready", "port": PORT}
    return {
        "timeoutSec": STREAM_TIMEOUT_S,
        "connectionDraining": {"drainingTimeoutSec": edge.GRACE_S},
        "healthCheck": {"checkIntervalSec": 5, "timeoutSec": 2, **check},
        "logging": {"enable": True, "sampleRate": 1.0},
    }
