"""Applying a stack: every object, wave by wave, and then what left the file goes.

    known kinds? -> nobody else's objects? -> widen the inventory -> waves (apply, wait) -> prune

The first two questions come before anything is touched. From there on it can be interrupted at any
moment: applying again does what is missing, because each step says what should be and not what to
do. Nothing is ever taken from a controller: where a field that we name belongs to one (replicas
under an autoscaler), our word is dropped. Where a person or another tool has changed a field of an
object of ours, it is set back, and that is told.
"""

from __future__ import annotations

import copy
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from lapwing.errors import KindMissingError, UnmanagedObjectError
from lapwing.kubernetes import applyset, health
from lapwing.kubernetes.client import FIELD_MANAGER, ApiClient, FieldConflictError
from lapwing.kubernetes.health import Health
from lapwing.kubernetes.objects import Object, Reference

Tell = Callable[[str], None]
Wait = Callable[[Sequence[Reference]], Mapping[Reference, Health] | None]
"""Waits until objects run, and returns the health of each; raises if they do not come to run."""
WAVE = "argocd.argoproj.io/sync-wave"
"""The annotation by which Argo CD orders objects; here it means the same."""
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
"""Managers of fields whose word counts more than the file's: they act for the file."""
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Rollout", "Job", "CronJob", "Application")
"""What comes last in its wave: it refers to the rest of it, and Argo Rollouts calls a Rollout
invalid whose Services or AnalysisTemplates are not there."""
GONE = 60.0
"""Seconds that the cluster may take to remove a Job that failed."""
CLUSTER_WIDE_SHARED = ("Namespace", "CustomResourceDefinition")


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose objects these are, and where they are."""

    stack: str
    environment: str
    namespace: str

    @property
    def selector(self) -> str:
        """The label selector of everything of this scope."""
        return ",".join(
            f"{k}={v}" for k, v in applyset.labels(self.stack, self.environment).items()
        )

    @property
    def applyset(self) -> Reference:
        """Where the inventory is."""
        return Reference("v1", "ConfigMap", self.namespace, applyset.NAME)


@dataclass(slots=True)
class ApplyResult:
    """What was done: objects that came or changed, and those that went. Where something is `held`
    for a person, nothing goes yet: it still serves."""

    changed: list[Reference] = field(default_factory=list)
    pruned: list[Reference] = field(default_factory=list)
    held: list[Reference] = field(default_factory=list)


def wave_of(thing: Object) -> int:
    """The wave of an object, 0 where it names none. Namespaces and definitions come first: nothing
    else can be applied without them."""
    if thing["kind"] in CLUSTER_WIDE_SHARED:
        return -1_000_000
    found = (thing["metadata"].get("annotations") or {}).get(WAVE, "0")
    return int(found) if re.fullmatch(r"-?\d+", str(found)) else 0


def group_by_wave(
    things: Iterable[Object], key: Callable[[Object], int] = wave_of
) -> Iterator[list[Object]]:
    """The objects in the order in which they have to come to be."""
    for _, wave in groupby(sorted(things, key=key), key=key):
        yield sorted(wave, key=lambda t: t["kind"] in WORKLOADS)


@dataclass(frozen=True, slots=True)
class ApplyOptions:
    """How a run goes. `waves` names the wave of objects whose annotations do not; `settle` is
    called when the namespaces are there and before all else; `kept` is not applied, and does not go
    either. From the wave `promoted` on, nothing is applied while a rollout is held: what runs after
    a service would meet the old one."""

    waves: Mapping[Reference, int] = field(default_factory=dict)
    settle: Callable[[], None] = lambda: None
    kept: frozenset[Reference] = frozenset()
    promoted: float = float("inf")

    def wave_of(self, thing: Object) -> int:
        """The wave of an object."""
        natural = wave_of(thing)
        return natural if natural < -1000 else self.waves.get(Reference.of(thing), natural)


def apply_objects(
    api: ApiClient,
    scope: Scope,
    things: Sequence[Object],
    *,
    commit: str,
    wait: Wait,
    tell: Tell = lambda _: None,
    course: ApplyOptions = ApplyOptions(),
) -> ApplyResult:
    """Make the cluster hold these objects and no others of this scope. `wait` is called with the
    objects of each wave, and raises if they do not come to run.

    Raises KindMissingError, UnmanagedObjectError, QuotaError, ClusterError, or what `wait` raises.
    """
    marked = [applyset.with_labels(t, scope.stack, scope.environment) for t in things]
    live = check_objects(api, scope, marked)
    before = applyset.references(api.get(scope.applyset))
    done = ApplyResult()
    written = False
    for wave in group_by_wave(marked, course.wave_of):
        if done.held and course.wave_of(wave[0]) >= course.promoted:
            break
        if not written and wave_of(wave[0]) > -1_000_000:
            _write(api, scope, {*before, *map(Reference.of, marked)}, commit)
            course.settle()
            written = True
        for thing in wave:
            known = live.get(Reference.of(thing))
            if apply_object(api, thing, _unless_failed(api, known), tell):
                done.changed.append(Reference.of(thing))
        states = wait([*map(Reference.of, wave), *_accounts(wave, live)])
        done.held += [r for r, h in (states or {}).items() if h.state == "held"]
    if done.held:
        return done
    wanted = {*map(Reference.of, marked), *course.kept}
    done.pruned = prune(api, scope, before, wanted, tell)
    _write(api, scope, wanted & before | set(map(Reference.of, marked)), commit)
    return done


def _unless_failed(api: ApiClient, live: Object | None) -> Object | None:
    """What is there, without a Job that has failed: it would be failed for ever, so it is removed
    and comes anew."""
    if live is None or live["kind"] != "Job" or health.judge(live).state != "failed":
        return live
    api.delete(Reference.of(live), uid=live["metadata"]["uid"])
    until = time.monotonic() + GONE
    while (found := api.get(Reference.of(live))) is not None and time.monotonic() < until:
        if found["metadata"]["uid"] != live["metadata"]["uid"]:
            break
        time.sleep(0.1)
    return None


def check_objects(
    api: ApiClient, scope: Scope, things: Sequence[Object]
) -> dict[Reference, Object]:
    """The objects that are there already. Before anything is touched, it is known that the cluster
    has every kind and that no object of somebody else is in the way.

    Raises KindMissingError or UnmanagedObjectError.
    """
    _know_kinds(api, things)
    live: dict[Reference, Object] = {}
    for thing in things:
        found = api.get(Reference.of(thing))
        if found is None:
            continue
        live[Reference.of(thing)] = found
        if thing["kind"] in CLUSTER_WIDE_SHARED:
            continue
        if not applyset.is_managed(found, scope.stack, scope.environment):
            raise UnmanagedObjectError(
                f"{Reference.of(thing)} is in namespace {scope.namespace} already and is not of "
                f"{scope.stack}/{scope.environment}.",
                hint="Nothing was changed. Remove or rename it, or choose another namespace.",
            )
    return live


def apply_object(
    api: ApiClient, thing: Object, live: Object | None, tell: Tell = lambda _: None
) -> bool:
    """Apply one object; whether that changed anything."""
    try:
        after = api.apply(thing)
    except FieldConflictError as conflict:
        theirs = [f for o, fs in conflict.owners.items() if o in CONTROLLERS for f in fs]
        others = sorted(o for o in conflict.owners if o not in {*CONTROLLERS, FIELD_MANAGER})
        if others:
            what = ", ".join(f.lstrip(".") for o in others for f in conflict.owners[o])
            tell(
                f"{Reference.of(thing)}: {what} was changed by {', '.join(others)}; it is set back"
            )
        after = api.apply(
            without_fields(thing, theirs), force=bool(others) or FIELD_MANAGER in conflict.owners
        )
    return live is None or not _same(after, live)


def without_fields(thing: Object, fields: Iterable[str]) -> dict[str, Any]:
    """The object without some fields, named as the server names them: `.spec.replicas`. A field in
    a list, `.spec.ports[...]`, is left: the list is one word."""
    made: dict[str, Any] = copy.deepcopy(dict(thing))
    for name in fields:
        parts = name.lstrip(".").split(".")
        at: Any = made
        for part in parts[:-1]:
            at = at.get(part) if isinstance(at, dict) else None
        if isinstance(at, dict):
            at.pop(parts[-1], None)
    return made


def prune(
    api: ApiClient,
    scope: Scope,
    before: Iterable[Reference],
    wanted: Iterable[Reference],
    tell: Tell = lambda _: None,
) -> list[Reference]:
    """Delete what left the file, if its labels still say that it is ours; returns what went."""
    gone = []
    for reference in applyset.to_prune(before, wanted):
        try:
            found = api.get(reference)
        except KindMissingError:
            continue  # Its kind was uninstalled, and it with it.
        if found is None or not applyset.is_managed(found, scope.stack, scope.environment):
            continue
        if applyset.is_kept(found):
            continue
        if api.delete(reference, uid=found["metadata"]["uid"]):
            tell(f"removed {reference}")
            gone.append(reference)
    return gone


def dry_run(api: ApiClient, scope: Scope, things: Sequence[Object]) -> dict[Reference, str]:
    """What applying would do, as the server itself works it out, with nothing changed: `create`,
    `change`, `keep` or `remove` for each object.

    Raises as `run` does.
    """
    marked = [applyset.with_labels(t, scope.stack, scope.environment) for t in things]
    live = check_objects(api, scope, marked)
    told: dict[Reference, str] = {}
    namespace = Reference("v1", "Namespace", "", scope.namespace)
    for thing in marked:
        reference = Reference.of(thing)
        if reference not in live:
            told[reference] = "create"
            if api.get(namespace) is not None:
                api.apply(thing, dry_run=True)
            continue
        after = api.apply(thing, dry_run=True, force=True)
        told[reference] = "keep" if _same(after, live[reference]) else "change"
    for reference in applyset.to_prune(
        applyset.references(api.get(scope.applyset)), map(Reference.of, marked)
    ):
        told[reference] = "remove"
    return told


def _know_kinds(api: ApiClient, things: Sequence[Object]) -> None:
    brought = {
        (t["spec"]["group"], t["spec"]["names"]["kind"])
        for t in things
        if t["kind"] == "CustomResourceDefinition"
    }
    missing: dict[str, KindMissingError] = {}
    for version, kind in sorted({(str(t["apiVersion"]), str(t["kind"])) for t in things}):
        if (version.partition("/")[0], kind) in brought:
            continue
        try:
            api.kind(version, kind)
        except KindMissingError as error:
            missing[f"{kind} ({version})"] = error
    if missing:
        hints = dict.fromkeys(e.hint for e in missing.values() if e.hint)
        raise KindMissingError(
            f"The cluster does not know {', '.join(missing)}.",
            hint=" ".join(["Nothing was changed.", *hints]),
        )


def _accounts(wave: Iterable[Object], live: Mapping[Reference, Object]) -> list[Reference]:
    """The service account that each new namespace is given a moment after it is made. Pods that are
    asked for before are refused, and their controllers wait longer after each refusal."""
    made = [
        Reference.of(t).name
        for t in wave
        if t["kind"] == "Namespace" and Reference.of(t) not in live
    ]
    return [Reference("v1", "ServiceAccount", name, "default") for name in made]


def _write(api: ApiClient, scope: Scope, references: Iterable[Reference], commit: str) -> None:
    api.apply(
        applyset.config_map(scope.namespace, scope.stack, scope.environment, references, commit),
        force=True,
    )


def _same(one: Object, other: Object) -> bool:
    """Equal but for what the server writes down about the change itself."""

    def bare(thing: Object) -> dict[str, Any]:
        hidden = ("managedFields", "resourceVersion", "generation")
        metadata = {k: v for k, v in thing["metadata"].items() if k not in hidden}
        return {**thing, "metadata": metadata}

    return bare(one) == bare(other)
