"""Apply the objects of a stack wave by wave, then prune what is not wanted any more.

    check kinds and owners -> extend the apply set -> waves (apply, wait) -> prune

The checks come before any change. From there on it can be interrupted at any moment: applying
again does what is missing, because each step states what should be. A field that belongs to a
controller (replicas under an autoscaler) is left to it: our value is dropped. A field that a person
or another tool has changed is reset, and that is reported.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lapwing.errors import ClusterError, KindMissingError, UnmanagedObjectError
from lapwing.kubernetes import Report, applyset, health, volumes
from lapwing.kubernetes.api_errors import FieldConflictError
from lapwing.kubernetes.applyset import Scope
from lapwing.kubernetes.client import FIELD_MANAGER, ApiClient
from lapwing.kubernetes.health import Health
from lapwing.kubernetes.objects import Object, Reference, is_terminating
from lapwing.kubernetes.prune import prune
from lapwing.kubernetes.wait import poll
from lapwing.kubernetes.waves import CLUSTER_WIDE_SHARED, FIRST_WAVE, group_by_wave, wave_of

Wait = Callable[[Sequence[Reference]], Mapping[Reference, Health] | None]
"""Waits until objects are ready and returns their health; raises if they do not become ready."""
CONTROLLERS = frozenset(
    {
        "kube-controller-manager",
        "rollouts-controller",
        "argo-rollouts",
        "kube-scheduler",
        "external-secrets",
        "cert-manager-certificates-issuing",
        "cluster-autoscaler",
        "gke-managed-components",
        "vpa-recommender",
    }
)
"""Field managers whose values take precedence over those of the manifests."""
DELETION_TIMEOUT_S = 600.0
"""Seconds that an object may take to be deleted before it is created again."""


@dataclass(slots=True)
class ApplyResult:
    """What changed. While a rollout is `held`, nothing is pruned: the old objects still serve."""

    changed: list[Reference] = field(default_factory=list)
    pruned: list[Reference] = field(default_factory=list)
    held: list[Reference] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ApplyOptions:
    """How to apply.

    `waves` overrides the wave of objects by their annotations; `settle` is called once the
    namespaces exist and before everything else; `kept` is neither applied nor pruned. From the wave
    `promoted` on, nothing is applied while a rollout is held: what runs after a service would meet
    the old one.
    """

    waves: Mapping[Reference, int] = field(default_factory=dict)
    settle: Callable[[], None] = lambda: None
    kept: frozenset[Reference] = frozenset()
    promoted: float = float("inf")

    def wave_of(self, thing: Object) -> int:
        """Return the wave of an object."""
        wave = wave_of(thing)
        return wave if wave == FIRST_WAVE else self.waves.get(Reference.of(thing), wave)


def apply_objects(
    api: ApiClient,
    scope: Scope,
    things: Sequence[Object],
    *,
    commit: str,
    wait: Wait,
    report: Report = lambda _: None,
    course: ApplyOptions = ApplyOptions(),
) -> ApplyResult:
    """Make these objects, and no others, the objects of a scope.

    `wait` is called with the references of each wave.

    Raises KindMissingError, UnmanagedObjectError, QuotaError, ClusterError, or what `wait` raises.
    """
    wanted_objects = [scope.with_labels(t) for t in things]
    wanted = {Reference.of(t) for t in wanted_objects}
    live = check_objects(api, scope, wanted_objects)
    if terminating := [thing for thing in live.values() if is_terminating(thing)]:
        wait_for_deletion(api, terminating, report)
        live = check_objects(api, scope, wanted_objects)  # With a namespace, what it held is gone.
    before = applyset.references(api.get(scope.applyset))
    result = ApplyResult()
    extended = False
    for wave in group_by_wave(wanted_objects, course.wave_of):
        if result.held and course.wave_of(wave[0]) >= course.promoted:
            break
        if not extended and wave_of(wave[0]) > FIRST_WAVE:
            _write_applyset(api, scope, before | wanted, commit)
            course.settle()
            extended = True
        for thing in wave:
            known = _prepare(api, thing, live.get(Reference.of(thing)), report)
            if apply_object(api, thing, known, report):
                result.changed.append(Reference.of(thing))
        states = wait([*map(Reference.of, wave), *_service_accounts(wave, live), *_scaled(wave)])
        result.held += [r for r, h in (states or {}).items() if h.state == "held"]
    if result.held:
        return result
    result.pruned = prune(api, scope, before, {*wanted, *course.kept}, report)
    _write_applyset(api, scope, wanted | (course.kept & before), commit)
    return result


def check_objects(
    api: ApiClient, scope: Scope, things: Sequence[Object]
) -> dict[Reference, Object]:
    """Check that objects can be applied; returns those that exist already.

    Raises KindMissingError if the cluster lacks a kind, UnmanagedObjectError if an object of that
    name exists and is not of this scope, UsageError if a volume cannot have the wanted size.
    """
    check_kinds(api, things)
    live: dict[Reference, Object] = {}
    for thing in things:
        found = api.get(Reference.of(thing))
        if found is None:
            continue
        live[Reference.of(thing)] = found
        if thing["kind"] not in CLUSTER_WIDE_SHARED and not scope.manages(found):
            raise UnmanagedObjectError(
                f"{Reference.of(thing)} already exists in namespace {scope.namespace} and is not "
                f"managed by {scope.stack}/{scope.environment}.",
                hint="Nothing was changed. Delete or rename it, or choose another namespace.",
            )
        if thing["kind"] == "StatefulSet":
            volumes.check(api, thing, found)
    return live


def check_kinds(api: ApiClient, things: Sequence[Object]) -> None:
    """Check that the cluster has every kind of these objects. Raises KindMissingError."""
    defined_here = {
        (t["spec"]["group"], t["spec"]["names"]["kind"])
        for t in things
        if t["kind"] == "CustomResourceDefinition"
    }
    missing: dict[str, KindMissingError] = {}
    for version, kind in sorted({(str(t["apiVersion"]), str(t["kind"])) for t in things}):
        if (version.partition("/")[0], kind) in defined_here:
            continue
        try:
            api.kind(version, kind)
        except KindMissingError as error:
            missing[f"{kind} ({version})"] = error
    if missing:
        hints = dict.fromkeys(e.hint for e in missing.values() if e.hint)
        raise KindMissingError(
            f"The cluster has no kind {', '.join(missing)}.",
            hint=" ".join(["Nothing was changed.", *hints]),
        )


def apply_object(
    api: ApiClient, thing: Object, live: Object | None, report: Report = lambda _: None
) -> bool:
    """Apply one object; returns whether that changed anything."""
    try:
        after = api.apply(thing)
    except FieldConflictError as conflict:
        owners = conflict.owners
        left = [f for o, fields in owners.items() if o in CONTROLLERS for f in fields]
        others = sorted(o for o in owners if o not in {*CONTROLLERS, FIELD_MANAGER})
        if others:
            fields = ", ".join(f.lstrip(".") for o in others for f in owners[o])
            report(f"{Reference.of(thing)}: resetting {fields}, changed by {', '.join(others)}")
        force = bool(others) or FIELD_MANAGER in owners
        after = api.apply(without_fields(thing, left), force=force)
    return live is None or not _is_same(after, live)


def without_fields(thing: Object, fields: Iterable[str]) -> dict[str, Any]:
    """Return an object without some fields, named as the API server names them: `.spec.replicas`.

    A field inside a list, `.spec.ports[...]`, stays: a list is one value.
    """
    made: dict[str, Any] = copy.deepcopy(dict(thing))
    for name in fields:
        *parents, last = name.lstrip(".").split(".")
        at: Any = made
        for part in parents:
            at = at.get(part) if isinstance(at, dict) else None
        if isinstance(at, dict):
            at.pop(last, None)
    return made


def dry_run(api: ApiClient, scope: Scope, things: Sequence[Object]) -> dict[Reference, str]:
    """Ask the API server what applying would do: `create`, `change`, `keep` or `remove`.

    Raises as `apply_objects`.
    """
    wanted = [scope.with_labels(t) for t in things]
    found = check_objects(api, scope, wanted)
    live = {reference: thing for reference, thing in found.items() if not is_terminating(thing)}
    actions: dict[Reference, str] = {}
    namespace = api.get(scope.home)
    if namespace is not None and is_terminating(namespace):  # What it holds is deleted with it.
        namespace, live = None, {r: t for r, t in live.items() if r.namespace != scope.namespace}
    for thing in wanted:
        reference = Reference.of(thing)
        if reference not in live:
            actions[reference] = "create"
            if namespace is not None and reference not in found:
                api.apply(thing, dry_run=True)
            continue
        if thing["kind"] == "StatefulSet" and volumes.check(api, thing, live[reference]):
            actions[reference] = "change"  # A dry run would fail: volumes have to grow first.
            continue
        after = api.apply(thing, dry_run=True, force=True)
        actions[reference] = "keep" if _is_same(after, live[reference]) else "change"
    before = applyset.references(api.get(scope.applyset))
    return actions | dict.fromkeys(applyset.to_prune(before, map(Reference.of, wanted)), "remove")


def _prepare(api: ApiClient, thing: Object, live: Object | None, report: Report) -> Object | None:
    """Delete what cannot be changed in place, and return what exists then."""
    if live is not None and thing["kind"] == "StatefulSet":
        return None if volumes.grow(api, thing, live, report) else live
    return _without_failed_job(api, live, report)


def _without_failed_job(api: ApiClient, live: Object | None, report: Report) -> Object | None:
    """Delete a Job that has failed, so that it runs again; any other object is returned."""
    if live is None or live["kind"] != "Job" or health.judge(live).state != "failed":
        return live
    api.delete(Reference.of(live), uid=live["metadata"]["uid"])
    wait_for_deletion(api, [live], report)
    return None


def wait_for_deletion(api: ApiClient, things: Iterable[Object], report: Report) -> None:
    """Wait until objects that are being deleted are gone. Raises ClusterError on a timeout."""
    uids = {Reference.of(thing): thing["metadata"]["uid"] for thing in things}
    until = time.monotonic() + DELETION_TIMEOUT_S

    def look() -> str | None:
        found = {reference: api.get(reference) for reference in uids}
        left = [r for r, t in found.items() if t is not None and t["metadata"]["uid"] == uids[r]]
        if left and time.monotonic() > until:
            place = f" -n {left[0].namespace}" if left[0].namespace else ""
            raise ClusterError(
                f"{left[0]} is still being deleted after {DELETION_TIMEOUT_S:.0f} s.",
                hint=f"Run `kubectl get {left[0].kind.lower()} {left[0].name}{place} -o yaml` "
                "to see what blocks the deletion (finalizers, or the conditions of a namespace), "
                "then run this command again.",
            )
        return f"waiting until {', '.join(map(str, left))} is deleted" if left else None

    poll(look, report)


def _service_accounts(wave: Iterable[Object], live: Mapping[Reference, Object]) -> list[Reference]:
    """Return the default service account of each new namespace, to wait for.

    The API server rejects pods until it exists, and their controllers wait longer after each
    rejection.
    """
    namespaces = [Reference.of(t) for t in wave if t["kind"] == "Namespace"]
    new = [n.name for n in namespaces if n not in live]
    return [Reference("v1", "ServiceAccount", name, "default") for name in new]


def _scaled(wave: Iterable[Object]) -> list[Reference]:
    """Return the workloads of autoscalers, which start with one pod and are then scaled up."""
    scalers = (t for t in wave if t["kind"] == "HorizontalPodAutoscaler")
    return [Reference.of_scale_target(scaler) for scaler in scalers]


def _write_applyset(
    api: ApiClient, scope: Scope, references: Iterable[Reference], commit: str
) -> None:
    api.apply(applyset.config_map(scope, references, commit), force=True)


def _is_same(one: Object, other: Object) -> bool:
    """Compare objects without what the API server records about a change itself."""

    def bare(thing: Object) -> dict[str, Any]:
        hidden = ("managedFields", "resourceVersion", "generation")
        metadata = {k: v for k, v in thing["metadata"].items() if k not in hidden}
        return {**thing, "metadata": metadata}

    return bare(one) == bare(other)
