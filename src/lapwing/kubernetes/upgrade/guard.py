"""Run or refuse the upgrades that a deployment needs: offline migrations.

    for each service with an offline migration:
        it does not run, and another version migrated its database -> UpgradeError without consent
        it does not run yet, or its image is the same -> nothing to do
        the new version starts without traffic and is healthy -> nothing to do
        it reports migrations that it does not know -> UpgradeError: it is an old version
        it reports a missing migration -> an upgrade with an outage, or DowntimeError

Call it once the Secrets of the new version exist and before anything else is applied: applying runs
the migration. Afterwards, applying finds the new version running already, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from lapwing.errors import LapwingError
from lapwing.kubernetes.applyset import Scope
from lapwing.kubernetes.client import ApiClient
from lapwing.kubernetes.objects import Object, Reference, annotation, image_of, pod_spec
from lapwing.kubernetes.record import LEASE_S
from lapwing.kubernetes.status import list_workloads
from lapwing.kubernetes.upgrade.backup import BackupCommands
from lapwing.kubernetes.upgrade.driver import UpgradeError, upgrade
from lapwing.kubernetes.upgrade.plan import UpgradePlan, plans
from lapwing.kubernetes.upgrade.probe import probe
from lapwing.kubernetes.upgrade.record import list_upgrades, records, reference
from lapwing.kubernetes.upgrade.states import Event, Permission, State
from lapwing.kubernetes.upgrade.steps import UpgradeSteps
from lapwing.kubernetes.wait import ResourceWaiter
from lapwing.plan.names import MIGRATED_BY, release_of

PROBE_DEADLINE_S = 120.0
"""Seconds for the start of a service on restored data."""


@dataclass(frozen=True, slots=True)
class UpgradeOptions:
    """What the user allows.

    `holder` names this command to others; `lease` is the time in seconds after which a command
    without a heartbeat is considered dead.
    """

    allow_downtime: bool = False
    commands: BackupCommands | None = None
    holder: str = "another command"
    lease: float = LEASE_S


NO_DOWNTIME = UpgradeOptions()
"""An upgrade with an outage is refused."""


def run_upgrades(
    api: ApiClient,
    scope: Scope,
    things: Iterable[Object],
    options: UpgradeOptions,
    report: Callable[[str], None] = lambda _: None,
) -> list[str]:
    """Run or refuse the upgrades that applying these objects needs; returns the upgraded services.

    Raises DowntimeError (nothing was changed), UpgradeError, UpgradeLockedError or ClusterError.
    """
    every = list(things)
    check_in_progress(api, scope, every)
    if not options.allow_downtime:
        for plan in plans(every):
            _check_last_migration(api, plan)
    return [
        plan.service
        for plan in plans(every)
        if _is_due(api, scope, plan) and _run(api, scope, plan, options, report)
    ]


def check_in_progress(api: ApiClient, scope: Scope, things: Iterable[Object]) -> None:
    """Check that applying these objects continues every upgrade in progress.

    Else it would start an old version on an unknown schema. Raises UpgradeError.
    """
    continued = {plan.service for plan in plans(things)}
    for service in list_upgrades(api, scope):
        if service not in continued:
            raise UpgradeError(
                f"An upgrade of {service} is in progress. Nothing was changed.",
                hint=f"`lapwing deploy -e {scope.environment}` continues it, or rolls it back.",
            )


def outdated(
    api: ApiClient,
    scope: Scope,
    database: str,
    waiter: ResourceWaiter,
    report: Callable[[str], None],
) -> str | None:
    """Return a deployed release that reports unknown migrations in a database, if any.

    Each service whose offline migration changes the database starts once, without traffic. One that
    has reported nothing after PROBE_DEADLINE_S counts as not outdated: services are stopped
    meanwhile.
    """
    for plan in plans(list_workloads(api, scope)):
        if not _migrates(plan, f"{scope.stack}-{database}"):
            continue
        if probe(api, plan, waiter, report, PROBE_DEADLINE_S).event is Event.OUTDATED:
            return release_of(plan.image)
    return None


def _migrates(plan: UpgradePlan, host: str) -> bool:
    """Return whether a migration waits for the database with this Service.

    It waits for the database that it changes, if that is in the cluster (see render/kubernetes).
    """
    containers = pod_spec(plan.migration).get("initContainers") or ()
    return {"name": "HOST", "value": host} in (e for c in containers for e in c.get("env") or ())


def record_migrations(api: ApiClient, things: Iterable[Object]) -> None:
    """Record in the cluster which image migrated each database last.

    The record is an annotation of the volume, which exists as long as the data. After `down`, it is
    the only record of the schema that another machine can read.
    """
    for plan in plans(things):
        volume = _volume(api, plan)
        if volume is not None and annotation(volume, MIGRATED_BY) != plan.image:
            change = {"metadata": {"annotations": {MIGRATED_BY: plan.image}}}
            api.patch(Reference.of(volume), change)


def _check_last_migration(api: ApiClient, plan: UpgradePlan) -> None:
    """Check the version of a service that is not deployed, so no probe can run.

    Raises UpgradeError.
    """
    if api.get(Reference.of(plan.own)) is not None:
        return
    volume = _volume(api, plan)
    last = annotation(volume, MIGRATED_BY) if volume is not None else ""
    if last and last != plan.image:
        release = release_of(plan.image)
        raise UpgradeError(
            f"The database of {plan.service} was migrated by {release_of(last)}, and an old "
            "version must not run with a newer schema. Nothing was changed.",
            hint=f"Add `--image {plan.service}={last}`. If {release} is newer, or the backup from "
            "before the migration is restored, add `--allow-downtime`.",
        )


def _volume(api: ApiClient, plan: UpgradePlan) -> Object | None:
    """Return the volume claim of the database of a plan."""
    if plan.database is None:
        return None
    name = f"data-{plan.database['metadata']['name']}-0"
    return api.get(Reference("v1", "PersistentVolumeClaim", plan.namespace, name))


def is_upgrade_needed(api: ApiClient, scope: Scope, things: Iterable[Object]) -> bool:
    """Return whether `run_upgrades` would start anything."""
    return any(_is_due(api, scope, p) for p in plans(things))


def _is_due(api: ApiClient, scope: Scope, plan: UpgradePlan) -> bool:
    if api.get(reference(scope, plan.service)) is not None:
        return True
    live = api.get(Reference.of(plan.own))
    return live is not None and image_of(live) != plan.image


def _run(
    api: ApiClient,
    scope: Scope,
    plan: UpgradePlan,
    options: UpgradeOptions,
    report: Callable[[str], None],
) -> bool:
    record = records(api, scope, plan.service, options.holder, options.lease)
    record.acquire()
    permission = Permission(
        downtime=options.allow_downtime,
        backup=options.commands is not None or plan.database is not None,
    )
    try:
        steps = UpgradeSteps(api, scope, plan, record, options.commands, report)
        if record.load() is None:
            steps.remember()
        release = f"{plan.service} {release_of(image_of(plan.own))}"
        return upgrade(release, scope.environment, permission, steps, record) is State.SUCCEEDED
    except (LapwingError, KeyboardInterrupt):
        record.release()
        raise
