"""The objects that an upgrade creates in the cluster while it runs.

    probe       one pod of the new version, which gets no requests; it has the policies of the
                migration, which reaches what the service reaches
    migration   the Job of the manifests, run once: a second run would meet a half changed schema
    quiet, backup, restore
                Jobs in the database's image, with its user and its service account
    a claim for the backups, which stays, and two policies that let those Jobs reach the database

Each of them passes Pod Security "restricted".
"""

from __future__ import annotations

import copy
from typing import Any

from lapwing.kubernetes.objects import Object, label, pod_spec
from lapwing.kubernetes.upgrade.backup import FOLDER, Scripts
from lapwing.kubernetes.upgrade.plan import UpgradePlan, part_of
from lapwing.plan.names import (
    COMPONENT,
    ENVIRONMENT,
    INSTANCE,
    MANAGED_BY,
    NAME,
    PART_OF,
    PROBE,
    TASK,
)

UPGRADE = "lapwing.dev/upgrade"
"""Annotation: the upgrade that a Job belongs to."""
MIN_MIGRATION_DEADLINE_S = 4 * 3600
"""The minimum deadline of a migration: one that is stopped early has to be restored."""
COPY_DEADLINE_S = 12 * 3600
"""For a backup or a restore."""
TERMINATION_GRACE_S = 5
_SCRATCH = "/tmp"  # noqa: S108 - an emptyDir of the pod


def probe(plan: UpgradePlan) -> dict[str, Any]:
    """Build the pod that starts the new version, to see whether a migration is pending.

    No Service and no autoscaler selects it: it has the labels of the migration.
    """
    template = copy.deepcopy(dict(plan.own["spec"]["template"]))
    spec = template["spec"]
    spec |= {"restartPolicy": "Never", "terminationGracePeriodSeconds": TERMINATION_GRACE_S}
    spec |= _waiting(plan)
    spec.pop("topologySpreadConstraints", None)
    for container in spec["containers"]:
        container.pop("lifecycle", None)
        container.pop("livenessProbe", None)  # It is not restarted, so it must not be killed.
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{plan.own['metadata']['name']}-probe",
            "namespace": plan.namespace,
            "labels": {**_labels(plan, part_of(plan.migration)), TASK: PROBE},
        },
        "spec": spec,
    }


def migration(plan: UpgradePlan, upgrade: str) -> dict[str, Any]:
    """Build the migration Job that runs once, for this upgrade."""
    made = copy.deepcopy(dict(plan.migration))
    made["metadata"]["annotations"] = {**made["metadata"].get("annotations", {}), UPGRADE: upgrade}
    deadline = max(MIN_MIGRATION_DEADLINE_S, int(made["spec"].get("activeDeadlineSeconds") or 0))
    once = {"backoffLimit": 0, "podReplacementPolicy": "Failed"}
    made["spec"] |= {**once, "activeDeadlineSeconds": deadline}
    return made


