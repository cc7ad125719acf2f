"""Argo CD's own objects: a project, and an app of apps.

    <stack>-root     applied once by hand; watches `<stack>/argocd`
    <stack>-<env>    one for each environment; watches `<stack>/<env>/manifests`

Argo CD syncs automatically and corrects drift. So that this never interferes with a rollout, it
ignores what controllers own: the hash that Argo Rollouts puts into the selectors of Services, and
replicas that a HorizontalPodAutoscaler sets. A rollback is a commit, so automatic sync stays on for
it. The project allows the stack its repository, its namespaces and the kinds that it uses.

Source: Argo CD documentation, Application specification, Sync Options, Diffing Customization.
"""

from __future__ import annotations

from collections.abc import Iterable

from lapwing.render.kubernetes.setting import Tree
from lapwing.render.kubernetes.target import Target

NAMESPACE = "argocd"
SERVER = "https://kubernetes.default.svc"


def project(target: Target, objects: Iterable[dict[str, Tree]]) -> dict[str, Tree]:
    """Build the project, which limits the applications of an environment to `objects`."""
    kinds = sorted({_group(o) for o in objects})
    spec = {
        "description": f"{target.loaded.stack.stack} in {target.loaded.environment}",
        "sourceRepos": [target.environment.repository or ""],
        "destinations": [{"server": SERVER, "namespace": target.namespace}],
        "clusterResourceWhitelist": [{"group": "", "kind": "Namespace"}],
        "namespaceResourceWhitelist": [
            {"group": group, "kind": kind} for group, kind in kinds if kind != "Namespace"
        ],
    }
    return _object("AppProject", target.namespace, spec)


def _group(tree: dict[str, Tree]) -> tuple[str, str]:
    group, _, version = tree["apiVersion"].rpartition("/")
    return (group if version else "", tree["kind"])


def application(target: Target) -> dict[str, Tree]:
    """Build the application of one environment."""
    stack, environment = target.loaded.stack.stack, target.loaded.environment
    spec = _spec(target, target.namespace, f"{stack}/{environment}/manifests", target.namespace)
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
    return _object("Application", target.namespace, spec)


def root(target: Target) -> dict[str, Tree]:
    """Build the application of applications; the only one that users apply."""
    stack = target.loaded.stack.stack
    spec = _spec(target, "default", f"{stack}/argocd", NAMESPACE)
    return _object("Application", f"{stack}-root", spec)


def _object(kind: str, called: str, spec: dict[str, Tree]) -> dict[str, Tree]:
    metadata = {"name": called, "namespace": NAMESPACE}
    api = "argoproj.io/v1alpha1"
    return {"apiVersion": api, "kind": kind, "metadata": metadata, "spec": spec}


def _spec(target: Target, project_: str, path: str, namespace: str) -> dict[str, Tree]:
    return {
        "project": project_,
        "source": {
            "repoURL": target.environment.repository,
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
