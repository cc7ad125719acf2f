"""The chart of a stack: the objects of one environment, and other environments as presets.

The chart contains what is rendered, object by object, and what a chart has to do itself: the Job
that generates secrets, if no operator does, and the test. An environment with the same objects but
other values becomes a preset, `values-<environment>.yaml`; one with other objects needs its own
chart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lapwing.errors import UsageError
from lapwing.plan.names import EDGE_CERTIFICATE, RequiredSecret
from lapwing.render.helm import chart, secrets, trial
from lapwing.render.helm.chart import LEFT_OUT, About, Templated
from lapwing.render.helm.secrets import Generated
from lapwing.render.helm.values import settings
from lapwing.render.kubernetes import edge, emit, pod_settings, render
from lapwing.render.kubernetes.analysis import CURL
from lapwing.render.kubernetes.edge_config import ends_tls
from lapwing.render.kubernetes.objects import ClusterEnvironment, name
from lapwing.render.kubernetes.secrets import required
from lapwing.render.kubernetes.setting import Digest, Joined, Scope, Setting, text

SECRETS_HEAD = "Generates passwords once, and never changes them."
TESTS_HEAD = "`helm test`: requests the health path of every service, through the edge."


def files(
    cluster: ClusterEnvironment, about: About, others: Iterable[ClusterEnvironment] = ()
) -> dict[str, str]:
    """Render every file of the chart: name to text. `others` are environments for presets.

    Raises:
        UsageError: As `render.manifests`, a name is too long for a chart, or a service or resource
            has the name of an object that only the chart has.
    """
    generated, given = _generated(cluster), _given(cluster)
    added = [Templated(secrets.FILE, tree) for tree in _generator(cluster, generated)]
    added += [Templated(trial.FILE, tree) for tree in trial.objects(cluster)]
    _check_names(cluster, added)
    objects = [*(Templated(m.file, m.tree) for m in render.manifests(cluster)), *added]
    notes = {
        "generated": [_suffix(g.name) for g in generated],
        "given": [f"-{w.part}" for w in given],
        "edge": edge.service_port(cluster) if edge.is_needed(cluster) else None,
    }
    heads = {**render.HEADS, secrets.FILE: SECRETS_HEAD, trial.FILE: TESTS_HEAD}
    head = (
        f"Values of {about.name}, as in the environment `{cluster.loaded.environment}` of its "
        "stack file. Names of objects begin with the release's name."
    )
    return {
        **chart.files(about, objects, notes=notes, head=head, heads=heads),
        **dict(presets(cluster, others)),
    }


def _check_names(cluster: ClusterEnvironment, added: Iterable[Templated]) -> None:
    """Refuse a service or resource whose objects or labels those of the chart would replace."""
    reserved = {_suffix(item.tree["metadata"]["name"]).lstrip("-") for item in added}
    for part in (*cluster.services, *cluster.loaded.stack.resources):
        if part in reserved:
            raise UsageError(
                f"The name {part!r} is reserved for an object that only the chart has.",
                hint=f"Rename the service or resource {part!r} in the stack file.",
            )


def about(name: str, version: str, app_version: str | None = None) -> About:
    """Describe the chart of a stack, for Chart.yaml."""
    return About(name, version, app_version or version, f"The stack {name}, by Lapwing")


def presets(
    cluster: ClusterEnvironment, others: Iterable[ClusterEnvironment]
) -> Iterator[tuple[str, str]]:
    """Yield the values files of the environments that have the same objects."""
    base = _defaults(cluster)
    for other in others:
        values = _defaults(other)
        if _shape(other) != _shape(cluster) or set(values) != set(base):
            continue
        differing = {p: v for p, v in values.items() if v != base[p] and not p.endswith(".image")}
        environment = other.loaded.environment
        file = f"values-{environment}.yaml"
        head = f"Values of the environment `{environment}`: helm install -f {file}"
        yield file, f"# {head}\n" + emit.document(_tree(differing))


def _generated(cluster: ClusterEnvironment) -> list[Generated]:
    """List the Secrets that the chart generates; with Argo CD an operator does."""
    if cluster.is_argo:
        return []
    found = [Generated(name(w.part), w.generated) for w in required(cluster) if w.generated]
    if edge.is_needed(cluster) and ends_tls(cluster):
        found.append(Generated(name(EDGE_CERTIFICATE), {}))
    return found


def _given(cluster: ClusterEnvironment) -> list[RequiredSecret]:
    return [] if cluster.is_argo else [w for w in required(cluster) if not w.generated]


def _generator(cluster: ClusterEnvironment, generated: list[Generated]) -> list[dict[str, Any]]:
    host = cluster.settings.domain or "localhost"
    made = secrets.Generator(
        cluster.loaded.stack.stack,
        host,
        pod_settings.extra_spec(cluster),
        pod_settings.extra_metadata(cluster),
        cluster.pinned(CURL),
        cluster.pinned(secrets.SIGNER),
    )
    return secrets.objects(made, generated)


def _suffix(called: Joined) -> str:
    """Return the name of an object without the prefix of the release."""
    return text(called, {scope: "" for scope in Scope})


def _defaults(cluster: ClusterEnvironment) -> dict[str, Any]:
    """Return every value of an environment: its path and default."""
    trees = [m.tree for m in render.manifests(cluster) if m.tree["kind"] not in LEFT_OUT]
    return {s.path: s.default for s in settings(trees)}


def _shape(cluster: ClusterEnvironment) -> list[tuple[str, str]]:
    """List the objects of an environment by kind and name; values do not count in digests."""
    found = []
    for manifest in render.manifests(cluster):
        called = _suffix(_without_values(manifest.tree["metadata"]["name"]))
        found.append((manifest.tree["kind"], "" if manifest.tree["kind"] == "Job" else called))
    return sorted(found)


def _without_values(leaf: Any) -> Any:
    """Replace each value in a text or a digest by its path."""
    match leaf:
        case Setting():
            return leaf.path
        case Digest():
            return Digest(_without_values(leaf.text))
        case Joined():
            return Joined(tuple(_without_values(piece) for piece in leaf.pieces))
    return leaf


def _tree(values: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path, value in values.items():
        *folders, last = path.split(".")
        place = found
        for folder in folders:
            place = place.setdefault(folder, {})
        place[last] = value
    return found
