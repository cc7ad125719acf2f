"""Guards: what has to hold before a verb changes an environment, for every verb of every target.

    check_folder     the environment was not deployed by a stack of the same name elsewhere
    check            the planned change: pauses, offline migrations      -> CheckedChange
    commit           only takes a CheckedChange; refuses a conflict
    check_restore    no data of the environment is being restored
    check_rollouts   an abort in the cluster without a commit: offline migrations
    confirm_context  a cluster that is not local is changed after a question only
    exclusive        one command at a time changes an environment on a cluster
    Applier.examine  no object of the change is unmanaged, and the cluster has every kind

A target plans a change, has it checked, and commits the result. Because `commit` accepts nothing
else than what `check` returned, no target can leave a guard out.

An older image must not run on a newer schema. On a machine, the job of the migration in the history
shows which release migrated last. On a cluster, which services have an offline migration, and which
image each had last, is read from the commits, so the rule needs no stack file. A change of such an
image is:

    already running     approved for every verb: the image runs on the present schema
    deploy, up          approved with `--allow-downtime`, or if the target itself tests the new
                        version of a running service without traffic before anything changes
    rollback, abort     refused
    promote, down       never: no other image is started

Services that use the same database and the same image repository must be deployed in one version.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from lapwing.desired.history import HISTORY_LENGTH, history
from lapwing.desired.repository import DesiredRepository
from lapwing.errors import ContextError, LapwingError, StateError, UsageError
from lapwing.plan.names import OFFLINE_MIGRATION, STOPS, release_of
from lapwing.stack.image import parse as parse_image
from lapwing.stack.load import FILE, StackFile
from lapwing.targets.base import ClusterOptions, EnvironmentRef, Reporter, Verb
from lapwing.targets.planned import PlannedChange

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from lapwing.kubernetes.applyset import Scope
    from lapwing.kubernetes.client import ApiClient
    from lapwing.plan.model import Document
    from lapwing.settings import Settings


@dataclass(frozen=True, slots=True)
class Rules:
    """What the guards have to know of an environment and of what a user allows.

    `can_hold` is whether a deployment can be paused before the switch. `tests_migration` is
    whether the target starts a new version without traffic first and refuses a pending migration.
    `running` returns the images of the ready replicas of a service.
    """

    can_hold: bool = True
    allow_downtime: bool = False
    tests_migration: bool = False
    running: Callable[[str], Collection[str]] = lambda _: ()


@dataclass(frozen=True, slots=True)
class CheckedChange:
    """A planned change that every guard has approved. Only `check` makes one."""

    plan: PlannedChange


@dataclass(frozen=True, slots=True)
class _ImageChange:
    """The change of the image of a service with an offline migration.

    `old` and `new` are releases; `is_older` is whether `new` was first deployed before `old`, and
    `runs` whether the service is part of the present deployment.
    """

    service: str
    old: str
    new: str
    image: str
    is_older: bool
    runs: bool


def check(
    repository: DesiredRepository, plan: PlannedChange, verb: Verb, rules: Rules = Rules()
) -> CheckedChange:
    """Approve a planned change. Raises UsageError: nothing was changed."""
    environment = plan.document.environment
    if plan.document.deployment.hold and not rules.can_hold:
        raise UsageError(
            f"A deployment in {environment!r} cannot be paused: without Argo Rollouts, a "
            "Deployment is updated pod by pod.",
            hint="Install Argo Rollouts in the cluster and add `rollouts: true` to the "
            "environment. Nothing was changed.",
        )
    if plan.document.target == "machine":
        _check_schema(repository, plan, verb, rules)
    if verb in ("deploy", "up"):
        _check_same_version(plan)
    for change in _offline_changes(repository, plan):
        if change.image not in rules.running(change.service):
            _check_migration(change, verb, environment, rules)
    return CheckedChange(plan)


def check_restore(settings: Settings, ref: EnvironmentRef) -> None:
    """Refuse to change an environment on this machine during a restore. Raises StateError.

    A change that was planned before the restore stopped the environment conflicts with it later.
    """
    from lapwing.agent import restores

    found = restores.in_progress(settings.data / ref.stack / ref.environment)
    if found is not None:
        raise StateError(
            f"A restore of {found.name} is in progress in {ref}.",
            hint=f"Wait until `lapwing status -e {ref.environment}` shows that it has ended, then "
            "run the command again. Nothing was changed.",
        )


def commit(
    repository: DesiredRepository, checked: CheckedChange, folder: Path | None = None
) -> str:
    """Commit an approved change, with the folder of its stack file if that is on this machine.

    Raises ConflictError if another commit came first.
    """
    plan = checked.plan
    document = plan.document
    if folder is not None:
        document = msgspec.structs.replace(document, folder=str(folder.resolve()))
    return repository.commit(document, expected=plan.expected, files=plan.files)


def check_folder(folder: Path, before: Document | None) -> None:
    """Refuse to change an environment that a stack of the same name in another folder deployed.

    A folder that was moved or removed, or whose stack has another name now, has no claim.
    """
    if before is None or not before.services or not before.folder:
        return
    other = Path(before.folder)
    if other == folder.resolve() or _stack_name(other) != before.stack:
        return
    where = f"{before.stack}/{before.environment}"
    down = f"lapwing -C {shlex.quote(str(other))} down -e {before.environment}"
    raise StateError(
        f"{where} was deployed from {other}; {folder} contains another stack with the same name.",
        hint="Change `stack: NAME` in one of the two stack files. To deploy from this folder "
        f"instead, run `{down}` first, or remove the other stack file. Nothing was changed.",
    )


def _stack_name(folder: Path) -> str | None:
    try:
        return StackFile(folder / FILE).stack
    except LapwingError:
        return None


def check_rollouts(api: ApiClient, scope: Scope) -> None:
    """Check that an abort of the Rollouts in a cluster starts no older image on a newer schema.

    It needs no commit: the annotation of the migration's Job names the service. Raises UsageError.
    """
    from lapwing.kubernetes import pods
    from lapwing.kubernetes.objects import annotation, image_of, label
    from lapwing.plan.names import NAME

    jobs = api.list("batch/v1", "Job", scope.namespace, scope.selector)
    offline = {annotation(job, OFFLINE_MIGRATION) for job in jobs}
    sets = api.list("apps/v1", "ReplicaSet", scope.namespace)
    for rollout in api.list(*pods.ROLLOUT, scope.namespace, scope.selector, missing_kind_ok=True):
        service, stable = label(rollout, NAME), pods.active_replica_set(rollout, sets)
        if service not in offline or stable is None or image_of(stable) == image_of(rollout):
            continue
        if image_of(stable) not in pods.running_images(api, scope, service):
            raise _newer_schema(
                service,
                release_of(image_of(rollout)),
                release_of(image_of(stable)),
                scope.environment,
                image_of(stable),
            )


def _check_schema(
    repository: DesiredRepository, plan: PlannedChange, verb: Verb, rules: Rules
) -> None:
    """Refuse a release that ran last before a migration of its database, on a machine.

    The history has the job of each migration, with its release. A failed one counts, because it
    may have changed the schema. Raises UsageError.
    """
    wanted, before = plan.document.services, plan.before.services if plan.before else {}
    jobs = {n: str(s.migrates) for n, s in [*before.items(), *wanted.items()] if s.migrates}
    if not jobs or (verb in ("deploy", "up") and rules.allow_downtime):
        return
    where = (plan.document.stack, plan.document.environment)
    entries = history(repository, *where, HISTORY_LENGTH)
    for job, service in jobs.items():
        new, migrated = wanted.get(service), list[str]()
        for entry in entries if new is not None else ():
            found = {name: each.release for name, each in entry.services.items()}
            if new and found.get(service) == new.release and entry.outcome == "succeeded":
                migrated = [release for release in migrated if release != found.get(job)]
                break
            migrated += [found[job]] if job in found else []
        else:  # A new release is tested without traffic first.
            continue
        if new and migrated:
            raise UsageError(
                f"The database of {service} was migrated by release {migrated[0]}, and "
                f"{new.release} must not run with a newer schema.",
                hint="Restore the backup from before the migration (`lapwing backup list -e "
                f"{where[1]}`), then run `lapwing deploy -e {where[1]} --allow-downtime` on the "
                "revision to return to. Nothing was changed.",
            )


def _check_migration(change: _ImageChange, verb: Verb, environment: str, rules: Rules) -> None:
    is_deployment = verb in ("deploy", "up")
    if is_deployment and rules.allow_downtime:
        return
    if change.is_older or not is_deployment:
        raise _newer_schema(change.service, change.old, change.new, environment, change.image)
    if rules.tests_migration and change.runs:
        return
    raise UsageError(
        f"{change.service} {change.old} -> {change.new} may migrate its database, and its "
        "migrations are offline: no replica may be connected during the migration.",
        hint="Back up the database, scale the service to zero, then run `lapwing deploy -e "
        f"{environment} --allow-downtime`. Nothing was committed.",
    )


def _newer_schema(service: str, old: str, new: str, environment: str, image: str) -> UsageError:
    return UsageError(
        f"{service} {old} may have migrated its database, and {new} must not run with a newer "
        "schema.",
        hint="Restore the backup from before the upgrade, then run `lapwing deploy -e "
        f"{environment} --image {service}={image} --allow-downtime`. Nothing was changed.",
    )


def _offline_changes(repository: DesiredRepository, plan: PlannedChange) -> Iterator[_ImageChange]:
    """Yield the image changes of services with an offline migration.

    Each is compared with its last deployment, also after `down`: its database stays.
    """
    if not plan.files or plan.expected is None:
        return
    where = (plan.document.stack, plan.document.environment)
    entries = [e for e in history(repository, *where, HISTORY_LENGTH) if e.services]
    recorded = repository.manifests(*where, entries[0].commit) if entries else {}
    for name in sorted({**_offline_services(plan.files), **_offline_services(recorded)}):
        new = plan.document.services.get(name)
        deployed = [e for e in entries if name in e.services]
        before = repository.read(*where, deployed[0].commit) if deployed else None
        if new is None or before is None or before.services[name].image == new.image:
            continue
        old = before.services[name].release
        releases = [e.services[name].release for e in reversed(deployed)]
        is_older = new.release in releases and releases.index(new.release) < releases.index(old)
        runs = plan.before is not None and name in plan.before.services
        yield _ImageChange(name, old, new.release, str(new.image), is_older, runs)


def _check_same_version(plan: PlannedChange) -> None:
    """Check that no service keeps an old version of the image that migrates its database."""
    services = plan.document.services
    for name, users in _offline_services(plan.files or {}).items():
        new = services[name].image or "" if name in services else ""
        for user in sorted(users & services.keys()):
            old = services[user].image or ""
            if old != new and old and new and _repository(old) == _repository(new):
                raise UsageError(
                    f"{user} would run {release_of(old)} with the schema of {name} "
                    f"{release_of(new)}: both use the same database.",
                    hint=f"Deploy both in one version: add `--image {user}={new}`. "
                    "Nothing was changed.",
                )


def _repository(reference: str) -> str:
    return parse_image(reference).name


def _offline_services(files: Mapping[str, bytes]) -> dict[str, frozenset[str]]:
    """Return the services with an offline migration, and those that use the same database.

    They are read from the Jobs of the manifests.
    """
    marked = {n: data for n, data in files.items() if OFFLINE_MIGRATION.encode() in data}
    if not marked:
        return {}
    from lapwing.kubernetes.objects import annotation
    from lapwing.kubernetes.waves import read_manifests

    return {
        service: frozenset(annotation(thing, STOPS).split())
        for _, thing in read_manifests(marked)
        if (service := annotation(thing, OFFLINE_MIGRATION))
    }


def confirm_context(
    api: ApiClient, verb: str, scope: Scope, options: ClusterOptions, reporter: Reporter
) -> None:
    """Ask before a cluster is changed that is not local. Raises ContextError without a yes."""
    access = api.access
    if options.yes or access.local:
        return
    question = f"Run {verb} in {scope.namespace} on {access.context} ({access.server})?"
    if not reporter.confirm(question):
        raise ContextError(
            f"Context {access.context!r} is not a local cluster; nothing was changed.",
            hint="Add `--yes` to change it, or name another context with `--context NAME`.",
        )


def confirm_removal(question: str, options: ClusterOptions, reporter: Reporter) -> None:
    """Ask before data is removed from any cluster. Raises UsageError without a yes."""
    if not options.yes and not reporter.confirm(question):
        raise UsageError("Nothing was removed.", hint="Add `--yes` to remove it.")


def exclusive(folder: Path, ref: EnvironmentRef) -> AbstractContextManager[None]:
    """Hold the lock of an environment on a cluster. Raises ConflictError if it is held."""
    from lapwing.kubernetes import local_state

    return local_state.environment_lock(folder, str(ref))
