"""Scheduled backups of the databases in the cluster: one CronJob, which backs up all of them.

    init containers   one for each database, from the image of the database: dumps it
    main container    rclone: packs the dumps, uploads them to the bucket or volume, the manifest
                      last; then removes old backups

A backup has the same layout as on a machine (see agent/backups.py): an archive for each database
and a manifest in `<to>/<stack>/<environment>/<id>`; without a manifest it is ignored. One CronJob
makes all parts, because a backup has one manifest. If a dump fails, nothing is uploaded. A backup
has the time before its first dump, which the first init container writes to a file.

Dumps are written to a volume that exists as long as the pod, because a node's disk may be smaller
than a database. Finished runs are removed after an hour, with that volume.

The scripts read passwords from variables and pass them on by variables or file descriptors, never
as arguments. Sources: rclone documentation, "Environment Variables", s3, googlecloudstorage; GKE
documentation, "Using network policy with Workload Identity Federation for GKE"; documentation of
mysqldump, pg_dump, mongodump (--config) and redis-cli (--rdb).
"""

from __future__ import annotations

from collections.abc import Iterator

from lapwing.plan.names import BACKS_UP, dump_container, secret_part
from lapwing.plan.server_images import IMAGES
from lapwing.render.kubernetes import data, pod, pod_settings
from lapwing.render.kubernetes.objects import (
    ClusterEnvironment,
    Manifest,
    labels,
    name,
    new_object,
    service_account,
)
from lapwing.render.kubernetes.setting import MERGE, Extra, Joined, Setting, Tree, join
from lapwing.stack.environment import Backup
from lapwing.stack.model import Resource
from lapwing.stack.resource_reference import PORTS
from lapwing.system.package_data import read

PART = "backup"
FILE = "after.yaml"
WAVE = 8
IMAGE = "rclone/rclone:1.75.1"
USER = 999
"""The numeric user of all containers: that of the databases' images."""
SCRATCH, CLAIM = "/scratch", "/backups"
DEADLINE_S = 12 * 3600
START_WITHIN_S = 3600
"""A missed run, for example during an upgrade of the control plane, starts within this time."""
KEPT_S = 3600
"""For how long a finished run, its log and its volume are kept."""
VOLUME = "pvc://"
_SCRIPTS = "render.kubernetes"


def manifests(cluster: ClusterEnvironment) -> Iterator[Manifest]:
    """Yield the CronJob and its service account, if the environment has a `backup`."""
    wanted = cluster.settings.backup
    if wanted is None:
        return
    account = service_account(cluster, PART, PART)
    about = "Additional metadata of the service account of backups, such as annotations."
    account["metadata"][MERGE] = Extra(Setting("backup.serviceAccountMetadata", {}, about))
    yield Manifest(FILE, WAVE - 1, account)
    yield Manifest(FILE, WAVE, _cron_job(cluster, wanted))


def _cron_job(cluster: ClusterEnvironment, wanted: Backup) -> dict[str, Tree]:
    spec = {
        "schedule": Setting("backup.schedule.cron", wanted.every, "When backups are made."),
        "timeZone": Setting(
            "backup.schedule.timezone", wanted.timezone, "The time zone of the schedule."
        ),
        "suspend": Setting("backup.schedule.suspend", False, "Whether backups are suspended."),
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": START_WITHIN_S,
        "successfulJobsHistoryLimit": 1,
        "failedJobsHistoryLimit": 1,
        "jobTemplate": {
            "metadata": {"labels": labels(cluster, PART, PART)},
            "spec": {
                "backoffLimit": 0,
                "activeDeadlineSeconds": DEADLINE_S,
                "ttlSecondsAfterFinished": KEPT_S,
                "template": {
                    "metadata": pod_settings.metadata(cluster, PART, PART),
                    "spec": _pod(cluster, wanted),
                },
            },
        },
    }
    annotations = {BACKS_UP: " ".join(cluster.own_resources)}
    return new_object(
        cluster, "batch/v1", "CronJob", PART, PART, annotations=annotations, spec=spec
    )


