"""The edge: Envoy pods between the load balancer and the slots.

    load balancer -> edge Service -> Envoy pods -> the pods of the active slot

A load balancer of GKE sends requests to pods by endpoint groups. When the selector of the Service
behind such a group flips from blue to green, old endpoints are removed before new ones are
programmed: 5 to 10 s of 502 (ingress-gce #638, argo-rollouts #4772 and #4710). The Service of the
edge never flips. The flip happens behind it: the active Service of each service keeps its address,
and the nodes send new connections to the new slot at once. A connection that the edge already holds
would reach the old slot for as long as it is busy, so the edge uses none for longer than
`edge_config.MAX_CONNECTION_DURATION`: then the switch is complete. A request or a websocket that is
open ends where it began, while the old slot is warm.

Headless Services, whose pods Envoy would discover by DNS, are no alternative: cluster DNS caches
for up to 30 s, during which both slots would have traffic and the analysis would watch the wrong
one.

Source: GKE documentation, container-native load balancing through standalone zonal NEGs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from lapwing.plan.names import EDGE_CERTIFICATE, endpoint_group
from lapwing.render.kubernetes import pod, pod_settings, workloads
from lapwing.render.kubernetes.analysis import STATS_PORT
from lapwing.render.kubernetes.edge_config import (
    DRAIN_PORT,
    PORT,
    TLS_PORT,
    configuration,
    ends_tls,
)
from lapwing.render.kubernetes.edge_size import EdgeSize, edge_size
from lapwing.render.kubernetes.objects import (
    ClusterEnvironment,
    Manifest,
    autoscaler,
    disruption_budget,
    name,
    new_object,
    selector,
    service,
    service_account,
)
from lapwing.render.kubernetes.setting import MERGE, Digest, Joined, Setting, Tree, join
from lapwing.stack.fields import ComputeResources
from lapwing.stack.model import SCALE_UP_CPU

FILE = "edge.yaml"
WAVE = 6
ENVOY = "envoyproxy/envoy:distroless-v1.36.2"
ARGUMENTS = ["--config-path", "/etc/envoy/envoy.yaml", "--log-level", "warning"]
DEPLOYMENT = ("apps/v1", "Deployment")
USER = 65532
"""The numeric user of distroless images."""
GRACE_S = 300
"""How long a terminating edge pod keeps open streams: as long as the load balancer that `infra`
makes (`connection_draining_timeout_sec`)."""


def is_needed(cluster: ClusterEnvironment) -> bool:
    """Report whether any service of the stack has a route."""
    return any(s.route for s in cluster.services.values())


def service_port(cluster: ClusterEnvironment) -> int:
    """Return the port of the edge's Service."""
    return 443 if ends_tls(cluster) else PORT


def size_of(cluster: ClusterEnvironment) -> EdgeSize:
    """Return the size of the edge of an environment.

    It has at least two pods where a service behind it has or a load balancer is in front. It is
    scaled where the cluster measures CPU: in a cloud, or where a service is scaled as well.
    """
    routed = [s for s in cluster.services.values() if s.route]
    cpu = [round((s.resources.cpu or pod.DEFAULT_CPU) * 1000) for s in routed]
    counts = [(s.replicas.min, max(s.replicas.min, s.replicas.max or 0)) for s in routed]
    return edge_size(
        sum(milli * least for milli, (least, _) in zip(cpu, counts, strict=True)),
        sum(milli * most for milli, (_, most) in zip(cpu, counts, strict=True)),
        replicated=not ends_tls(cluster) or any(least > 1 for least, _ in counts),
        scaled=cluster.settings.cloud is not None
        or any(workloads.is_scaled(s) for s in cluster.services.values()),
        max_body=max((s.max_body or 0 for s in routed), default=0),
    )


def manifests(cluster: ClusterEnvironment) -> Iterator[Manifest]:
    """Yield the edge of an environment that has a route."""
    if not is_needed(cluster):
        return
    size = size_of(cluster)
    config = configuration(cluster, size)
    config_name = join(name("edge"), "-", Digest(config))
    # Headless: counters are read from each pod by its own address.
    port = {"name": "stats", "port": STATS_PORT, "targetPort": "stats"}
    stats = service(cluster, "edge", "edge", port, headless=True, called=name("edge-stats"))
    for tree in (
        _config(cluster, config_name, config),
        service_account(cluster, "edge", "edge"),
        _service(cluster),
        stats,
        disruption_budget(cluster, "edge", "edge"),
    ):
        yield Manifest(FILE, WAVE - 1, tree)
    yield Manifest(FILE, WAVE, _deployment(cluster, size, config_name))
    if size.max_pods > size.pods:
        yield Manifest(FILE, WAVE + 1, _autoscaler(cluster, size))


def _config(cluster: ClusterEnvironment, called: Joined, config: Joined) -> dict[str, Tree]:
    last = {"argocd.argoproj.io/sync-options": "PruneLast=true"} if cluster.is_argo else None
    return new_object(
        cluster, "v1", "ConfigMap", "edge", "edge", called=called, annotations=last,
        immutable=True, data={"envoy.yaml": config},
    )  # fmt: skip


