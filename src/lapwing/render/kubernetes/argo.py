"""Argo CD's own objects: a project, and an app of apps.

    <stack>-root     applied once, by `lapwing bootstrap`; watches `<stack>/argocd`
    <stack>-<env>    one for each environment; watches `<stack>/<env>/manifests`

Argo CD syncs automatically and corrects drift. So that this never interferes with a rollout, it
ignores what controllers own: the hash that Argo Rollouts puts into the selectors of Services, and
replicas that a HorizontalPodAutoscaler sets. A rollback is a commit, so automatic sync stays on for
it. The project allows the stack its repository, its namespace and every kind that is ever rendered:
Argo CD does not prune the last object of a kind that its project no longer allows.

Source: Argo CD documentation, Application specification, Sync Options, Diffing Customization.
"""

from __future__ import annotations

from lapwing.render.kubernetes.objects import ClusterEnvironment
from lapwing.render.kubernetes.setting import Tree

NAMESPACE = "argocd"
SERVER = "https://kubernetes.default.svc"
KINDS = {
    "": ("ConfigMap", "Service", "ServiceAccount"),
    "apps": ("Deployment", "StatefulSet"),
    "argoproj.io": ("AnalysisTemplate", "Rollout"),
    "autoscaling": ("HorizontalPodAutoscaler",),
    "batch": ("CronJob", "Job"),
    "cloud.google.com": ("BackendConfig",),
    "external-secrets.io": ("ExternalSecret", "SecretStore"),
    "gateway.networking.k8s.io": ("Gateway", "HTTPRoute"),
    "generators.external-secrets.io": ("Password",),
    "networking.gke.io": (
        "FrontendConfig",
        "GCPBackendPolicy",
        "GCPGatewayPolicy",
        "HealthCheckPolicy",
        "ManagedCertificate",
    ),
    "networking.k8s.io": ("Ingress", "NetworkPolicy"),
    "policy": ("PodDisruptionBudget",),
}
"""Every kind in a namespace that is rendered, by API group."""


def project(cluster: ClusterEnvironment) -> dict[str, Tree]:
    """Build the project, which limits the applications of an environment."""
    spec = {
        "description": f"{cluster.loaded.stack.stack} in {cluster.loaded.environment}",
        "sourceRepos": [cluster.settings.repository or ""],
        "destinations": [{"server": SERVER, "namespace": cluster.namespace}],
        "clusterResourceWhitelist": [{"group": "", "kind": "Namespace"}],
        "namespaceResourceWhitelist": [
            {"group": group, "kind": kind} for group, kinds in KINDS.items() for kind in kinds
        ],
    }
    return _object("AppProject", cluster.namespace, spec)


def application(cluster: ClusterEnvironment) -> dict[str, Tree]:
    """Build the application of one environment."""
    stack, environment = cluster.loaded.stack.stack, cluster.loaded.environment
    spec = _spec(cluster, cluster.namespace, f"{stack}/{environment}/manifests", cluster.namespace)
    spec["ignoreDifferences"] = [
        {
            "group": "",
            "kind": "Service",
            "jqPathExpressions": ['.spec.selector."rollouts-pod-template-hash"'],
        },
        *(
            {"group": group, "kind": kind, "managedFieldsManagers": ["kube-controller-manager"]}
            for group, kind in (("argoproj.io", "Rollout"), ("apps", "Deployment"))
        ),
    ]
    return _object("Application", cluster.namespace, spec)


def root(cluster: ClusterEnvironment) -> dict[str, Tree]:
    """Build the application of applications; the only one that users apply."""
    stack = cluster.loaded.stack.stack
    spec = _spec(cluster, "default", f"{stack}/argocd", NAMESPACE)
    return _object("Application", f"{stack}-root", spec)


def chart(
    called: str, *, repository: str, version: str, values: dict[str, Tree]
) -> dict[str, Tree]:
    """Build the application of a Helm chart, in a namespace with the name of the chart."""
    spec = {
        "project": "default",
        "source": {
            "repoURL": repository,
            "chart": called,
            "targetRevision": version,
            "helm": {"valuesObject": values},
        },
        "destination": {"server": SERVER, "namespace": called},
        "syncPolicy": {
            "automated": {"prune": True, "selfHeal": True},
            "syncOptions": ["CreateNamespace=true", "ServerSideApply=true"],
        },
    }
    return _object("Application", called, spec)


def _object(kind: str, called: str, spec: dict[str, Tree]) -> dict[str, Tree]:
    metadata = {"name": called, "namespace": NAMESPACE}
    api = "argoproj.io/v1alpha1"
    return {"apiVersion": api, "kind": kind, "metadata": metadata, "spec": spec}


def _spec(cluster: ClusterEnvironment, project_: str, path: str, namespace: str) -> dict[str, Tree]:
    return {
        "project": project_,
        "source": {
            "repoURL": cluster.settings.repository,
            "targetRevision": "main",
            "path": path,
        },
        "destination": {"server": SERVER, "namespace": namespace},
        "syncPolicy": {
            "automated": {"prune": True, "selfHeal": True, "allowEmpty": False},
            "syncOptions": ["ServerSideApply=true", "RespectIgnoreDifferences=true"],
            "retry": {
                "limit": 5,
                "backoff": {"duration": "5s", "factor": 2, "maxDuration": "3m"},
            },
        },
    }