def _pod(cluster: ClusterEnvironment, wanted: Backup) -> dict[str, Tree]:
    resources = cluster.own_resources.items()
    volumes: list[Tree] = [
        {"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}},
        {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": _scratch(cluster)}}},
    ]
    if wanted.port is None:
        assert wanted.to is not None
        claim = {"claimName": wanted.to.removeprefix(VOLUME)}
        volumes.append({"name": "backups", "persistentVolumeClaim": claim})
    return {
        "serviceAccountName": name(PART),
        **pod.NO_TOKEN,
        "securityContext": pod.security(USER, group=USER, files=USER),
        "restartPolicy": "Never",
        "initContainers": [_dump(cluster, part, resource) for part, resource in resources],
        "containers": [_store(cluster, wanted)],
        "volumes": volumes,
        MERGE: pod_settings.extra_spec(cluster),
    }


def _scratch(cluster: ClusterEnvironment) -> dict[str, Tree]:
    """Build the claim for the dumps: room for each database twice, as a dump and as an archive."""
    resources = cluster.own_resources.values()
    total = sum(resource.storage or data.DEFAULT_STORAGE_BYTES for resource in resources)
    about = "The size of the volume for dumps, which exists while a backup is made."
    storage = Setting("backup.scratch", pod.size(2 * total), about)
    about = "Additional fields of the claim of that volume, such as storageClassName."
    return {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": storage}},
        MERGE: Extra(Setting("backup.volumeClaim", data.storage_class(cluster), about)),
    }


def _dump(cluster: ClusterEnvironment, part: str, resource: Resource) -> dict[str, Tree]:
    """Build the container that dumps a database."""
    kind, user = resource.kind, IMAGES[resource.kind].user
    dump = read(_SCRIPTS, f"scripts/{kind}.sh").rstrip()
    script = read(_SCRIPTS, "scripts/dump.sh").replace("<dump>", dump)
    known = [v for v in data.variables(part, kind) if v["name"] != "HOME"]
    return {
        **_container(dump_container(part), script),
        "image": data.image(cluster, part),
        "env": [
            *known,
            *_plain(NAME=part, KIND=kind, HOST=name(part), PORT=str(PORTS[kind])),
            *_plain(SCRATCH=SCRATCH, HOME="/tmp"),  # noqa: S108
        ],
        "securityContext": {**pod.CONTAINER, "runAsUser": user, "runAsGroup": user},
    }


def _store(cluster: ClusterEnvironment, wanted: Backup) -> dict[str, Tree]:
    lines = [
        join(f"{part} {resource.kind} ", data.image(cluster, part))
        for part, resource in cluster.own_resources.items()
    ]
    variables = _plain(
        STACK=cluster.loaded.stack.stack,
        ENVIRONMENT=cluster.loaded.environment,
        TARGET=_target(cluster, wanted),
        KEEP=join(Setting("backup.keep", wanted.keep, "The number of scheduled backups to keep.")),
        SCHEDULED="true",
        PARTS=join(*(piece for line in lines for piece in (line, "\n"))),
        SCRATCH=SCRATCH,
        HOME="/tmp",  # noqa: S108
        RCLONE_CONFIG="/notfound",
        **_remote(wanted),
    )
    keys = [
        {
            "name": variable,
            "valueFrom": {"secretKeyRef": {"name": name(secret_part(variable)), "key": "value"}},
        }
        for variable in wanted.secrets
    ]
    made = {
        **_container("store", read(_SCRIPTS, "scripts/store.sh")),
        "image": Setting(
            "backup.image", cluster.pinned(IMAGE), "The image of rclone, which stores backups."
        ),
        "env": [*variables, *keys],
    }
    if wanted.port is None:
        made["volumeMounts"] = [*made["volumeMounts"], {"name": "backups", "mountPath": CLAIM}]
    return made


def _target(cluster: ClusterEnvironment, wanted: Backup) -> Joined:
    """Build the folder of the backups, as rclone names it."""
    assert wanted.to is not None
    bucket = wanted.to.partition("://")[2].rstrip("/")
    folder = CLAIM if wanted.port is None else f"bucket:{bucket}"
    about = "The folder of backups, of the remote `bucket` or of the volume."
    ref = f"/{cluster.loaded.stack.stack}/{cluster.loaded.environment}"
    return join(Setting("backup.target", folder, about), ref)


def _remote(wanted: Backup) -> dict[str, Tree]:
    """Build the configuration of rclone's remote `bucket`, as variables."""
    if wanted.port is None:
        return {}
    if wanted.in_s3:
        options: dict[str, Tree] = {
            "TYPE": "s3",
            "PROVIDER": "Other" if wanted.endpoint else "AWS",
            "REGION": wanted.region,
            "ENDPOINT": wanted.endpoint,
        }
    else:
        options = {"TYPE": "google cloud storage", "BUCKET_POLICY_ONLY": "true"}
    options |= {"ENV_AUTH": "true", "NO_CHECK_BUCKET": "true"}
    return {f"RCLONE_CONFIG_BUCKET_{k}": v for k, v in options.items() if v is not None}


def _container(called: str, script: str) -> dict[str, Tree]:
    return {
        "name": called,
        "command": ["/bin/sh", "-c", script],
        "resources": {
            "requests": {"cpu": "100m", "memory": "256Mi", "ephemeral-storage": "100Mi"},
            "limits": {"memory": "1Gi", "ephemeral-storage": "1Gi"},
        },
        "securityContext": pod.CONTAINER,
        "volumeMounts": [pod.TMP_MOUNT, {"name": "scratch", "mountPath": SCRATCH}],
    }


def _plain(**variables: Tree) -> list[Tree]:
    return [{"name": variable, "value": value} for variable, value in variables.items()]
