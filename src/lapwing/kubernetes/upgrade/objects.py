"""The objects that an upgrade adds to the cluster for its own time. Pure.

    probe       one pod of the new version, which gets no request; its policies are those of the
                migration, which reaches what the service reaches
    migration   the Job of the file, run once: a second try would meet a half changed schema
    quiet, backup, restore
                Jobs in the image, with the user and the account of the database itself
    a claim for the backups, which stays, and two policies that let those Jobs reach the database

Nothing here may do more than Pod Security "restricted" allows.
"""

from __future__ import annotations

import copy
from typing import Any

from lapwing.kubernetes.upgrade.dump import FOLDER, Scripts
from lapwing.kubernetes.upgrade.plan import Object, Plan, instance_of, part_of
from lapwing.plan.names import COMPONENT, ENVIRONMENT, INSTANCE, MANAGED_BY, NAME, PART_OF

TASK = "lapwing.dev/task"
"""Label: which task of an upgrade a pod or a Job is."""
UPGRADE = "lapwing.dev/upgrade"
"""Annotation: the upgrade that a Job belongs to."""
MIGRATION = 4 * 3600
"""Seconds that a migration may take at least: cutting one short helps nobody."""
COPYING = 12 * 3600
"""Seconds that a backup or a restore may take."""
GRACE = 5
_SCRATCH = "/tmp"  # noqa: S108 - an emptyDir of the pod


def probe(plan: Plan) -> dict[str, Any]:
    """The pod in which the new version is started to see whether a migration is pending. No Service
    and no autoscaler means it: it has the labels of the migration."""
    template = copy.deepcopy(dict(plan.own["spec"]["template"]))
    spec = template["spec"]
    spec |= {"restartPolicy": "Never", "terminationGracePeriodSeconds": GRACE}
    spec.pop("topologySpreadConstraints", None)
    for container in spec["containers"]:
        container.pop("lifecycle", None)
        container.pop("livenessProbe", None)  # Nobody starts it again, so nobody should end it.
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{plan.own['metadata']['name']}-probe",
            "namespace": plan.namespace,
            "labels": {**_labels(plan, part_of(plan.migration)), TASK: "probe"},
        },
        "spec": spec,
    }


def migration(plan: Plan, upgrade: str) -> dict[str, Any]:
    """The migration of the file, to be run once, for this upgrade."""
    made = copy.deepcopy(dict(plan.migration))
    made["metadata"]["annotations"] = {**made["metadata"].get("annotations", {}), UPGRADE: upgrade}
    deadline = max(MIGRATION, int(made["spec"].get("activeDeadlineSeconds") or 0))
    once = {"backoffLimit": 0, "podReplacementPolicy": "Failed"}
    made["spec"] |= {**once, "activeDeadlineSeconds": deadline}
    return made


def database_task(
    plan: Plan, database: Object, task: str, scripts: Scripts, upgrade: str, backup: str = ""
) -> dict[str, Any]:
    """A Job that runs a script against the database: `quiet`, `backup` or `restore`. `database` is
    its StatefulSet as it runs."""
    script = {"quiet": scripts.quiet, "backup": scripts.back_up, "restore": scripts.restore}[task]
    name = str(database["metadata"]["name"])
    labels = {**_labels(plan, _part(database)), TASK: task}
    spec = _pod(database, script, scripts, backup, stored=task != "quiet")
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
            "activeDeadlineSeconds": COPYING,
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def _pod(
    database: Object, script: str, scripts: Scripts, backup: str, *, stored: bool
) -> dict[str, Any]:
    of_database = database["spec"]["template"]["spec"]
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
    placed = ("securityContext", "nodeSelector", "tolerations")
    same = {k: of_database[k] for k in (*kept, *placed) if k in of_database}
    return {**same, "restartPolicy": "Never", "containers": [container], "volumes": volumes}


def claim_name(database: Object) -> str:
    """The name of the claim that holds the backups of a database."""
    return f"{database['metadata']['name']}-backups"


def claim(plan: Plan, database: Object) -> dict[str, Any]:
    """The volume of the backups: as large as that of the database, for a dump is smaller."""
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


def policies(plan: Plan, database: Object, scripts: Scripts) -> list[dict[str, Any]]:
    """That the Jobs reach the database and nothing else, and that it lets them."""
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


def _selector(plan: Plan, part: str) -> dict[str, str]:
    return {NAME: part, INSTANCE: instance_of(plan.migration)}


def _labels(plan: Plan, part: str) -> dict[str, str]:
    known = plan.migration["metadata"]["labels"]
    kept = {k: known[k] for k in (PART_OF, MANAGED_BY, ENVIRONMENT) if k in known}
    return {**_selector(plan, part), COMPONENT: "upgrade", **kept}