def database_task(
    plan: UpgradePlan, database: Object, task: str, scripts: Scripts, upgrade: str, backup: str = ""
) -> dict[str, Any]:
    """Build a Job that runs a script against the database: `quiet`, `backup` or `restore`.

    `database` is its StatefulSet as it runs.
    """
    script = {"quiet": scripts.quiet, "backup": scripts.back_up, "restore": scripts.restore}[task]
    name = str(database["metadata"]["name"])
    labels = {**_labels(plan, _part(database)), TASK: task}
    spec = _pod(database, script, scripts, backup, stored=task != "quiet") | _waiting(plan)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": f"{name}-{task}-{upgrade}",
            "namespace": plan.namespace,
            "labels": labels,
            "annotations": {UPGRADE: upgrade},
        },
        "spec": {
            "backoffLimit": 0 if task == "quiet" else 2,
            "activeDeadlineSeconds": COPY_DEADLINE_S,
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def _waiting(plan: UpgradePlan) -> dict[str, Any]:
    """Return the init containers of the migration: they wait for the database in the cluster.

    Connections of a new pod may be refused until network policies know its address, and these pods
    run once.
    """
    waiting = pod_spec(plan.migration).get("initContainers")
    return {"initContainers": copy.deepcopy(waiting)} if waiting else {}


def _pod(
    database: Object, script: str, scripts: Scripts, backup: str, *, stored: bool
) -> dict[str, Any]:
    of_database = pod_spec(database)
    served = of_database["containers"][0]
    known = [e for e in served.get("env") or () if e["name"] in scripts.environ]
    told = {
        "HOST": str(database["spec"]["serviceName"]),
        "SCRATCH": _SCRATCH,
        "BACKUPS": FOLDER,
        "BACKUP": backup,
    }
    mounts = [{"name": "tmp", "mountPath": _SCRATCH}]
    volumes: list[dict[str, Any]] = [{"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}}]
    if stored:
        mounts.append({"name": "backups", "mountPath": FOLDER})
        where = {"claimName": claim_name(database)}
        volumes.append({"name": "backups", "persistentVolumeClaim": where})
    container = {
        "name": "main",
        "image": served["image"],
        "command": ["/bin/sh", "-c", script],
        "env": [*known, *({"name": n, "value": v} for n, v in told.items())],
        "resources": {
            "requests": {"cpu": "250m", "memory": "256Mi", "ephemeral-storage": "100Mi"},
            "limits": {"memory": "1Gi", "ephemeral-storage": "1Gi"},
        },
        "securityContext": served["securityContext"],
        "volumeMounts": mounts,
    }
    kept = ("serviceAccountName", "automountServiceAccountToken", "enableServiceLinks")
    placed = ("securityContext", "nodeSelector", "tolerations", "affinity", "imagePullSecrets")
    same = {k: of_database[k] for k in (*kept, *placed) if k in of_database}
    return {**same, "restartPolicy": "Never", "containers": [container], "volumes": volumes}


def claim_name(database: Object) -> str:
    """Return the name of the claim for the backups of a database."""
    return f"{database['metadata']['name']}-backups"


def claim(plan: UpgradePlan, database: Object) -> dict[str, Any]:
    """Build the claim for the backups, as large as the database's: a dump is smaller."""
    [data] = database["spec"]["volumeClaimTemplates"]
    asked = {k: v for k, v in data["spec"].items() if k in ("resources", "storageClassName")}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": claim_name(database),
            "namespace": plan.namespace,
            "labels": _labels(plan, _part(database)),
        },
        "spec": {"accessModes": ["ReadWriteOnce"], **asked},
    }


def policies(plan: UpgradePlan, database: Object, scripts: Scripts) -> list[dict[str, Any]]:
    """Build policies that let the Jobs reach the database and nothing else."""
    port = [{"protocol": "TCP", "port": scripts.port}]
    of_jobs = {"matchLabels": _selector(plan, _part(database))}
    of_database = {"matchLabels": _selector(plan, part_of(database))}
    egress = {
        "podSelector": of_jobs,
        "policyTypes": ["Ingress", "Egress"],
        "egress": [{"to": [{"podSelector": of_database}], "ports": port}],
    }
    ingress = {
        "podSelector": of_database,
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"podSelector": of_jobs}], "ports": port}],
    }
    name = str(database["metadata"]["name"])
    return [
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {
                "name": f"{name}-upgrade-{way}",
                "namespace": plan.namespace,
                "labels": _labels(plan, _part(database)),
            },
            "spec": spec,
        }
        for way, spec in (("out", egress), ("in", ingress))
    ]


def _part(database: Object) -> str:
    return f"{part_of(database)}-upgrade"


def _selector(plan: UpgradePlan, part: str) -> dict[str, str]:
    return {NAME: part, INSTANCE: label(plan.migration, INSTANCE)}


def _labels(plan: UpgradePlan, part: str) -> dict[str, str]:
    known = plan.migration["metadata"]["labels"]
    kept = {k: known[k] for k in (PART_OF, MANAGED_BY, ENVIRONMENT) if k in known}
    return {**_selector(plan, part), COMPONENT: "upgrade", **kept}
