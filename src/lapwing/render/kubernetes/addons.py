"""Add-ons: the controllers that an environment needs in its cluster, at pinned versions.

    metrics-server     for autoscalers; GKE has it, so only outside a cloud
    Argo Rollouts      where releases are switched by it
    Argo CD            where it applies the environment
    External Secrets   with Argo CD, as one of its applications: a Helm chart

Argo CD and Argo Rollouts are the manifests of their release, checked by their SHA-256: other text
is refused. Every workload gets requests, because GKE Autopilot bills them and sets larger ones by
default. Argo CD's controllers for SSO and notifications have no replica: they need settings that a
new installation does not have. Users scale them up.

Sources: the installation guides of Argo CD, Argo Rollouts, metrics-server and External Secrets.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from lapwing.errors import IntegrityError
from lapwing.plan.names import EXTERNAL_SECRETS, MANAGED_BY
from lapwing.render.kubernetes import argo, emit
from lapwing.render.kubernetes.objects import ClusterEnvironment
from lapwing.render.kubernetes.setting import resolve
from lapwing.system.package_data import read

Requests = tuple[str, str]
"""CPU and memory."""
CLUSTER_KINDS = (
    "APIService",
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "Namespace",
)
EXTERNAL_SECRETS_VERSION = "1.3.1"
EXTERNAL_SECRETS_CHARTS = "https://charts.external-secrets.io"
EXTERNAL_SECRETS_REQUESTS: Requests = ("50m", "64Mi")


@dataclass(frozen=True, slots=True)
class AddOn:
    """One add-on. `requests` are those of its workloads; workloads in `idle` have no replica.

    The manifests are at `url` and have the digest `sha256`; without `url` they are part of Lapwing.
    `image` replaces the image of each workload.
    """

    name: str
    version: str
    namespace: str
    requests: dict[str, Requests]
    url: str = ""
    sha256: str = ""
    image: str = ""
    idle: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        """The name of a file with its manifests."""
        return f"{self.name}-{self.version}.yaml"


METRICS_SERVER = AddOn(
    "metrics-server", "0.8.0", "kube-system", {"metrics-server": ("100m", "200Mi")}
)
ROLLOUTS = AddOn(
    "argo-rollouts",
    "1.9.2",
    "argo-rollouts",
    {"argo-rollouts": ("50m", "96Mi")},
    "https://raw.githubusercontent.com/argoproj/argo-rollouts/v1.9.2/manifests/install.yaml",
    "2701f5ff276e2a41b41d4d7cf8beeb7a62c6c850a34b71f031a29bbb656d543b",
    image="quay.io/argoproj/argo-rollouts:v1.9.2",  # The manifests of this tag have `latest`.
)
ARGO_CD = AddOn(
    "argo-cd",
    "3.5.7",
    argo.NAMESPACE,
    {
        "argocd-application-controller": ("100m", "320Mi"),
        "argocd-applicationset-controller": ("50m", "64Mi"),
        "argocd-redis": ("50m", "64Mi"),
        "argocd-repo-server": ("50m", "128Mi"),
        "argocd-server": ("50m", "96Mi"),
        "argocd-dex-server": ("50m", "64Mi"),
        "argocd-notifications-controller": ("50m", "64Mi"),
    },
    "https://raw.githubusercontent.com/argoproj/argo-cd/v3.5.7/manifests/install.yaml",
    "09bfbb9041b4a8503c6e4fa22cf41c403fa62be17526de353648a4551f5beb77",
    idle=("argocd-dex-server", "argocd-notifications-controller"),
)


def needed(cluster: ClusterEnvironment) -> list[AddOn]:
    """List the add-ons of an environment, in the order in which they are applied."""
    wanted = (
        (METRICS_SERVER, cluster.settings.cloud is None),
        (ROLLOUTS, cluster.has_rollouts),
        (ARGO_CD, cluster.is_argo),
    )
    return [addon for addon, is_needed in wanted if is_needed]


def objects(addon: AddOn, text: bytes | None, *, is_local: bool = False) -> list[dict[str, Any]]:
    """Return the objects of an add-on; `text` are its manifests, None for those of Lapwing.

    On a local cluster, metrics-server accepts the self-signed certificates of its nodes.
    Raises IntegrityError if the text is not that of the pinned version.
    """
    import yaml

    from lapwing.system.yaml_loader import LOADER

    if addon.url:
        _check(addon, text or b"")
    else:
        text = read("render.kubernetes", f"manifests/{addon.name}.yaml").encode()
    found = [
        _completed(addon, t, is_local=is_local) for t in yaml.load_all(text or b"", LOADER) if t
    ]
    if addon.namespace == "kube-system":
        return found
    labels = {MANAGED_BY: "lapwing"}
    metadata = {"name": addon.namespace, "labels": labels}
    return [{"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}, *found]


def _check(addon: AddOn, text: bytes) -> None:
    found = hashlib.sha256(text).hexdigest()
    if found != addon.sha256:
        raise IntegrityError(
            f"The manifests of {addon.name} {addon.version} have the digest {found[:12]}, expected "
            f"{addon.sha256[:12]}.",
            hint=f"Use the file at {addon.url}, unchanged. Nothing was changed.",
        )


def _completed(addon: AddOn, thing: dict[str, Any], *, is_local: bool) -> dict[str, Any]:
    """Complete an object: its namespace, the label of its manager, requests and image."""
    metadata = dict(thing["metadata"])
    metadata["labels"] = {**metadata.get("labels", {}), MANAGED_BY: "lapwing"}
    if thing["kind"] not in CLUSTER_KINDS:
        metadata.setdefault("namespace", addon.namespace)
    made = {**thing, "metadata": metadata}
    if thing["kind"] not in ("Deployment", "StatefulSet"):
        return made
    cpu, memory = addon.requests[metadata["name"]]
    container, *more = thing["spec"]["template"]["spec"]["containers"]
    resources = dict(container.get("resources") or {})
    resources["requests"] = {"cpu": cpu, "memory": memory}
    container = {**container, "resources": resources}
    if addon.image:
        container["image"] = addon.image
    if is_local and addon is METRICS_SERVER:
        container["args"] = [*container["args"], "--kubelet-insecure-tls"]
    template = thing["spec"]["template"]
    pod = {**template["spec"], "containers": [container, *more]}
    spec = {**thing["spec"], "template": {**template, "spec": pod}}
    if metadata["name"] in addon.idle:
        spec["replicas"] = 0
    return {**made, "spec": spec}


def applications(cluster: ClusterEnvironment) -> list[dict[str, Any]]:
    """Return the applications that Argo CD starts with: External Secrets, and the root."""
    if not cluster.is_argo:
        return []
    found = [_external_secrets()]
    if cluster.settings.repository is not None:
        found.append(resolve(argo.root(cluster), cluster.scopes))
    return found


def _external_secrets() -> dict[str, Any]:
    """Build the application of External Secrets.

    Its service account has the name that the IAM policy of the secrets allows to read them.
    """
    cpu, memory = EXTERNAL_SECRETS_REQUESTS
    sized = {"resources": {"requests": {"cpu": cpu, "memory": memory}}}
    values = {
        "fullnameOverride": EXTERNAL_SECRETS,
        "serviceAccount": {"name": EXTERNAL_SECRETS},
        **sized,
        "webhook": sized,
        "certController": sized,
    }
    return argo.chart(
        EXTERNAL_SECRETS,
        repository=EXTERNAL_SECRETS_CHARTS,
        version=EXTERNAL_SECRETS_VERSION,
        values=values,
    )


def files(cluster: ClusterEnvironment, texts: dict[str, bytes]) -> dict[str, str]:
    """Render everything that `lapwing bootstrap` applies as files, in the order of their names.

    `texts` are the manifests of add-ons, by the name of their file. The cluster is not known, so
    metrics-server verifies the certificates of its nodes, which it does not on a local cluster.
    """
    found = {a.file: objects(a, texts.get(a.file)) for a in needed(cluster)}
    if applied := applications(cluster):
        found["applications.yaml"] = applied
    return {
        f"{number}-{name}": "---\n".join(emit.document(thing) for thing in things)
        for number, (name, things) in enumerate(found.items(), 1)
    }
