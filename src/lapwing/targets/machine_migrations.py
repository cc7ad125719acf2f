"""Offline migrations on a machine: which one was applied, and an upgrade with a short outage.

The migration of a service is the job `<service>-migrate` (`stack.migrations`). A document has it in
the release whose migration was applied last, so the history shows which schema a database has:

    deploy                    the new release starts without traffic beside the old one. If it
                              needs no migration, it is deployed; otherwise it exits
    deploy --allow-downtime   in the second case, the environment is stopped and clients get the
                              maintenance page, the database is backed up, the job runs alone, and
                              the new release starts

Each step is a deployment like any other, so the agent completes or undoes it after a crash. After
an interruption between two steps the same command continues: what is stopped stays stopped, and a
job that succeeded does not run again.

`restore` could also give an old release a newer schema: the newest backup may have been made before
that release was deployed again.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import msgspec

from lapwing.agent.backup_manifest import Manifest
from lapwing.desired.history import HISTORY_LENGTH, Entry, history
from lapwing.desired.repository import DesiredRepository
from lapwing.errors import LapwingError, StateError, UsageError
from lapwing.plan import maintenance
from lapwing.plan.model import Document, Service
from lapwing.stack.migrations import database_of
from lapwing.targets import planned
from lapwing.targets.base import DeployRequest, DeployResult, EnvironmentRef, Reporter, Verb
from lapwing.targets.planned import PlannedChange

if TYPE_CHECKING:
    from lapwing.settings import Settings
    from lapwing.stack.load import LoadedStack

VARIABLE = "LAPWING_BACKUP"
"""The variable with the name of the backup. It makes each attempt another job, so it runs again."""


class Environment(Protocol):
    """An environment on this machine, as far as a migration uses it."""

    settings: Settings
    repository: DesiredRepository
    ref: EnvironmentRef
    reporter: Reporter

    def apply(
        self, verb: Verb, plan: PlannedChange, *, allow_downtime: bool = False
    ) -> DeployResult:
        """Check a change, commit it, and wait for its end."""
        ...

    def until_stopped(self, result: DeployResult) -> DeployResult:
        """Wait until all processes have ended."""
        ...


@dataclass(frozen=True, slots=True)
class Pending:
    """A planned change without its pending migrations, and these migrations, as `jobs` by name."""

    plan: PlannedChange
    jobs: Mapping[str, Service]

    @property
    def services(self) -> list[str]:
        """The services whose migration is pending."""
        return sorted(str(job.migrates) for job in self.jobs.values())


def pending(repository: DesiredRepository, plan: PlannedChange) -> Pending:
    """Separate the migrations that a change may need from the change.

    The change keeps the migrations that were applied last. Each new release may need its
    migration, even if it was applied before, because a backup may have been restored since. If a
    service was never deployed, its migration is part of the deployment.
    """
    document = plan.document
    services, jobs = dict(document.services), dict[str, Service]()
    running = plan.before.services if plan.before else {}
    migrations = {name: job for name, job in document.services.items() if job.migrates}
    applied = _applied(repository, document, migrations)
    for name, job in migrations.items():
        if name in applied:
            services[name] = applied[name]
        elif job.migrates in running:
            del services[name]
        old, new = running.get(str(job.migrates)), document.services.get(str(job.migrates))
        if services.get(name) is not job and new and (old is None or old.release != new.release):
            jobs[name] = job
    return Pending(
        replace(plan, document=msgspec.structs.replace(document, services=services)), jobs
    )


def _applied(
    repository: DesiredRepository, document: Document, jobs: Collection[str]
) -> dict[str, Service]:
    """Return each job as it last succeeded, also before `down`; without those that never did."""
    where, found = (document.stack, document.environment), dict[str, Service]()
    for entry in history(repository, *where, HISTORY_LENGTH) if jobs else ():
        missing = [name for name in jobs if name in entry.services and name not in found]
        if missing and entry.outcome == "succeeded":
            then = repository.read(*where, entry.commit)
            found |= {name: then.services[name] for name in missing} if then else {}
    return found


def check_backup(loaded: LoadedStack, waiting: Pending) -> None:
    """Check that the databases of pending migrations can be backed up. Raises UsageError."""
    from lapwing.agent import data_copies

    document = waiting.plan.document
    for service in waiting.services:
        database = database_of(loaded.stack, loaded.stack.services[service])
        reason = data_copies.reason_left_out(document.resources[database])
        if reason is not None:
            raise UsageError(
                f"Lapwing cannot back up {database} before the migration of {service}: {reason}.",
                hint="Add `--backup COMMAND` with a command that backs it up and prints the name "
                "of the backup as its last line. Nothing was changed.",
            )


def migrate(
    target: Environment,
    loaded: LoadedStack,
    request: DeployRequest,
    wanted: PlannedChange,
    waiting: Pending,
    failed: DeployResult,
) -> DeployResult:
    """Continue after a release could not be started (`failed`) without its pending migration.

    With `allow_downtime`, stop the environment, back up, migrate, and deploy `wanted`; without it,
    add a hint to `failed`. Raises LapwingError.
    """
    actor, names = wanted.document.deployment.actor, ", ".join(waiting.services)
    if not request.allow_downtime:
        failed.hint = (
            f"If the new release of {names} needs its offline migration, run `lapwing deploy -e "
            f"{target.ref.environment} --allow-downtime`: it stops the environment, backs up the "
            "data, migrates, and starts the new release."
        )
        return failed
    what = f"offline migration of {names}"
    target.reporter.say(f"{failed.reason} Migrating with downtime: clients get status 503.")
    stopped = target.until_stopped(target.apply("down", _stop(target, loaded, actor, what)))
    if stopped.outcome != "succeeded":
        return stopped
    try:
        started = target.apply("deploy", _alone(target, wanted.document, {}, what))
        if started.outcome != "succeeded":
            raise StateError(f"The databases were not started: {started.reason}.")
        name = _back_up(target, request, wanted)
    except (LapwingError, OSError):
        if wanted.before and wanted.before.services:
            target.reporter.say("No backup was made. Starting the previous deployment again.")
            target.apply("rollback", _again(target, wanted.before, what))
        raise
    jobs = {
        n: msgspec.structs.replace(job, env=job.env | {VARIABLE: name})
        for n, job in waiting.jobs.items()
    }
    result = target.apply("deploy", _alone(target, wanted.document, jobs, what))
    if result.outcome == "succeeded":
        head = target.repository.newest(target.ref.stack, target.ref.environment)
        document = msgspec.structs.replace(
            wanted.document, services=wanted.document.services | jobs
        )
        change = replace(wanted, document=document, expected=head)
        result = target.apply(request.verb, change, allow_downtime=True)
    if result.outcome in ("failed", "rolled-back"):
        result.hint = (
            f"The environment is stopped, because the migration of {names} may have changed the "
            f"schema. Correct the error and run `lapwing deploy -e {target.ref.environment} "
            f"--allow-downtime` again, or restore the backup {name}, check out the previous "
            "revision, and run the same command."
        )
    return result


def check_restore(target: Environment, backup: Manifest, database: str) -> None:
    """Check that a backup has no newer schema than the deployed release. Raises UsageError.

    If the deployment of the backup cannot be read, report that this was not checked.
    """
    repository, ref = target.repository, target.ref
    where = (ref.stack, ref.environment)
    entries = history(repository, *where, HISTORY_LENGTH)
    deployed = next((entry for entry in entries if entry.services), None)
    since = list(itertools.dropwhile(lambda entry: entry.commit != backup.commit, entries))
    if deployed is None:
        return
    then = repository.documents(*where, [backup.commit])[0] if since and backup.commit else None
    if not isinstance(then, Document):
        present = repository.read(*where, deployed.commit)
        if present is not None and _migrations_of(present, database):
            target.reporter.say(
                f"The schema of {database} of backup {backup.id} was not compared with that of the "
                "deployed release: the history does not have the deployment of the backup."
            )
        return
    for name, job in _migrations_of(then, database).items():
        service = str(job.migrates)
        now = _release(deployed, service)
        own = _first_migration(entries, service, name, now) if now else None
        order = [found for e in reversed(entries) if (found := _release(e, name))]
        if own is None or order.index(job.release) <= order.index(own):
            continue
        if not _is_restored(target, since, name, job.release, database):
            raise UsageError(
                f"{database} of backup {backup.id} was migrated by release {job.release}; the "
                f"deployed release {now} must not run with a newer schema. Nothing was changed.",
                hint=f"Restore an older backup (`lapwing backup list -e {ref.environment}`). Or "
                f"check out revision {job.revision}, run `lapwing deploy -e {ref.environment} "
                "--allow-downtime`, and restore this backup again.",
            )


def _first_migration(entries: list[Entry], service: str, job: str, release: str) -> str | None:
    """Return the migration with which a release of a service was first deployed."""
    for entry in reversed(entries):
        if entry.outcome == "succeeded" and _release(entry, service) == release:
            return _release(entry, job)
    return None


def _is_restored(
    target: Environment, entries: list[Entry], job: str, release: str, database: str
) -> bool:
    """Return whether older data was restored since a migration, the last one in these entries.

    Until the next migration the history does not show which schema it has.
    """
    same = itertools.takewhile(lambda entry: _release(entry, job) in (None, release), entries)
    commits = [entry.commit for entry in same if entry.kind == "restore"]
    found = target.repository.documents(target.ref.stack, target.ref.environment, commits)
    return any(isinstance(d, Document) and d.deployment.restored == database for d in found)


def _migrations_of(document: Document, database: str) -> dict[str, Service]:
    """Return the jobs that migrate a database, by name."""
    jobs = {name: job for name, job in document.services.items() if job.migrates}
    return {name: job for name, job in jobs.items() if _database_of(document, job) == database}


def _database_of(document: Document, job: Service) -> str:
    """Return the resource that a job migrates, as `stack.migrations.database_of` does."""
    kinds = {name: document.resources[name].kind for name in job.needs}
    return next((n for n, kind in kinds.items() if kind != "redis"), next(iter(kinds)))


def _release(entry: Entry, service: str) -> str | None:
    found = entry.services.get(service)
    return found.release if found else None


def _back_up(target: Environment, request: DeployRequest, wanted: PlannedChange) -> str:
    """Back up the data before a migration; return the name of the backup. Raises LapwingError."""
    with target.reporter.working("backing up"):
        if request.backup:
            from lapwing.kubernetes.upgrade.backup import BackupCommands

            commands = BackupCommands(request.backup, "", target.settings.environ)
            name = commands.back_up(lambda: None)
        else:
            from lapwing.agent.backups import Backups

            backups = Backups(target.settings, wanted.document)
            name = backups.create(wanted.expected, target.reporter.say).id
    target.reporter.say(f"Backed up to {name}.")
    return name


def _stop(target: Environment, loaded: LoadedStack, actor: str, what: str) -> PlannedChange:
    """Plan that services and databases are stopped and clients get the maintenance page."""
    page = maintenance.begin(loaded, actor)
    return planned.stop(target.repository, target.ref, actor, "down", what, page)


def _alone(
    target: Environment, document: Document, jobs: Mapping[str, Service], what: str
) -> PlannedChange:
    """Plan that only databases and jobs run."""
    head = planned.present(target.repository, target.ref)
    deployment = msgspec.structs.replace(document.deployment, hold=False, reason=what)
    alone = msgspec.structs.replace(
        document,
        services=dict(jobs),
        maintenance=head.document.maintenance,
        deployment=deployment,
    )
    return PlannedChange(alone, head.expected, head.document)


def _again(target: Environment, document: Document, what: str) -> PlannedChange:
    head = planned.present(target.repository, target.ref)
    actor = document.deployment.actor
    restored = planned.as_deployment(document, "rollback", actor, reason=f"{what} was canceled")
    return PlannedChange(restored, head.expected, head.document)