def _service(cluster: ClusterEnvironment) -> dict[str, Tree]:
    """Build the only Service that a load balancer may point at: its selector never changes."""
    annotations: dict[str, Tree] | None = None
    gateway = cluster.settings.gateway
    if cluster.settings.cloud is not None and gateway is None:
        loaded = cluster.loaded
        group = endpoint_group(loaded.stack.stack, loaded.environment)
        exposed = {"exposed_ports": {str(PORT): {"name": group}}}
        annotations = {"cloud.google.com/neg": json.dumps(exposed)}
    elif gateway is not None and gateway.kind == "ingress" and cluster.settings.uses_gke_gateway:
        annotations = {
            "cloud.google.com/neg": '{"ingress": true}',
            "cloud.google.com/backend-config": join('{"default": "', name("front"), '"}'),
        }
    port = {"name": "web", "port": service_port(cluster), "targetPort": "web"}
    return service(cluster, "edge", "edge", port, annotations=annotations)


def _pods(size: EdgeSize) -> Setting:
    return Setting(
        "edge.replicas", size.pods, "Number of Envoy pods, the least if they are scaled."
    )


def _autoscaler(cluster: ClusterEnvironment, size: EdgeSize) -> dict[str, Tree]:
    return autoscaler(
        cluster, "edge", DEPLOYMENT,
        least=_pods(size),
        most=Setting("edge.maxReplicas", size.max_pods, "Maximum number of Envoy pods."),
        cpu=round(SCALE_UP_CPU * 100),
    )  # fmt: skip


def _deployment(cluster: ClusterEnvironment, size: EdgeSize, config: Joined) -> dict[str, Tree]:
    volumes: list[Tree] = [
        {"name": "config", "configMap": {"name": config}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "16Mi"}},
    ]
    mounts: list[Tree] = [
        {"name": "config", "mountPath": "/etc/envoy", "readOnly": True},
        pod.TMP_MOUNT,
    ]
    if ends_tls(cluster):
        volumes.append({"name": "tls", "secret": {"secretName": name(EDGE_CERTIFICATE)}})
        mounts.append({"name": "tls", "mountPath": "/etc/tls", "readOnly": True})
    template: dict[str, Tree] = {
        "metadata": pod_settings.metadata(cluster, "edge", "edge"),
        "spec": {
            "serviceAccountName": name("edge"),
            **pod.NO_TOKEN,
            "securityContext": pod.security(USER, group=USER, files=USER),
            "terminationGracePeriodSeconds": Setting(
                "edge.terminationGracePeriodSeconds",
                GRACE_S,
                "How long a terminating Envoy pod keeps open requests and streams.",
            ),
            "containers": [_container(cluster, size, mounts)],
            "volumes": volumes,
            "topologySpreadConstraints": pod.spread("edge"),
            MERGE: pod_settings.extra_spec(cluster, spot=True),
        },
    }
    return new_object(
        cluster, *DEPLOYMENT, "edge", "edge",
        spec={
            **({} if size.max_pods > size.pods else {"replicas": _pods(size)}),
            "revisionHistoryLimit": 3,
            "selector": {"matchLabels": selector("edge")},
            "strategy": pod.ROLLING_UPDATE,
            "template": template,
        },
    )  # fmt: skip


def _container(cluster: ClusterEnvironment, size: EdgeSize, mounts: list[Tree]) -> dict[str, Tree]:
    scheme = "HTTPS" if ends_tls(cluster) else "HTTP"
    ready = {"httpGet": {"path": "/ready", "port": "web", "scheme": scheme}}
    needs = ComputeResources.model_validate({"cpu": f"{size.cpu}m", "memory": size.memory})
    threads = Setting("edge.concurrency", size.concurrency, "Worker threads of each Envoy pod.")
    return {
        "name": "envoy",
        "image": Setting(
            "edge.image",
            cluster.pinned(ENVOY),
            "The image of Envoy, in front of every service.",
        ),
        "args": [*ARGUMENTS, "--concurrency", join(threads)],
        "ports": [
            {"name": "web", "containerPort": TLS_PORT if ends_tls(cluster) else PORT},
            {"name": "stats", "containerPort": STATS_PORT},
            {"name": "drain", "containerPort": DRAIN_PORT},
        ],
        "resources": pod.requests(needs, "edge"),
        "securityContext": pod.CONTAINER,
        "lifecycle": {"preStop": {"httpGet": {"path": "/drain", "port": "drain"}}},
        "livenessProbe": {
            "tcpSocket": {"port": "stats"},
            "periodSeconds": 10,
            "failureThreshold": 6,
        },
        # A restarted kubelet reports a pod as not ready until it has probed it, first for startup,
        # at a random time of the period.
        "readinessProbe": ready | {"periodSeconds": 1, "failureThreshold": 15},
        "volumeMounts": mounts,
    }
