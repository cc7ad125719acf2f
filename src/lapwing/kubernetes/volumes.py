"""Grow the volumes of databases, with the data in them.

The API server refuses to change the claim templates of a StatefulSet. So the claims are expanded
first, and the StatefulSet is deleted without its pods; applying creates it again, and it adopts
them: the database keeps running. A rollback keeps the larger size, because no volume can shrink.

A volume keeps its storage class. If the template adds or removes its name, the StatefulSet is
created again as well. A different class is refused.

Source: Kubernetes documentation, Persistent Volumes, "Expanding Persistent Volumes Claims".
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from lapwing.errors import ClusterError, StateError, UsageError
from lapwing.kubernetes import Report
from lapwing.kubernetes.client import ApiClient
from lapwing.kubernetes.objects import Object, Reference
from lapwing.stack.quantities import size

DELETION_TIMEOUT_S = 60.0


def check(api: ApiClient, wanted: Object, live: Object) -> bool:
    """Return whether a StatefulSet has to be created again, because its claim templates change.

    Raises UsageError or StateError if its volumes cannot grow, or would have another storage class.
    """
    changes, classes = list(_changes(wanted, live)), list(_classes(wanted, live))
    for claim, new in classes:
        _check_same_class(api.get(_claim(live, claim)), new)
    for claim, old, new in changes:
        if size(new) < size(old):
            raise UsageError(
                f"The volume {claim} has {old} and cannot shrink to {new}.",
                hint=f"Write `storage: {old}` or more. Nothing was changed.",
            )
        found = api.get(_claim(live, claim))
        if found is not None:
            _check_class(api, found, new)
    return bool(changes or classes)


def _check_same_class(claim: Object | None, new: str) -> None:
    """Check that a claim, if it exists, has the storage class `new`, if any. Raises UsageError."""
    old = str(claim["spec"].get("storageClassName") or "") if claim else new
    if claim is not None and new and old != new:
        fix = f"Write `storage_class: {old}` for" if old else "Remove `storage_class` of"
        raise UsageError(
            f"The volume {claim['metadata']['name']} has the storage class {old or '(none)'}, "
            f"which cannot be changed to {new}.",
            hint=f"{fix} this resource, or move the data: back it up, "
            "delete the StatefulSet and the claim, deploy, and restore. Nothing was changed.",
        )


def _check_class(api: ApiClient, claim: Object, new: str) -> None:
    """Check that the storage class of a claim can expand volumes. Raises StateError."""
    name, called = claim["metadata"]["name"], str(claim["spec"].get("storageClassName") or "")
    found = api.get(Reference("storage.k8s.io/v1", "StorageClass", "", called)) if called else None
    if found is None or not found.get("allowVolumeExpansion"):
        raise StateError(
            f"The volume {name} cannot grow to {new}: its storage class {called or '(none)'} does "
            "not allow it.",
            hint="Set `allowVolumeExpansion: true` of the class if its driver can expand volumes, "
            "or back up the database and restore it into a new volume. Nothing was changed.",
        )


def grow(api: ApiClient, wanted: Object, live: Object, report: Report) -> bool:
    """Expand the claims of a StatefulSet and delete it without its pods, if its volumes grow.

    Return whether it was deleted.
    """
    changes = list(_changes(wanted, live))
    if not changes and not any(_classes(wanted, live)):
        return False
    for claim, old, new in changes:
        reference = _claim(live, claim)
        if api.get(reference) is not None:
            report(f"growing the volume {claim} from {old} to {new}")
            api.patch(reference, {"spec": {"resources": {"requests": {"storage": new}}}})
    reference, uid = Reference.of(live), live["metadata"]["uid"]
    api.delete(reference, uid=uid, orphan=True)
    until = time.monotonic() + DELETION_TIMEOUT_S
    while api.get(reference) is not None:
        if time.monotonic() > until:
            raise ClusterError(
                f"{reference} was not deleted within {DELETION_TIMEOUT_S:.0f} s, which growing its "
                "volumes requires.",
                hint="Check its finalizers, then deploy again. Its pods keep running.",
            )
        time.sleep(0.1)
    return True


def create_claim(api: ApiClient, claim: Object, report: Report) -> None:
    """Create a claim, or expand the existing one to the size of this one.

    If its storage class cannot expand volumes, this is only reported: the data may still fit.
    """
    if api.create(claim) is not None:
        return
    reference = Reference.of(claim)
    live = api.get(reference)
    is_bound = live is not None and (live.get("status") or {}).get("phase") == "Bound"
    if live is None or not is_bound or size(_storage(claim)) <= size(_storage(live)):
        return  # The API server expands only bound claims.
    try:
        _check_class(api, live, _storage(claim))
    except StateError as error:
        report(error.message)
        return
    report(f"growing the volume {reference.name} from {_storage(live)} to {_storage(claim)}")
    api.patch(reference, {"spec": {"resources": {"requests": {"storage": _storage(claim)}}}})


def with_sizes_of(wanted: Object, live: Object) -> Object:
    """Return a StatefulSet whose volumes are at least as large as the live ones."""
    larger = {claim: old for claim, old, new in _changes(wanted, live) if size(old) > size(new)}
    templates = [
        _sized(template, larger[claim])
        if (claim := _name(wanted, template)) in larger
        else template
        for template in wanted["spec"].get("volumeClaimTemplates") or ()
    ]
    if not larger:
        return wanted
    return {**wanted, "spec": {**wanted["spec"], "volumeClaimTemplates": templates}}


def _changes(wanted: Object, live: Object) -> Iterator[tuple[str, str, str]]:
    """Yield each claim of the first pod whose size differs, with its live and its wanted size."""
    before = {
        _name(live, template): _storage(template)
        for template in live["spec"].get("volumeClaimTemplates") or ()
    }
    for template in wanted["spec"].get("volumeClaimTemplates") or ():
        claim, new = _name(wanted, template), _storage(template)
        if before.get(claim, new) != new:
            yield claim, before[claim], new


def _classes(wanted: Object, live: Object) -> Iterator[tuple[str, str]]:
    """Yield each claim of the first pod whose template names another class; "" is the default."""
    before = {
        _name(live, template): template["spec"].get("storageClassName") or ""
        for template in live["spec"].get("volumeClaimTemplates") or ()
    }
    for template in wanted["spec"].get("volumeClaimTemplates") or ():
        claim, new = _name(wanted, template), template["spec"].get("storageClassName") or ""
        if before.get(claim, new) != new:
            yield claim, new


def _name(workload: Object, template: Mapping[str, object]) -> str:
    metadata = template["metadata"]
    assert isinstance(metadata, Mapping)
    return f"{metadata['name']}-{workload['metadata']['name']}-0"


def _storage(template: Object) -> str:
    return str(template["spec"]["resources"]["requests"]["storage"])


def _sized(template: Object, storage: str) -> Object:
    resources = {**template["spec"]["resources"], "requests": {"storage": storage}}
    return {**template, "spec": {**template["spec"], "resources": resources}}


def _claim(workload: Object, name: str) -> Reference:
    return Reference("v1", "PersistentVolumeClaim", workload["metadata"]["namespace"], name)
