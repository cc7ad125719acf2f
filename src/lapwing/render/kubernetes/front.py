"""How requests come into the cluster: Gateway API or a classic Ingress, HTTPS only. Pure.

In a cloud without `gateway:` the load balancer of `lapwing infra` points at the edge, and nothing
is needed here. Certificates come from cert-manager (`issuer`), from the cloud (an Ingress of GKE),
or from the Secret `<stack>-edge-tls`, which is made once.

Sources: Gateway API v1; Kubernetes documents, Ingress; GKE documents, ManagedCertificate and
FrontendConfig; cert-manager documents, annotations.
"""

from __future__ import annotations

from collections.abc import Iterator

from lapwing.plan.names import EDGE_CERTIFICATE
from lapwing.render.kubernetes import edge
from lapwing.render.kubernetes.setting import Setting, Tree
from lapwing.render.kubernetes.target import Manifest, Target, meta, name

FILE = "front.yaml"
WAVE = 7


def manifests(target: Target) -> Iterator[Manifest]:
    """The way in, of an environment that says which."""
    gateway = target.environment.gateway
    if gateway is None or not edge.is_needed(target):
        return
    made = _gateway(target) if gateway.kind == "gateway" else _ingress(target)
    for tree in made:
        yield Manifest(FILE, WAVE, tree)


def _domain(target: Target) -> Setting:
    stated = target.environment.domain or f"{target.loaded.stack.stack}.localhost"
    return Setting("domain", stated, "The host name that the stack answers to.")


def _issued(target: Target) -> dict[str, str]:
    gateway = target.environment.gateway
    assert gateway is not None
    return {"cert-manager.io/cluster-issuer": gateway.issuer} if gateway.issuer else {}


def _gateway(target: Target) -> Iterator[dict[str, Tree]]:
    gateway = target.environment.gateway
    assert gateway is not None
    cloud = target.environment.cloud is not None
    klass = gateway.class_name or ("gke-l7-global-external-managed" if cloud else "envoy")
    host = _domain(target)
    own = {"namespaces": {"from": "Same"}}
    yield {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": meta(target, name("front"), "front", "front", _issued(target)),
        "spec": {
            "gatewayClassName": klass,
            "listeners": [
                {
                    "name": "https",
                    "protocol": "HTTPS",
                    "port": 443,
                    "hostname": host,
                    "allowedRoutes": own,
                    "tls": {
                        "mode": "Terminate",
                        "certificateRefs": [{"name": name(EDGE_CERTIFICATE)}],
                    },
                },
                {
                    "name": "http",
                    "protocol": "HTTP",
                    "port": 80,
                    "hostname": host,
                    "allowedRoutes": own,
                },
            ],
        },
    }
    backend = [{"name": name("edge"), "port": edge.front(target)}]
    yield _route(target, "front", "https", [{"backendRefs": backend}])
    redirect = {"scheme": "https", "statusCode": 301}
    away = [{"filters": [{"type": "RequestRedirect", "requestRedirect": redirect}]}]
    yield _route(target, "front-http", "http", away)


def _route(target: Target, part: str, listener: str, rules: list[Tree]) -> dict[str, Tree]:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": meta(target, name(part), "front", "front"),
        "spec": {
            "parentRefs": [{"name": name("front"), "sectionName": listener}],
            "hostnames": [_domain(target)],
            "rules": rules,
        },
    }


def _ingress(target: Target) -> Iterator[dict[str, Tree]]:
    gateway = target.environment.gateway
    assert gateway is not None
    google = target.environment.cloud is not None and gateway.class_name in (None, "gce")
    annotations: dict[str, Tree] = dict(_issued(target))
    spec: dict[str, Tree] = {}
    if google:
        # The class of GKE's own controller is told by the annotation only.
        annotations["kubernetes.io/ingress.class"] = "gce"
        annotations["networking.gke.io/v1beta1.FrontendConfig"] = name("front")
        yield {
            "apiVersion": "networking.gke.io/v1beta1",
            "kind": "FrontendConfig",
            "metadata": meta(target, name("front"), "front", "front"),
            "spec": {"redirectToHttps": {"enabled": True}},
        }
        if not gateway.issuer:
            annotations["networking.gke.io/managed-certificates"] = name("front")
            yield {
                "apiVersion": "networking.gke.io/v1",
                "kind": "ManagedCertificate",
                "metadata": meta(target, name("front"), "front", "front"),
                "spec": {"domains": [_domain(target)]},
            }
    else:
        spec["ingressClassName"] = gateway.class_name or "nginx"
        annotations["nginx.ingress.kubernetes.io/force-ssl-redirect"] = "true"
    if gateway.issuer or not google:
        spec["tls"] = [{"hosts": [_domain(target)], "secretName": name(EDGE_CERTIFICATE)}]
    backend = {"service": {"name": name("edge"), "port": {"number": edge.front(target)}}}
    spec["rules"] = [
        {
            "host": _domain(target),
            "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]},
        }
    ]
    yield {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": meta(target, name("front"), "front", "front", annotations),
        "spec": spec,
    }
