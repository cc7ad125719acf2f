"""Smoke tests before the switch and traffic analysis after it, as Argo Rollouts AnalysisTemplates.

Each smoke test is a Job: a request to the preview Service by curl, or a command in the image under
test. Live traffic is analysed by a Job, too, which reads Envoy's own counters from every edge pod
at the start and at the end of the window. So nothing has to be installed for it, no Prometheus and
no agent, and the figures are those that clients met.

A rollback by the controller moves traffic, but never writes to git. `lapwing rollback` does both.

Source: Argo Rollouts documentation, Analysis and the Job provider; Envoy documentation,
`/stats/prometheus` and cluster statistics.
"""

from __future__ import annotations

from collections.abc import Iterator

from lapwing.render.kubernetes import pod, pod_settings
from lapwing.render.kubernetes.objects import ClusterEnvironment, labels, name, new_object
from lapwing.render.kubernetes.setting import MERGE, Extra, Joined, Setting, Tree, join
from lapwing.stack.model import Service
from lapwing.stack.rollout import Analysis, Smoke
from lapwing.system.package_data import read

CURL = "curlimages/curl:8.16.0"
CURL_USER = 100
"""The numeric user of the curl image. Source: its Dockerfile, `curl_user`."""
STATS_PORT = 9902
"""The port of an edge pod that serves Envoy's counters, and nothing else."""

REQUEST = read("render.kubernetes", "scripts/request.sh")
WATCH = read("render.kubernetes", "scripts/watch.sh")
"""Reads the counters twice. `read_all` writes a line per sample: edge, name with labels, value. An
edge pod that does not respond fails the analysis. Envoy aggregates latencies once a second
(`edge_config.STATS_FLUSH_INTERVAL`), so the second reading is that much later."""

BRACES = "{{"
ARGUMENT = {"name": "braces", "value": BRACES}
"""Argo Rollouts reads text between `{{` and `}}` anywhere in a metric as the name of an argument,
and fails if there is no such argument. So braces in text of the stack file come from an argument;
the value of an argument is not expanded again. Source: `utils/template` of Argo Rollouts.
"""

PULL_TIMEOUT_S = 120
"""How long the pod of a test may take to be scheduled and to pull its image."""


def is_watched(service: Service) -> bool:
    """Report whether live traffic is analysed after a switch."""
    return service.rollout.analysis is not None and service.route is not None


def templates(
    cluster: ClusterEnvironment, part: str, service: Service
) -> Iterator[dict[str, Tree]]:
    """Yield the AnalysisTemplates of a service: before the switch, and after it."""
    smoke = service.rollout.smoke
    if smoke:
        metrics = [_smoke(cluster, part, service, test, i) for i, test in enumerate(smoke, 1)]
        yield _template(cluster, part, "smoke", metrics)
    if is_watched(service):
        assert service.rollout.analysis is not None
        yield _template(
            cluster, part, "analysis", [_watch(cluster, part, service.rollout.analysis)]
        )


def _template(
    cluster: ClusterEnvironment, part: str, kind: str, metrics: list[Tree]
) -> dict[str, Tree]:
    literal = _literal(metrics)
    arguments = {"args": [ARGUMENT]} if literal != metrics else {}
    spec = {**arguments, "metrics": literal}
    return new_object(
        cluster, "argoproj.io/v1alpha1", "AnalysisTemplate", part, kind,
        called=name(part, kind), spec=spec,
    )  # fmt: skip


def _literal(tree: Tree) -> Tree:
    """Escape every text of a tree so that Argo Rollouts keeps it unchanged."""
    if isinstance(tree, dict):
        added = tree.get(MERGE)
        if isinstance(added, Extra) and BRACES in str(added.default):
            # Such as an annotation with a template of another program: no value of a chart.
            return _literal({k: v for k, v in tree.items() if k != MERGE} | added.default)
        return {key: _literal(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_literal(value) for value in tree]
    if isinstance(tree, Joined):
        return Joined(tuple(_literal(piece) for piece in tree.pieces))
    if isinstance(tree, str):
        return tree.replace(BRACES, f"{BRACES}args.{ARGUMENT['name']}}}}}")
    return tree


def _smoke(
    cluster: ClusterEnvironment, part: str, service: Service, test: Smoke, number: int
) -> Tree:
    preview = join("http://", name(part, "preview"), f":{pod.port(service)}")
    if test.run is not None:
        command = pod.template(
            cluster, part, service, component="smoke", command=test.run, restart="Never"
        )
        command["spec"]["containers"][0]["env"].append(
            {"name": "LAPWING_PREVIEW_URL", "value": preview}
        )
        # The Service of the service must not select the pod of a smoke test.
        command["metadata"]["labels"] = labels(cluster, f"{part}-smoke", "smoke")
        return _job(f"smoke-{number}", command, round(test.timeout) + PULL_TIMEOUT_S)
    variables = {
        "HOST": service.health.host or cluster.domain,
        "URL": join(preview, pod.literal(test.get or "/")),
        "EXPECT": str(test.expect),
        "CONTAINS": pod.literal(test.contains or ""),
        "TIMEOUT": str(max(1, round(test.timeout))),
    }
    return _job(f"smoke-{number}", _curl(cluster, f"{part}-smoke", REQUEST, variables), 600)


def _watch(cluster: ClusterEnvironment, part: str, limits: Analysis) -> Tree:
    """Build the analysis of a window. One with fewer requests than `min_requests` passes."""
    error, p95 = limits.max_error_rate, limits.max_p95
    window = max(1, round(limits.window))
    variables = {
        "EDGE": name("edge-stats"),
        "PORT": str(STATS_PORT),
        "CLUSTER": part,
        "WINDOW": str(window),
        "LEAST": str(limits.min_requests),
        "MOST_ERRORS": "" if error is None else f"{error:g}",
        "MOST_P95": "" if p95 is None else str(round(p95 * 1000)),
    }
    return _job("traffic", _curl(cluster, "watch", WATCH, variables), window + PULL_TIMEOUT_S)


def _curl(
    cluster: ClusterEnvironment, part: str, script: str, variables: dict[str, Tree]
) -> dict[str, Tree]:
    """Build a pod that runs a script with curl."""
    return {
        "metadata": pod_settings.metadata(cluster, part, "smoke"),
        "spec": {
            "restartPolicy": "Never",
            **pod.NO_TOKEN,
            "securityContext": pod.security(CURL_USER, group=CURL_USER),
            "containers": [
                {
                    "name": "main",
                    "image": Setting(
                        "curl.image", cluster.pinned(CURL), "The image of curl, for tests."
                    ),
                    "command": ["/bin/sh", "-c", script],
                    "env": [{"name": key, "value": value} for key, value in variables.items()],
                    "resources": {
                        "requests": {"cpu": "50m", "memory": "64Mi", "ephemeral-storage": "50Mi"},
                        "limits": {"memory": "64Mi", "ephemeral-storage": "100Mi"},
                    },
                    "securityContext": pod.CONTAINER,
                    "volumeMounts": [pod.TMP_MOUNT],
                }
            ],
            "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "50Mi"}}],
            MERGE: pod_settings.extra_spec(cluster, spot=True),
        },
    }


def _job(called: str, template: dict[str, Tree], seconds: int) -> Tree:
    spec = {"backoffLimit": 0, "activeDeadlineSeconds": seconds, "template": template}
    return {"name": called, "provider": {"job": {"spec": spec}}}
