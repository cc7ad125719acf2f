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

from lapwing.render.kubernetes import pod
from lapwing.render.kubernetes.objects import ClusterEnvironment, labels, name, new_object
from lapwing.render.kubernetes.setting import Joined, Setting, Tree, join
from lapwing.stack.model import Analysis, Service, Smoke

CURL = "curlimages/curl:8.16.0"
CURL_USER = 100
"""The numeric user of the curl image. Source: its Dockerfile, `curl_user`."""
STATS_PORT = 9902
"""The port of an edge pod that serves Envoy's counters, and nothing else."""

REQUEST = """set -eu
status=$(curl --silent --show-error --max-time "$TIMEOUT" --output /tmp/answer \\
  --write-out '%{http_code}' "$URL")
if [ "$status" != "$EXPECT" ]; then
  echo "GET $URL answered $status, not $EXPECT:"
  head -c 2000 /tmp/answer
  exit 1
fi
if [ -n "$CONTAINS" ] && ! grep -qF -- "$CONTAINS" /tmp/answer; then
  echo "The answer of GET $URL does not contain: $CONTAINS"
  head -c 2000 /tmp/answer
  exit 1
fi
"""

WATCH = r"""set -eu
read_all() {
  nslookup -type=a "$EDGE" | awk '/^Name:/ {on = 1} on && /^Address/ {print $NF}' > /tmp/edges
  test -s /tmp/edges || { echo "No edge pod answers to $EDGE."; exit 1; }
  : > "$1"
  while read -r edge; do
    curl --silent --show-error --fail --max-time 10 --get --output /tmp/read \
      --data-urlencode "filter=^cluster\.$CLUSTER\.upstream_rq_(time|xx|[0-9])" \
      "http://$edge:$PORT/stats/prometheus"
    sed "s/^/$edge /" /tmp/read >> "$1"
  done < /tmp/edges
}
read_all /tmp/before
sleep "$WINDOW"
sleep 2
read_all /tmp/after
awk -v least="$LEAST" -v most_errors="$MOST_ERRORS" -v most_p95="$MOST_P95" '
  function label(text, key,    at) {
    at = index(text, key "=\"")
    if (!at) return ""
    text = substr(text, at + length(key) + 2)
    return substr(text, 1, index(text, "\"") - 1)
  }
  { value = $NF; if (FNR == NR) { before[$1 " " $2] = value; next } }
  {
    grown = value - before[$1 " " $2]
    if (grown <= 0) next
    if ($2 ~ /^envoy_cluster_upstream_rq_xx\{/) {
      all += grown
      if (label($2, "envoy_response_code_class") == "5") failed += grown
    }
    if ($2 ~ /^envoy_cluster_upstream_rq_time_bucket\{/) bucket[label($2, "le")] += grown
  }
  END {
    if (all < least) { printf "%d requests in the window: too few to judge by\n", all; exit 0 }
    p95 = -1
    total = bucket["+Inf"]
    if (total > 0)
      for (le in bucket)
        if (le != "+Inf" && bucket[le] >= 0.95 * total && (p95 < 0 || le + 0 < p95)) p95 = le + 0
    if (total > 0 && p95 < 0) p95 = 1e9
    printf "%d requests, %.1f %% errors, p95 at most %d ms\n", all, 100 * failed / all, p95
    if (most_errors != "" && failed / all > most_errors + 0) { print "Too many errors."; exit 1 }
    if (most_p95 != "" && p95 > most_p95 + 0) { print "Too slow."; exit 1 }
  }
' /tmp/before /tmp/after
"""
"""Reads the counters twice. `read_all` writes a line per sample: edge, name with labels, value. An
edge pod that does not answer fails the analysis. Envoy aggregates latencies once a second
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
        "metadata": {"labels": labels(cluster, part, "smoke")},
        "spec": {
            "restartPolicy": "Never",
            **pod.NO_TOKEN,
            "securityContext": pod.security(CURL_USER, group=CURL_USER),
            "containers": [
                {
                    "name": "main",
                    "image": Setting("curl.image", CURL, "The image of curl, for tests."),
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
            **pod.placement(cluster),
        },
    }


def _job(called: str, template: dict[str, Tree], seconds: int) -> Tree:
    spec = {"backoffLimit": 0, "activeDeadlineSeconds": seconds, "template": template}
    return {"name": called, "provider": {"job": {"spec": spec}}}
