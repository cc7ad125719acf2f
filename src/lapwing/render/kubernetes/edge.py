"""The edge: Envoy pods between the load balancer and the slots. Pure.

    load balancer -> edge Service -> Envoy pods -> the pods of the active slot

A load balancer of GKE sends requests to pods by endpoint groups. When the selector of the Service
behind such a group flips from blue to green, old endpoints leave before new ones are programmed: 5
to 10 s of 502 (ingress-gce #638, argo-rollouts #4772 and #4710). The Service of the edge never
flips. The flip happens behind it: the active Service of each service keeps its address, and from
one moment to the next the nodes lead new connections to the new slot. A connection that the edge
holds already would go on to the old one for as long as it is busy, so none is used for longer than
`RENEWED`: then the switch is over. A request under way ends where it began, and so does a
websocket, while the old slot is warm.

Headless Services, whose pods Envoy would learn from DNS, were looked at: the DNS of a cluster
answers from its cache for up to 30 s, in which both slots would have traffic and the analysis would
watch the wrong one.

The configuration is static, in a ConfigMap whose name ends in its digest, so that a change of
routes is a rolling update of the edge and a rollback brings the old one back.

Sources: Envoy documents, service discovery (strict DNS), HTTP connection manager; GKE documents,
container-native load balancing through standalone zonal NEGs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from lapwing.plan.names import EDGE_CERTIFICATE, endpoint_group
from lapwing.render.envoy import LIMITS, RETRIES, STREAM_IDLE, TYPE, matching, patience
from lapwing.render.kubernetes import pod
from lapwing.render.kubernetes.analysis import STATS_PORT
from lapwing.render.kubernetes.emit import document
from lapwing.render.kubernetes.setting import Digest, Joined, Scope, Setting, Tree, join
from lapwing.render.kubernetes.target import Manifest, Target, labels, meta, name, selector
from lapwing.stack.fields import ComputeResources
from lapwing.stack.model import Service

FILE = "edge.yaml"
WAVE = 6
ENVOY = "envoyproxy/envoy:distroless-v1.36.2"
USER = 65532
"""The numeric user of distroless images."""
PORT = 8080
"""Plain HTTP, behind a load balancer that ends TLS."""
TLS_PORT = 8443
HEALTH_CHECKERS = ("GoogleHC/", "kube-probe/")
"""How the user agents of those begin who ask `/ready`; for others that path is the stack's."""
LEAVING = 20
"""Seconds that an edge pod still serves when it has to go, until load balancers know."""
RENEWED = "1s"
"""How long a connection to a service is used. Source: Envoy documents, HttpProtocolOptions,
max_connection_duration; a stream on it is not cut."""
ASK_AGAIN = 10
"""Seconds after which a client may ask again for a service of which there is no pod."""
FLUSH = "1s"
"""How often Envoy adds up latencies; a window shows none that are younger."""


def is_needed(target: Target) -> bool:
    """Whether anything of the stack answers requests."""
    return any(s.route for s in target.services.values())


def ends_tls(target: Target) -> bool:
    """Whether the edge ends TLS itself: where nothing in front of it does."""
    return target.environment.gateway is None and target.environment.cloud is None


def manifests(target: Target) -> Iterator[Manifest]:
    """The edge of an environment that answers requests."""
    if not is_needed(target):
        return
    config = configuration(target)
    called = join(name("edge"), "-", Digest(config))
    yield Manifest(FILE, WAVE - 1, _config(target, called, config))
    yield Manifest(FILE, WAVE - 1, _account(target))
    yield Manifest(FILE, WAVE - 1, _service(target))
    yield Manifest(FILE, WAVE - 1, _stats(target))
    yield Manifest(FILE, WAVE - 1, _budget(target))
    yield Manifest(FILE, WAVE, _deployment(target, called))


def _config(target: Target, called: Joined, config: Joined) -> dict[str, Tree]:
    last = {"argocd.argoproj.io/sync-options": "PruneLast=true"} if target.is_argo else None
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": meta(target, called, "edge", "edge", last),
        "immutable": True,
        "data": {"envoy.yaml": config},
    }


def _account(target: Target) -> dict[str, Tree]:
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": meta(target, name("edge"), "edge", "edge"),
        "automountServiceAccountToken": False,
    }


def front(target: Target) -> int:
    """The port that the edge's Service has."""
    return 443 if ends_tls(target) else PORT


def _service(target: Target) -> dict[str, Tree]:
    """The one Service that a load balancer may point at: its selector never changes."""
    annotations = None
    if target.environment.cloud is not None and target.environment.gateway is None:
        loaded = target.loaded
        group = endpoint_group(loaded.stack.stack, loaded.environment)
        exposed = {"exposed_ports": {str(PORT): {"name": group}}}
        annotations = {"cloud.google.com/neg": json.dumps(exposed)}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta(target, name("edge"), "edge", "edge", annotations),
        "spec": {
            "type": "ClusterIP",
            "selector": selector("edge"),
            "ports": [{"name": "web", "port": front(target), "targetPort": "web"}],
        },
    }


