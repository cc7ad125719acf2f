"""The target `machine`: every verb is a commit, which the agent of this machine carries out.

From the commit on the deployment belongs to the agent, so Ctrl-C only stops waiting for it.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import msgspec
from msgspec import UNSET, UnsetType

from lapwing.desired.history import Entry, history, last_failure
from lapwing.desired.history import outcome as outcome_of
from lapwing.desired.repository import DesiredRepository
from lapwing.desired.secrets import SecretStore
from lapwing.errors import AgentError, ConflictError, LapwingError, StateError, UsageError
from lapwing.observed import agent as agent_record
from lapwing.observed import pull, status, usage
from lapwing.observed.status import Event, Follower, Status
from lapwing.plan import maintenance
from lapwing.plan.model import Maintenance
from lapwing.settings import Settings
from lapwing.stack.load import StackFile
from lapwing.system import interrupts
from lapwing.targets import guards, local_agent, planned
from lapwing.targets.base import (
    DeployRequest,
    DeployResult,
    DownRequest,
    EnvironmentRef,
    Outcome,
    Reporter,
    RollbackRequest,
    Rollout,
    Silent,
    StatusReport,
    Verb,
    actor_name,
    never_deployed,
    services_of,
)
from lapwing.targets.machine_status import correct
from lapwing.targets.planned import PlannedChange

if TYPE_CHECKING:
    from lapwing.agent.backups import Backups

ATTEMPTS = 5
"""How often a deployment is planned again when another one is committed first."""
STEPS = {
    "resources": "starting resources",
    "jobs": "running jobs",
    "starting": "starting replicas",
    "testing": "running smoke tests",
    "switching": "switching traffic",
    "analysing": "analysing live traffic",
    "afterwards": "running jobs after the switch",
    "undoing": "rolling back",
}
WAITING = {"down": "stopping", "maintenance": "updating the routes:"}
DOWN_STEPS = {"switching": "stopping traffic and replicas", "undoing": "rolling back"}


class MachineTarget:
    """An environment on this machine."""

    name: Literal["machine"] = "machine"

    def __init__(
        self,
        file: StackFile,
        environment: str,
        settings: Settings,
        reporter: Reporter | None = None,
    ) -> None:
        self.file = file
        self.ref = EnvironmentRef(file.stack, environment)
        self.settings = settings
        self.reporter = reporter or Silent()
        self.repository = DesiredRepository(settings.desired)

    def deploy(self, request: DeployRequest) -> DeployResult:
        """Build, commit, and wait for the agent."""
        from lapwing.targets import (
            branch_environments,
            bundles,
            containers,
            machine_migrations,
            sources,
        )

        if request.images:
            raise UsageError(
                "--image is for clusters; a machine runs what is built from source.",
                hint="Run the command without `--image`.",
            )
        loaded = self.file.load(self.ref.environment)
        self._check_folder()
        sources.wanted_services(loaded, request.services)  # A wrong name starts nothing.
        branch_environments.check_limits(self.settings, loaded)
        if not request.dry_run:
            local_agent.begin(self.settings)  # It starts during the build.
        for attempt in range(1, ATTEMPTS + 1):
            with self.reporter.working("building"):
                plan = bundles.plan(
                    loaded,
                    self.settings,
                    services=request.services,
                    hold=request.hold,
                    actor=self._actor,
                    progress=self.reporter.progress,
                    preparation=containers.preparation(
                        loaded, self.settings, self.reporter.progress
                    ),
                )
            if plan.changes and attempt == 1:
                for remark in sources.remarks(
                    loaded, self.settings, request.services, plan.document
                ):
                    self.reporter.say(remark)
            waiting = machine_migrations.pending(self.repository, plan)
            rules = guards.Rules(allow_downtime=request.allow_downtime)
            checked = guards.check(self.repository, waiting.plan, request.verb, rules)
            if request.dry_run:
                return self._result(request.verb, "dry-run", waiting.plan)
            if waiting.jobs and request.allow_downtime and not request.backup:
                machine_migrations.check_backup(loaded, waiting)
            local_agent.ensure(self.settings, self.reporter.progress)
            try:
                if waiting.plan.changes:
                    result = self._carry_out(request.verb, checked)
                else:
                    result = self._unchanged(request.verb, waiting.plan)
            except ConflictError:
                if attempt == ATTEMPTS:
                    raise
                continue
            if waiting.jobs and result.outcome == "failed":
                return machine_migrations.migrate(self, loaded, request, plan, waiting, result)
            return result
        raise AssertionError("the last attempt returns or raises")

    def promote(self) -> DeployResult:
        """Commit that the paused deployment continues, and wait."""
        plan = planned.promote(self.repository, self.read_status(), self.ref, self._actor)
        return self.apply("promote", plan)

    def abort(self) -> DeployResult:
        """Commit what ran before the deployment in progress, and wait."""
        plan = planned.abort(self.repository, self.read_status(), self.ref, self._actor)
        return self.apply("abort", plan)

    def rollback(self, request: RollbackRequest) -> DeployResult:
        """Commit an earlier deployment, and wait."""
        plan = planned.rollback(
            self.repository,
            self.ref,
            self._actor,
            services=request.services,
            release=request.release,
        )
        return self.apply("rollback", plan)

    def stop_for_restore(self, what: str, head: str | None) -> DeployResult:
        """Commit that nothing runs while data is restored, and wait until all processes have ended.

        Clients get the maintenance page. Raises ConflictError if `head` is not the newest commit.
        """
        page = maintenance.default(self._actor)
        with suppress(LapwingError):  # Data can be restored without a valid stack file.
            loaded = self.file.load(self.ref.environment, folders=False)
            page = maintenance.begin(loaded, self._actor)
        plan = planned.stop(self.repository, self.ref, self._actor, "restore", what, page)
        return self.until_stopped(self.apply("restore", replace(plan, expected=head)))

    def start_after_restore(self, what: str, commit: str, restored: str | None) -> DeployResult:
        """Commit the deployment that `stop_for_restore` stopped, and wait.

        `restored` is the part whose data was replaced, if it was. A deployment that was committed
        meanwhile, without this machine's commands, is kept.
        """
        plan = planned.start_after_restore(
            self.repository, self.ref, self._actor, what, commit, restored
        )
        if plan.before and plan.before.services:
            return self.unchanged("another deployment was committed during the restore")
        return self.apply("restore", plan)

    def unchanged(self, reason: str) -> DeployResult:
        """Return the result of a restore that committed nothing."""
        plan = planned.present(self.repository, self.ref)
        return self._result("restore", "unchanged", plan, commit=plan.expected, reason=reason)

    def down(self, request: DownRequest) -> DeployResult:
        """Commit that nothing runs, and wait until all processes have ended."""
        if request.cluster or request.volumes:
            option = "--cluster" if request.cluster else "--volumes"
            raise UsageError(
                f"{option} is not available for {self.ref}, which is on a machine.",
                hint=f"Run `lapwing down -e {self.ref.environment}`.",
            )
        guards.check_restore(self.settings, self.ref)
        if (earlier := self.earlier_down()) is not None:
            return self.until_stopped(earlier)
        plan = planned.present(self.repository, self.ref)
        if not (plan.document.services or plan.document.resources):
            reason = f"{self.ref} is already stopped"
            return self._result("down", "unchanged", plan, commit=plan.expected, reason=reason)
        plan = planned.down(self.repository, self.ref, self._actor)
        return self.until_stopped(self.apply("down", plan))

    def until_stopped(self, result: DeployResult) -> DeployResult:
        """Wait until all processes have ended after a deployment without services."""
        if result.outcome != "succeeded":
            return result
        try:
            with (
                interrupts.allowed(),
                self.reporter.working("waiting for open connections to end"),
            ):
                local_agent.wait_until_stopped(
                    self.settings, self._folder, self.reporter.progress, supervise=True
                )
        except KeyboardInterrupt:
            return msgspec.structs.replace(result, outcome="detached")
        if (found := self.read_status()) is not None and found.problem is not None:
            self.reporter.say(found.problem)
        return result

    def maintenance(self, *, on: bool, message: str | None = None) -> DeployResult:
        """Begin or end maintenance, and wait until clients get the page or the services."""
        wanted: Maintenance | UnsetType = UNSET
        if on:
            loaded = self.file.load(self.ref.environment, folders=False)
            wanted = maintenance.begin(loaded, self._actor, message)
        plan = planned.maintenance(self.repository, self.ref, self._actor, wanted)
        if not plan.changes:
            reason = f"maintenance is already {'on' if on else 'off'}"
            return self._result("maintenance", "unchanged", plan, reason=reason)
        return self.apply("maintenance", plan)

    def earlier_down(self) -> DeployResult | None:
        """Wait for the deployment of an earlier `down` whose processes have not all ended."""
        found = self.read_status()
        if found is None or not (found.running or found.stopping):
            return None
        plan = planned.present(self.repository, self.ref)
        if plan.document.services or plan.expected is None:
            return None
        follower = local_agent.watch(self.settings, self.ref)
        local_agent.ensure(self.settings, self.reporter.progress)
        if outcome_of(self.repository, plan.expected) is None:
            return self._follow("down", plan, follower, plan.expected)
        return self._result("down", "succeeded", plan, commit=plan.expected, rollout=Rollout())

    def status(self) -> StatusReport:
        """Read the agent's status, corrected by the processes that exist."""
        found = self.read_status()
        if found is None:
            if self.repository.newest(self.ref.stack, self.ref.environment) is None:
                raise self._not_pulled() or never_deployed(self.ref)
            raise AgentError(
                f"The status of {self.ref} is missing or damaged: "
                f"{self._folder / status.FILE} cannot be read.",
                hint="Run `lapwing agent start` and try again: the agent writes it every few "
                "seconds.",
            )
        read = usage.read(self._folder)
        used = {name: usage.summary(service) for name, service in read.services.items()}
        agent_running = agent_record.is_running(self.settings.agent)
        return StatusReport(
            self._with_stored(correct(found, agent_running=agent_running)),
            agent_running,
            local_agent.envoy_accepts(self.settings),
            {name: summary for name, summary in used.items() if summary is not None},
            last_failure=last_failure(self.repository, self.ref.stack, self.ref.environment),
        )

    def _not_pulled(self) -> StateError | None:
        """Return the error for an environment whose first pull has not succeeded yet."""
        where = (self.settings, self.ref.stack, self.ref.environment)
        if pull.source(*where) is None:
            return None
        problem = pull.state(*where).problem
        return StateError(
            f"{self.ref} has not been pulled yet. {problem or ''}".strip(),
            hint=f"See {self.settings.agent / 'agent.log'}, and try again in a moment.",
        )

    def backups(self, identity: str | None = None) -> Backups:
        """Return the backups of this environment, with the text of an age identity file.

        Raises StateError if nothing was deployed.
        """
        from lapwing.agent.backups import Backups

        document = self.repository.latest_valid(self.ref.stack, self.ref.environment)
        if document is None:
            raise never_deployed(self.ref)
        return Backups(self.settings, document, identity)

    def _with_stored(self, found: Status) -> Status:
        """Return a status with the backups, and with secrets that were removed."""
        from lapwing.agent import basic_auth
        from lapwing.targets.machine_backups import add_to_status

        try:
            if self.repository.newest(self.ref.stack, self.ref.environment) is None:
                return found
            backups = self.backups()
            secrets = SecretStore(self.settings.secrets)
            advice = [
                f"{name} cannot be started again: {error} {error.hint}"
                for name, error in secrets.check(backups.document)
            ]
            if (problem := basic_auth.problem(backups.document, secrets)) is not None:
                advice.append(problem)
            found = msgspec.structs.replace(found, advice=[*found.advice, *advice])
            return add_to_status(found, backups, self.repository)
        except (LapwingError, OSError):  # The desired state is damaged: the status reports it.
            return found

    def history(self, limit: int) -> list[Entry]:
        """List the deployments of this machine's repository."""
        return history(self.repository, self.ref.stack, self.ref.environment, limit)

    def read_status(self) -> Status | None:
        """Read what the agent wrote last; None if nothing was deployed."""
        return status.read(self._folder)

    @property
    def _actor(self) -> str:
        return actor_name(self.settings, self.file.path.parent)

    @property
    def _folder(self) -> Path:
        return self.settings.environment(self.ref.stack, self.ref.environment)

    @property
    def _stack_folder(self) -> Path | None:
        """The folder that an environment belongs to; on a server the source comes from clients."""
        return None if self.settings.server else self.file.path.parent

    def _check_folder(self) -> None:
        if self._stack_folder is None:
            return
        before = self.repository.latest_valid(self.ref.stack, self.ref.environment)
        guards.check_folder(self._stack_folder, before)

    def apply(
        self, verb: Verb, plan: PlannedChange, *, allow_downtime: bool = False
    ) -> DeployResult:
        """Check a planned change, commit it, and wait for its end."""
        from lapwing.agent import basic_auth

        self._check_folder()
        secrets = SecretStore(self.settings.secrets)
        plan = replace(plan, document=basic_auth.replace_removed(plan.document, secrets))
        local_agent.ensure(self.settings, self.reporter.progress)
        rules = guards.Rules(allow_downtime=allow_downtime)
        return self._carry_out(verb, guards.check(self.repository, plan, verb, rules))

    def _carry_out(self, verb: Verb, checked: guards.CheckedChange) -> DeployResult:
        """Commit a change and wait for its end."""
        plan = checked.plan
        if verb != "restore":
            guards.check_restore(self.settings, self.ref)
        follower = local_agent.watch(self.settings, self.ref)
        with interrupts.deferred():  # From the commit on, Ctrl-C only stops waiting.
            commit = guards.commit(self.repository, checked, self._stack_folder)
            for change in plan.changes:
                self.reporter.say(f"  {change}")
            return self._follow(verb, plan, follower, commit)

    def _follow(
        self, verb: Verb, plan: PlannedChange, follower: Follower, commit: str
    ) -> DeployResult:
        """Wait for the end of a deployment."""
        began = time.monotonic()
        stops = verb == "restore" and not plan.document.services
        step_verb: Verb = "down" if stops else verb
        try:
            what = WAITING.get(step_verb, "deploying")
            with interrupts.allowed(), self.reporter.working(f"{what} {commit[:12]}"):
                end = local_agent.follow(
                    self.settings, follower, commit, lambda event: self._report(event, step_verb)
                )
        except KeyboardInterrupt:
            return self._result(verb, "detached", plan, commit=commit)
        return self._ended(verb, plan, end, time.monotonic() - began)

    def _ended(
        self, verb: Verb, plan: PlannedChange, end: local_agent.Followed, seconds: float
    ) -> DeployResult:
        outcome = cast(Outcome, end.outcome)
        found = self.read_status()
        return self._result(
            verb,
            outcome,
            plan,
            commit=end.commit,
            reason=None if outcome == end.reason else end.reason,
            detail=end.detail,
            hint=end.hint,
            seconds=round(seconds, 3),
            rollout=Rollout(
                services=_long_running(plan),
                times={state: round(t, 3) for state, t in end.times.items()},
                preview=found.rollout.preview if found and found.rollout else None,
            ),
        )

    def _report(self, event: Event, verb: Verb) -> None:
        steps = DOWN_STEPS if verb == "down" else STEPS
        if (
            event.kind == "note" and "too few to analyse" not in event.text
        ):  # The result contains it.
            self.reporter.progress(event.text)
        elif event.kind == "state" and event.state in steps:
            self.reporter.progress(steps[event.state])

    def _unchanged(self, verb: Verb, plan: PlannedChange) -> DeployResult:
        """Return that there is nothing to do, or the end of a deployment of the same content."""
        follower = local_agent.watch(self.settings, self.ref)
        found = self.read_status()
        rollout = found.rollout if found else None
        running = found.commit if found else None
        commit = rollout.commit if rollout else plan.expected
        if rollout is not None and rollout.state == "holding":
            reason = f"deployment {rollout.commit[:12]} of the same content is paused"
            paused = Rollout(services=rollout.services, preview=rollout.preview)
            return self._result(
                verb, "unchanged", plan, commit=commit, reason=reason, rollout=paused
            )
        if commit is None or (rollout is None and commit == running):
            return self._result(verb, "unchanged", plan, commit=running)
        ended = outcome_of(self.repository, commit) if rollout is None else None
        if ended is not None:  # The status may still have the commit before.
            newest = commit if ended[0] == "succeeded" else running
            return self._result(verb, "unchanged", plan, commit=newest)
        self.reporter.say(f"Deployment {commit[:12]} of the same content is in progress.")
        return self._follow(verb, plan, follower, commit)

    def _result(
        self, verb: Verb, outcome: Outcome, plan: PlannedChange, **values: object
    ) -> DeployResult:
        found = self.read_status()
        result = DeployResult(
            stack=self.ref.stack,
            environment=self.ref.environment,
            target=self.name,
            kind=verb,
            outcome=outcome,
            changes=plan.changes,
            services=services_of(plan.document),
            url=found.url if found else None,
        )
        result = msgspec.structs.replace(result, **values)
        if outcome in ("succeeded", "unchanged") and plan.document.lasting_maintenance:
            end = f"`lapwing maintenance off -e {self.ref.environment}`"
            result.hint = f"Maintenance is on: clients get status 503. Run {end} to end it."
        return result


def _long_running(plan: PlannedChange) -> list[str]:
    """Return the services that a plan changes, without jobs that run once."""
    documents = [d for d in (plan.before, plan.document) if d is not None]
    jobs = {n for d in documents for n, s in d.services.items() if s.runs_once}
    return sorted(c.name for c in plan.changes if c.kind == "service" and c.name not in jobs)
