"""Argo CD's own objects: a project, and an app of apps. Pure.

    <stack>-root     applied once by hand; watches `<stack>/argocd`
    <stack>-<env>    one for each environment; watches `<stack>/<env>/manifests`

Argo CD syncs by itself and repairs what drifts. So that this never fights a rollout, it leaves
alone what controllers own: the hash that Argo Rollouts puts into the selectors of Services, and
replicas where a HorizontalPodAutoscaler sets them. A rollback is a commit, so there is nothing to
switch off for it. The project allows the stack its repository, its namespaces and the kinds that it
uses.

Source: Argo CD documents, Application specification, Sync Options, Diffing Customization.
"""

from __future__ import annotations

from collections.abc import Iterable

from lapwing.render.kubernetes.setting import Tree
from lapwing.render.kubernetes.target import Target

NAMESPACE = "argocd"
SERVER = "https://kubernetes.default.svc"


def project(target: Target, objects: Iterable[dict[str, Tree]]) -> dict[str, Tree]:
    """What the applications of an environment may do. `objects` are those it will apply."""
    kinds = sorted({_group(o) for o in objects})
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "AppProject",
        "metadata": {"name": target.namespace, "namespace": NAMESPACE},
        "spec": {
            "description": f"{target.loaded.stack.stack} in {target.loaded.environment}",
            "sourceRepos": [target.environment.repository or ""],
            "destinations": [{"server": SERVER, "namespace": target.namespace}],
            "clusterResourceWhitelist": [{"group": "", "kind": "Namespace"}],
            "namespaceResourceWhitelist": [
                {"group": group, "kind": kind} for group, kind in kinds if kind != "Namespace"
            ],
        },
    }


def _group(tree: dict[str, Tree]) -> tuple[str, str]:
    group, _, version = tree["apiVersion"].rpartition("/")
    return (group if version else "", tree["kind"])


def application(target: Target) -> dict[str, Tree]:
    """The application of one environment."""
    stack, environment = target.loaded.stack.stack, target.loaded.environment
    spec = _spec(target, target.namespace, f"{stack}/{environment}/manifests", target.namespace)
    spec["ignoreDifferences"] = [
        {
            "group": "",
            "kind": "Service",
            "jqPathExpressions": ['.spec.selector."rollouts-pod-template-hash"'],
        },
        {
            "group": "argoproj.io",
            "kind": "Rollout",
            "managedFieldsManagers": ["kube-controller-manager"],
        },
        {
            "group": "apps",
            "kind": "Deployment",
            "managedFieldsManagers": ["kube-controller-manager"],
        },
    ]
    return _application(target.namespace, spec)


def root(target: Target) -> dict[str, Tree]:
    """The application that brings the others; the only one that people apply."""
    stack = target.loaded.stack.stack
    return _application(f"{stack}-root", _spec(target, "default", f"{stack}/argocd", NAMESPACE))


def _application(called: str, spec: dict[str, Tree]) -> dict[str, Tree]:
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Application",
        "metadata": {"name": called, "namespace": NAMESPACE},
        "spec": spec,
    }


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
