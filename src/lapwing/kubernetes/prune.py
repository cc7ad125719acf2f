"""Delete objects of a stack from a cluster: those that are not wanted any more, or all."""

from __future__ import annotations

import time
from collections.abc import Iterable

from lapwing.errors import KindMissingError
from lapwing.kubernetes import Report, applyset, restores
from lapwing.kubernetes.applyset import Scope
from lapwing.kubernetes.client import ApiClient
from lapwing.kubernetes.objects import Reference, is_terminating
from lapwing.kubernetes.status import WORKLOADS
from lapwing.plan.names import INSTANCE

POD_TERMINATION_TIMEOUT_S = 120.0


def prune(
    api: ApiClient,
    scope: Scope,
    before: Iterable[Reference],
    wanted: Iterable[Reference],
    report: Report = lambda _: None,
) -> list[Reference]:
    """Delete what is not wanted any more, if its labels say that it is managed by the scope.

    Returns what was deleted.
    """
    deleted = []
    for reference in applyset.to_prune(before, wanted):
        try:
            found = api.get(reference)
        except KindMissingError:
            continue  # Its definition was deleted, and the object with it.
        if found is None or not scope.manages(found) or applyset.is_kept(found):
            continue
        if api.delete(reference, uid=found["metadata"]["uid"]):
            report(f"deleted {reference}")
            deleted.append(reference)
    return deleted


def delete_all(api: ApiClient, scope: Scope, report: Report = lambda _: None) -> list[Reference]:
    """Delete every object of an environment but its data; returns what was deleted."""
    deleted = prune(api, scope, applyset.references(api.get(scope.applyset)), (), report)
    api.delete(scope.applyset)
    return deleted


def wait_for_pod_termination(api: ApiClient, scope: Scope, report: Report = lambda _: None) -> None:
    """Wait until no pod of an environment is left, so that a later deployment meets none.

    After POD_TERMINATION_TIMEOUT_S it reports that some are left and returns.
    """
    until, reported = time.monotonic() + POD_TERMINATION_TIMEOUT_S, -1
    while time.monotonic() < until:
        left = len(api.list("v1", "Pod", scope.namespace, scope.selector))
        if not left:
            return
        if left != reported:
            report(f"{left} pods are terminating")
            reported = left
        time.sleep(0.2)
    report("some pods have not terminated yet")


def has_unmanaged_objects(api: ApiClient, scope: Scope) -> bool:
    """Return whether the namespace of an environment holds objects that others created."""
    core = ("Pod", "PersistentVolumeClaim", "Secret", "Service", "ConfigMap")
    return any(
        not scope.manages(thing)
        and not is_terminating(thing)
        and thing["metadata"]["name"] != "kube-root-ca.crt"
        for version, kind in (*(("v1", k) for k in core), *WORKLOADS)
        for thing in api.list(version, kind, scope.namespace, missing_kind_ok=True)
    )


def delete_data(api: ApiClient, scope: Scope) -> list[Reference]:
    """Delete volumes of databases, generated Secrets, and the namespace if it is empty otherwise.

    Returns what was deleted.
    """
    volumes = api.list("v1", "PersistentVolumeClaim", scope.namespace, f"{INSTANCE}={scope.stack}")
    kept = f"{scope.selector},{applyset.KEEP}=true"
    generated = api.list("v1", "Secret", scope.namespace, kept)
    deleted = [
        Reference.of(thing)
        for thing in (*volumes, *generated)
        if api.delete(Reference.of(thing), uid=thing["metadata"]["uid"])
    ]
    namespace = api.get(scope.home)
    api.delete(restores.reference(scope))
    if namespace and scope.manages(namespace) and not has_unmanaged_objects(api, scope):
        api.delete(Reference.of(namespace))
        deleted.append(Reference.of(namespace))
    return deleted
