"""Jobs: what runs once before the new release gets traffic, or on a schedule.

A `job` service, and the `migrate` of a service, is a Job whose name ends in a digest of its whole
pod spec, because a Job's pods are immutable. So it runs once for each release, a finished one does
not block the next, and applying the same again does nothing. With Argo CD a job service is a hook
of the sync: it runs before workloads of a later wave, and a failed one stops the sync. Argo CD
never removes a hook with another name, so a finished one has a time to live; other Jobs have none,
because they would be created, and run, again. One that
runs `after` services is in the last wave, which starts when they are healthy; a chart has no waves,
so its program has to wait for them. A migration is no hook, because a hook of a first installation
would wait forever for a database that is applied later (see fleet's #26580).

A job with a `schedule` is a CronJob, which is applied last: its next run has the new release when
that serves. A failed run is not retried, as on a machine: the next one follows by its schedule.

A migration with `mode: offline` has annotations for a guarded upgrade (see kubernetes/upgrade): the
services that must be disconnected meanwhile, and the database to back up.
"""

from __future__ import annotations

from collections.abc import Iterator

from lapwing.plan.model import JOB_TIMEOUT_S
from lapwing.plan.names import BACKS_UP, OFFLINE_MIGRATION, STOPS
from lapwing.render.kubernetes import data, pod
from lapwing.render.kubernetes.objects import (
    ClusterEnvironment,
    Manifest,
    labels,
    name,
    new_object,
    service_account,
)
from lapwing.render.kubernetes.setting import Digest, Setting, Tree, join, spelled
from lapwing.stack.migrations import database_of, job_of
from lapwing.stack.model import Service

BACKED_UP_KINDS = ("mysql",)
"""The kinds of database that a guarded upgrade backs up automatically."""

FILE = "jobs.yaml"
WAVE = 3
AFTER_FILE = "after.yaml"
AFTER_WAVE = 8
"""The wave of jobs that run `after` services: after those of the edge and the ingress."""
RETRIES = 3
"""Retries of a failed job: its database may not be ready yet."""
KEPT_RUNS = 3
"""Finished runs of a scheduled job whose pods, and so their output, are kept: of each outcome."""

KEPT_HOOK_S = 7 * 86400
"""How long Kubernetes keeps a finished hook, and so its output: until long after Argo CD has read
its outcome (argo-cd #21055)."""


def manifests(cluster: ClusterEnvironment) -> Iterator[Manifest]:
    """Yield the job services and the migrations."""
    for part, service in cluster.services.items():
        if service.schedule is not None:
            yield Manifest(AFTER_FILE, AFTER_WAVE - 1, service_account(cluster, part))
            yield Manifest(AFTER_FILE, AFTER_WAVE, _cron_job(cluster, part, service))
        elif service.kind == "job":
            file, wave = (AFTER_FILE, AFTER_WAVE) if service.after else (FILE, WAVE)
            yield Manifest(file, wave - 1, service_account(cluster, part))
            hook = {
                "argocd.argoproj.io/hook": "Sync",
                "argocd.argoproj.io/hook-delete-policy": "BeforeHookCreation",
            }
            annotations = hook if cluster.is_argo else {}
            job = _job(cluster, part, service, service.command, annotations)
            if cluster.is_argo:
                job["spec"]["ttlSecondsAfterFinished"] = KEPT_HOOK_S
            yield Manifest(file, wave, job)
        elif service.migrate is not None:
            run = service.migrate.run
            yield Manifest(FILE, WAVE - 1, service_account(cluster, part))
            yield Manifest(FILE, WAVE, _migration(cluster, part, service, run))


def _migration(
    cluster: ClusterEnvironment, part: str, service: Service, run: str
) -> dict[str, Tree]:
    assert service.migrate is not None
    offline = service.migrate.mode == "offline"
    annotations = _offline_annotations(cluster, part) if offline else {}
    waits_for = database_of(cluster.loaded.stack, service)
    return _job(cluster, job_of(part), service, run, annotations, waits_for=waits_for)


def _offline_annotations(cluster: ClusterEnvironment, part: str) -> dict[str, str]:
    database = database_of(cluster.loaded.stack, cluster.services[part])
    users = [
        n
        for n, s in cluster.services.items()
        if database in s.needs and (s.kind != "job" or s.schedule is not None)
    ]
    found = {OFFLINE_MIGRATION: part, STOPS: " ".join(users)}
    own = cluster.own_resources.get(database)
    if own is not None and own.backup and own.kind in BACKED_UP_KINDS:
        found[BACKS_UP] = database
    return found


def _job(
    cluster: ClusterEnvironment,
    part: str,
    service: Service,
    command: str | None,
    annotations: dict[str, str],
    waits_for: str = "",
) -> dict[str, Tree]:
    """Build a Job. It starts when the database in the cluster that it waits for is ready."""
    template = pod.template(
        cluster, part, service, component="job", command=command, restart="Never"
    )
    if waits_for in cluster.own_resources:
        template["spec"]["initContainers"] = [data.waiting(cluster, waits_for)]
    called = join(name(part), "-", Digest(spelled(template["spec"])))
    spec = _spec(service, template, retries=RETRIES)
    return new_object(
        cluster, "batch/v1", "Job", part, "job", called=called, annotations=annotations, spec=spec
    )


def _cron_job(cluster: ClusterEnvironment, part: str, service: Service) -> dict[str, Tree]:
    assert service.schedule is not None
    template = pod.template(
        cluster, part, service, component="job", command=service.command, restart="Never"
    )
    path, schedule = f"services.{part}.schedule", service.schedule
    spec = {
        "schedule": Setting(f"{path}.cron", schedule.cron, f"When {part} runs."),
        "timeZone": Setting(
            f"{path}.timezone", schedule.timezone, "The time zone of the schedule."
        ),
        "suspend": Setting(f"{path}.suspend", schedule.suspend, f"Whether {part} is suspended."),
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": round(schedule.start_within),
        "successfulJobsHistoryLimit": KEPT_RUNS,
        "failedJobsHistoryLimit": KEPT_RUNS,
        "jobTemplate": {
            "metadata": {"labels": labels(cluster, part, "job")},
            "spec": _spec(service, template, retries=0),
        },
    }
    return new_object(cluster, "batch/v1", "CronJob", part, "job", spec=spec)


def _spec(service: Service, template: dict[str, Tree], *, retries: int) -> dict[str, Tree]:
    return {
        "backoffLimit": retries,
        "activeDeadlineSeconds": round(service.timeout or JOB_TIMEOUT_S),
        "template": template,
    }
