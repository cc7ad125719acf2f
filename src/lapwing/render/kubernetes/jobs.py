"""Jobs: what runs once before the new release serves. Pure.

A `job` service, and the `migrate` of a service, is a Job whose name ends in a digest of all that
its pods are made of, because a Job's pods may not be changed. So it runs once for each release, a
finished one is no obstacle to the next, and applying the same again does nothing. With Argo CD a
job service is a hook of the sync: it runs before workloads of a later wave, and a failed one stops
the sync. A migration is no hook, because a hook of a first install waits for a database that comes
later, for ever (see fleet's #26580).
"""

from __future__ import annotations

from collections.abc import Iterator

from lapwing.render.kubernetes import pod
from lapwing.render.kubernetes.setting import Digest, Tree, join, spelled
from lapwing.render.kubernetes.target import Manifest, Target, meta, name
from lapwing.render.kubernetes.workloads import account
from lapwing.stack.model import Service

FILE = "jobs.yaml"
WAVE = 3
TIMEOUT = 600.0
"""Seconds that a job may take where the stack file does not say, as on a machine."""
TRIES = 3
"""Times that a job is started again when it fails: its database may not be there yet."""


def manifests(target: Target) -> Iterator[Manifest]:
    """The job services, and the migrations."""
    for part, service in target.services.items():
        if service.kind == "job":
            yield Manifest(FILE, WAVE - 1, account(target, part))
            hook = {
                "argocd.argoproj.io/hook": "Sync",
                "argocd.argoproj.io/hook-delete-policy": "BeforeHookCreation",
            }
            annotations = hook if target.is_argo else {}
            yield Manifest(FILE, WAVE, _job(target, part, service, service.command, annotations))
        elif service.migrate is not None:
            run = service.migrate.run
            yield Manifest(FILE, WAVE, _job(target, f"{part}-migrate", service, run, {}))


def _job(
    target: Target, part: str, service: Service, command: str | None, annotations: dict[str, str]
) -> dict[str, Tree]:
    template = pod.template(
        target, part, service, component="job", command=command, restart="Never"
    )
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
