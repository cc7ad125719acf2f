"""Jobs: what runs once before the new release serves. Pure.

A `job` service, and the `migrate` of a service, is a Job whose name ends in a digest of all that
its pods are made of, because a Job's pods may not be changed. So it runs once for each release, a
finished one is no obstacle to the next, and applying the same again does nothing. With Argo CD a
job service is a hook of the sync: it runs before workloads of a later wave, and a failed one stops
the sync. One that runs `after` services is in the last wave, which begins when they are healthy; a
chart knows no waves, so its program has to wait for them. A migration is no hook, because a hook of
a first install waits for a database that comes later, for ever (see fleet's #26580).

A migration with `mode: offline` says in annotations what a guarded upgrade has to know (see
kubernetes/upgrade): which services may not be connected meanwhile, which database is backed
up. Who applies it by other means finds the same there.
"""

from __future__ import annotations

from collections.abc import Iterator

from lapwing.plan.names import BACKS_UP, OFFLINE_MIGRATION, STOPS
from lapwing.render.kubernetes import data, pod
from lapwing.render.kubernetes.setting import Digest, Tree, join, spelled
from lapwing.render.kubernetes.target import Manifest, Target, meta, name
from lapwing.render.kubernetes.workloads import account
from lapwing.stack.model import Service

DUMPED = ("mysql",)
"""The kinds of database of which a guarded upgrade makes a backup by itself."""

FILE = "jobs.yaml"
WAVE = 3
AFTER_FILE = "after.yaml"
AFTER_WAVE = 8
"""The wave of jobs that run `after` services: the one behind the edge and what is in front."""
TIMEOUT = 600.0
"""Seconds that a job may take where the stack file does not say, as on a machine."""
TRIES = 3
"""Times that a job is started again when it fails: its database may not be there yet."""


def manifests(target: Target) -> Iterator[Manifest]:
    """The job services, and the migrations."""
    for part, service in target.services.items():
        if service.kind == "job":
            file, wave = (AFTER_FILE, AFTER_WAVE) if service.after else (FILE, WAVE)
            yield Manifest(file, wave - 1, account(target, part))
            hook = {
                "argocd.argoproj.io/hook": "Sync",
                "argocd.argoproj.io/hook-delete-policy": "BeforeHookCreation",
            }
            annotations = hook if target.is_argo else {}
            yield Manifest(file, wave, _job(target, part, service, service.command, annotations))
        elif service.migrate is not None:
            run = service.migrate.run
            yield Manifest(FILE, WAVE - 1, account(target, part))
            yield Manifest(FILE, WAVE, _migration(target, part, service, run))


def database_of(target: Target, service: Service) -> str:
    """The resource that a service migrates: the first that it needs, and no cache."""
    resources = target.loaded.stack.resources
    return next((n for n in service.needs if resources[n].kind != "redis"), service.needs[0])


def _migration(target: Target, part: str, service: Service, run: str) -> dict[str, Tree]:
    assert service.migrate is not None
    told = _offline(target, part) if service.migrate.mode == "offline" else {}
    return _job(
        target, f"{part}-migrate", service, run, told, waits_for=database_of(target, service)
    )


def _offline(target: Target, part: str) -> dict[str, str]:
    """The annotations of an offline migration."""
    database = database_of(target, target.services[part])
    users = [n for n, s in target.services.items() if database in s.needs and s.kind != "job"]
    found = {OFFLINE_MIGRATION: part, STOPS: " ".join(users)}
    own = target.own_resources.get(database)
    if own is not None and own.backup and own.kind in DUMPED:
        found[BACKS_UP] = database
    return found


def _job(
    target: Target,
    part: str,
    service: Service,
    command: str | None,
    annotations: dict[str, str],
    waits_for: str = "",
) -> dict[str, Tree]:
    """A Job. It begins when the database that it waits for serves, if that is in the cluster."""
    template = pod.template(
        target, part, service, component="job", command=command, restart="Never"
    )
    if waits_for in target.own_resources:
        template["spec"]["initContainers"] = [data.waiting(target, waits_for)]
    called = join(name(part), "-", Digest(spelled(template["spec"])))
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": meta(target, called, part, "job", annotations),
        "spec": {
            "backoffLimit": TRIES,
            "activeDeadlineSeconds": round(service.timeout or TIMEOUT),
            "template": template,
        },
    }