def _stats(target: Target) -> dict[str, Tree]:
    """Leads to every edge pod by its own address, for who reads counters."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta(target, name("edge-stats"), "edge", "edge"),
        "spec": {
            "type": "ClusterIP",
            "clusterIP": "None",
            "selector": selector("edge"),
            "ports": [{"name": "stats", "port": STATS_PORT, "targetPort": "stats"}],
        },
    }


def replicas(target: Target) -> int:
    """One where a stack is tried out, two where it serves."""
    return 1 if ends_tls(target) else 2


def _budget(target: Target) -> dict[str, Tree]:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": meta(target, name("edge"), "edge", "edge"),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": selector("edge")}},
    }


def _deployment(target: Target, config: Joined) -> dict[str, Tree]:
    volumes: list[Tree] = [
        {"name": "config", "configMap": {"name": config}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "16Mi"}},
    ]
    mounts: list[Tree] = [
        {"name": "config", "mountPath": "/etc/envoy", "readOnly": True},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
    ]
    if ends_tls(target):
        volumes.append({"name": "tls", "secret": {"secretName": name(EDGE_CERTIFICATE)}})
        mounts.append({"name": "tls", "mountPath": "/etc/tls", "readOnly": True})
    ready = {"httpGet": {"path": "/ready", "port": "stats"}}
    needs = ComputeResources.model_validate({"cpu": "100m", "memory": "128Mi"})
    container: dict[str, Tree] = {
        "name": "envoy",
        "image": Setting("edge.image", ENVOY, "Envoy, which stands in front of every service."),
        "args": ["--config-path", "/etc/envoy/envoy.yaml", "--log-level", "warning"],
        "ports": [
            {"name": "web", "containerPort": TLS_PORT if ends_tls(target) else PORT},
            {"name": "stats", "containerPort": STATS_PORT},
        ],
        "resources": pod.asked(needs, "edge"),
        "securityContext": pod.CONTAINER,
        "lifecycle": {"preStop": {"sleep": {"seconds": LEAVING}}},
        "startupProbe": ready | {"periodSeconds": 1, "failureThreshold": 60},
        "livenessProbe": {"tcpSocket": {"port": "stats"}, "periodSeconds": 10},
        "readinessProbe": ready | {"periodSeconds": 5},
        "volumeMounts": mounts,
    }
    user = {"runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": meta(target, name("edge"), "edge", "edge"),
        "spec": {
            "replicas": Setting("edge.replicas", replicas(target), "Envoy pods."),
            "revisionHistoryLimit": 3,
            "selector": {"matchLabels": selector("edge")},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
            },
            "template": {
                "metadata": {"labels": labels(target, "edge", "edge")},
                "spec": {
                    "serviceAccountName": name("edge"),
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "securityContext": user | {"seccompProfile": {"type": "RuntimeDefault"}},
                    "terminationGracePeriodSeconds": LEAVING + 40,
                    "containers": [container],
                    "volumes": volumes,
                    "topologySpreadConstraints": pod.spread("edge"),
                    **pod.placed(target),
                },
            },
        },
    }


# Envoy's configuration


def configuration(target: Target) -> Joined:
    """Envoy's configuration as YAML, in which names are those of the installation."""
    routed = {n: s for n, s in target.services.items() if s.route}
    tree = {
        "admin": {"address": {"pipe": {"path": "/tmp/admin.sock", "mode": 0o600}}},  # noqa: S108
        "stats_flush_interval": FLUSH,
        "static_resources": {
            "listeners": [_web(target, routed), _counters()],
            "clusters": [*(_cluster(n, s) for n, s in routed.items()), _admin()],
        },
    }
    return _with_names(document(tree))


_MARK = "PREFIX0"


def _with_names(text: str) -> Joined:
    """Text in which a mark stands for what all names begin with."""
    pieces: list[Any] = []
    for number, piece in enumerate(text.split(_MARK)):
        pieces += [Scope.PREFIX, piece] if number else [piece]
    return join(*pieces)


