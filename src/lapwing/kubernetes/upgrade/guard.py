"""The guard before a deployment: what may not be done while a service runs is done or refused.

    for each service with an offline migration:
        nothing of it runs yet, or the image is the same -> nothing to do
        the new version starts without traffic and is healthy -> nothing to do
        it says that a migration is missing -> an upgrade with an outage, or DowntimeError

Call it when the Secrets of the new version are there and before anything else is applied: applying
runs the migration. After it, applying finds the new version there already, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from lapwing.errors import LapwingError
from lapwing.kubernetes import status
from lapwing.kubernetes.applyset import Scope
from lapwing.kubernetes.client import ApiClient
from lapwing.kubernetes.objects import Object, Reference
from lapwing.kubernetes.upgrade import driver
from lapwing.kubernetes.upgrade.commands import Commands
from lapwing.kubernetes.upgrade.plan import Plan, image_of, plans
from lapwing.kubernetes.upgrade.record import LEASE, Records, records_of, reference
from lapwing.kubernetes.upgrade.states import Permission, State
from lapwing.kubernetes.upgrade.steps import UpgradeSteps


@dataclass(frozen=True, slots=True)
class UpgradeOptions:
    """What the person allows. `holder` names this command to others, `lease` is the time in seconds
    after which one that says nothing is taken for dead."""

    allow_downtime: bool = False
    commands: Commands | None = None
    holder: str = "another command"
    lease: float = LEASE


NO_DOWNTIME = UpgradeOptions()
"""Nothing is allowed: an upgrade with an outage is refused."""


def run_upgrades(
    api: ApiClient,
    scope: Scope,
    things: Iterable[Object],
    options: UpgradeOptions,
    tell: Callable[[str], None] = lambda _: None,
) -> list[str]:
    """Do or refuse the upgrades that applying these objects would need; returns the services that
    were upgraded.

    Raises DowntimeError (nothing was touched), UpgradeError, UpgradeLockedError or ClusterError.
    """
    found = plans(things)
    _refuse_others(api, scope, {p.service for p in found})
    return [p.service for p in found if _one(api, scope, p, options, tell)]


def is_upgrade_needed(api: ApiClient, scope: Scope, things: Iterable[Object]) -> bool:
    """Whether `guard` would start anything."""
    return any(_is_due(api, scope, p) for p in plans(things))


def _is_due(api: ApiClient, scope: Scope, plan: Plan) -> bool:
    if api.get(reference(scope, plan.service)) is not None:
        return True
    live = api.get(Reference.of(plan.own))
    return live is not None and image_of(live) != plan.image


def _refuse_others(api: ApiClient, scope: Scope, services: set[str]) -> None:
    """Raises UpgradeError if another service's upgrade is half done: what is to be applied would
    start an old version on whatever schema there is."""
    for found in records_of(api, scope):
        if found not in services:
            raise driver.UpgradeError(
                f"An upgrade of {found} is under way.",
                hint="`lapwing deploy` goes on with it, or goes back. Nothing was changed.",
            )


def _one(
    api: ApiClient, scope: Scope, plan: Plan, options: UpgradeOptions, tell: Callable[[str], None]
) -> bool:
    if not _is_due(api, scope, plan):
        return False
    records = Records(api, scope, plan.service, options.holder, options.lease)
    records.take()
    try:
        return _lead(UpgradeSteps(api, scope, plan, records, options.commands, tell), plan, records,
                     options)  # fmt: skip
    except (LapwingError, KeyboardInterrupt):
        records.give_back()
        raise


def _lead(cluster: UpgradeSteps, plan: Plan, records: Records, options: UpgradeOptions) -> bool:
    if records.load() is None:
        cluster.remember()
    release = f"{plan.service} {status.release_of(plan.own)}"
    permission = Permission(
        downtime=options.allow_downtime,
        backup=options.commands is not None or plan.database is not None,
    )
    return driver.upgrade(release, permission, cluster, records) is State.SUCCEEDED