def _web(target: Target, routed: Mapping[str, Service]) -> dict[str, Any]:
    longest = sorted(routed.items(), key=lambda item: (-len(item[1].route or ""), item[0]))
    manager = {
        "@type": f"{TYPE}.extensions.filters.network.http_connection_manager.v3"
        ".HttpConnectionManager",
        "stat_prefix": "edge",
        "use_remote_address": True,
        "xff_num_trusted_hops": _proxies_before(target),
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "stream_idle_timeout": STREAM_IDLE,
        "request_timeout": "0s",
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        "common_http_protocol_options": {
            # Longer than the load balancer's 600 s, so that it is never the edge that hangs up on
            # a connection just taken. Source: Google Cloud, "Timeouts and retries".
            "idle_timeout": "620s",
            "headers_with_underscores_action": "ALLOW",
        },
        "local_reply_config": {"mappers": [_nobody_there()]},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{TYPE}.extensions.filters.http.router.v3.Router"},
            }
        ],
        "route_config": {
            "name": "stack",
            "virtual_hosts": [
                {
                    "name": "stack",
                    "domains": ["*"],
                    "retry_policy": RETRIES,
                    "routes": [*_asked_for_health(), *(_route(n, s) for n, s in longest)],
                }
            ],
        },
    }
    chain: dict[str, Any] = {
        "filters": [
            {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
        ]
    }
    if ends_tls(target):
        chain["transport_socket"] = _tls()
    listening = TLS_PORT if ends_tls(target) else PORT
    return {"name": "web", "address": _everywhere(listening), "filter_chains": [chain]}


def _nobody_there() -> dict[str, Any]:
    """What a client is told where no pod of a service is, as in an upgrade with an outage: 503, and
    when to ask again. Only answers of the edge itself are changed, none of a service. Source: Envoy
    documents, "Local reply modification"."""
    return {
        "filter": {
            "status_code_filter": {
                "comparison": {"value": {"default_value": 503, "runtime_key": "edge_unavailable"}}
            }
        },
        "headers_to_add": [
            {
                "header": {"key": "retry-after", "value": str(ASK_AGAIN)},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }
        ],
        "body": {"inline_string": "This service is not available at the moment.\n"},
    }


def _proxies_before(target: Target) -> int:
    """How many entries of X-Forwarded-For proxies in front have added. Google's load balancers add
    two, the client's address and their own. Source: Google Cloud, Application Load Balancers,
    "X-Forwarded-For header"."""
    if ends_tls(target):
        return 0
    return 2 if target.environment.cloud is not None else 1


def _tls() -> dict[str, Any]:
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{TYPE}.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
                "tls_certificates": [
                    {
                        "certificate_chain": {"filename": "/etc/tls/tls.crt"},
                        "private_key": {"filename": "/etc/tls/tls.key"},
                    }
                ],
            },
        },
    }


def _asked_for_health() -> Iterator[dict[str, Any]]:
    for agent in HEALTH_CHECKERS:
        header = {"name": "user-agent", "string_match": {"prefix": agent}}
        yield {
            "match": {"path": "/ready", "headers": [header]},
            "direct_response": {"status": 200, "body": {"inline_string": "ready\n"}},
        }


def _route(part: str, service: Service) -> dict[str, Any]:
    timeout = patience(service.timeout)
    return {
        "match": matching((service.route or "/").rstrip("/") or "/"),
        "route": {"cluster": part, "timeout": timeout, "idle_timeout": STREAM_IDLE},
    }


def _cluster(part: str, service: Service) -> dict[str, Any]:
    host, port = f"{_MARK}-{part}", pod.port(service)
    return {
        "name": part,
        "type": "STRICT_DNS",
        "connect_timeout": "1s",
        "dns_lookup_family": "ALL",
        "load_assignment": {
            "cluster_name": part,
            "endpoints": [
                {
                    "lb_endpoints": [
                        {
                            "endpoint": {
                                "address": {"socket_address": {"address": host, "port_value": port}}
                            }
                        }
                    ]
                }
            ],
        },
        "circuit_breakers": LIMITS,
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions",
                "common_http_protocol_options": {
                    "idle_timeout": RENEWED,
                    "max_connection_duration": RENEWED,
                },
                "explicit_http_config": {"http_protocol_options": {}},
            }
        },
    }


def _counters() -> dict[str, Any]:
    """Counters and readiness, read-only: no other path of the admin interface is reachable."""
    reachable = ("/ready", "/stats/prometheus")
    routes = [
        {
            "match": {"path": path}
            | {"headers": [{"name": ":method", "string_match": {"exact": "GET"}}]},
            "route": {"cluster": "admin"},
        }
        for path in reachable
    ]
    manager = {
        "@type": f"{TYPE}.extensions.filters.network.http_connection_manager.v3"
        ".HttpConnectionManager",
        "stat_prefix": "counters",
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{TYPE}.extensions.filters.http.router.v3.Router"},
            }
        ],
        "route_config": {
            "name": "counters",
            "virtual_hosts": [{"name": "counters", "domains": ["*"], "routes": routes}],
        },
    }
    return {
        "name": "counters",
        "address": _everywhere(STATS_PORT),
        "filter_chains": [
            {
                "filters": [
                    {
                        "name": "envoy.filters.network.http_connection_manager",
                        "typed_config": manager,
                    }
                ]
            }
        ],
    }


def _admin() -> dict[str, Any]:
    return {
        "name": "admin",
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": "admin",
            "endpoints": [
                {
                    "lb_endpoints": [
                        {"endpoint": {"address": {"pipe": {"path": "/tmp/admin.sock"}}}}  # noqa: S108
                    ]
                }
            ],
        },
    }


def _everywhere(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "0.0.0.0", "port_value": port}}  # noqa: S104
