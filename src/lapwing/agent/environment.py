"""One environment on one machine: follows its document, one rollout at a time.

`run` is the whole life: resume after a restart, then take the newest document, decide what it means
(`decide.py`) and perform a rollout (`rollout.py`), whose work is done in `steps.py`. A document
that arrives meanwhile promotes, aborts or supersedes the rollout in progress. The state is saved
before each act, so after a crash `resume` continues from the same state.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import Awaitable, Callable

import msgspec
from msgspec import UNSET

from lapwing.agent import generations, rollout
from lapwing.agent.context import Context
from lapwing.agent.decide import Intent, decide, empty
from lapwing.agent.launch import Launcher
from lapwing.agent.maintenance import Maintenance
from lapwing.agent.outcomes import Outcomes
from lapwing.agent.replicas import Replicas
from lapwing.agent.resources.servers import LABEL, Servers
from lapwing.agent.rollout import Action, Event, State
from lapwing.agent.schedules import Schedules
from lapwing.agent.state import EnvironmentState, RolloutRecord
from lapwing.agent.steps import Steps
from lapwing.agent.store import Store
from lapwing.errors import DesiredStateError, LapwingError, ProxyError
from lapwing.plan.model import Deployment, Document

log = logging.getLogger(__name__)

UNDO_RETRY_S = 0.5
"""Time between two attempts to undo a rollout while Envoy does not confirm it."""


class Environment:
    """Runs one environment. `desire` hands it a document; `run` is its task."""

    def __init__(self, memory: EnvironmentState, context: Context) -> None:
        self.state = memory
        settings = context.settings
        folder = settings.environment(memory.stack, memory.environment)
        self._mask = functools.partial(
            context.secrets.mask, stack=memory.stack, environment=memory.environment
        )
        self.store = Store(memory, folder, settings.port, context.writer, self._mask)
        self.outcomes = Outcomes(
            context.repository, memory.stack, memory.environment, self._report_outcome
        )
        launcher = Launcher(memory, settings, context.releases, context.secrets, folder)
        self._replicas = Replicas(
            environment=memory.environment,
            launch=launcher.replica,
            log_of=launcher.log_of,
            mark_of=launcher.mark_of,
            changed=self.store.save_soon,
            report=lambda text: self.store.event("replica", text),
            runtime_of=context.runtimes.of,
        )
        self._servers = Servers(
            memory.resources,
            settings,
            context.writer,
            owner=lambda name: launcher.owner(name, LABEL),
            containers=context.runtimes.containers,
            changed=self.store.save_soon,
            report=lambda text: self.store.event("resource", text),
        )
        processes = (launcher, self._replicas, self._servers)
        self.maintenance = Maintenance(context, self.store, *processes)
        self._steps = Steps(context, self.store, *processes, self.maintenance)
        self.schedules = Schedules(context, self.store, launcher)
        self._repository = context.repository
        self._publish = context.publisher.publish
        self._log = settings.agent / "agent.log"
        self._desired: tuple[str, Document] | None = None
        self._news = asyncio.Event()
        self._settling: asyncio.Task[None] | None = None

    def desire(self, commit: str, document: Document) -> None:
        """Set the commit and the document that this environment should follow."""
        self._desired = (commit, document)
        self._news.set()

    @property
    def idle(self) -> bool:
        """Whether nothing is running here and no deployment is in progress."""
        empty = self.state.document is None or not self.state.document.services
        return (
            empty
            and not (self.state.document and self.state.document.maintenance)
            and self.state.rollout is None
            and not self.state.with_processes
            and not self.state.resources
            and not self.state.runs
            and not self._news.is_set()
        )

    async def run(self) -> None:
        """Resume after a restart, then follow the desired state until cancelled."""
        await self.resume()
        while True:
            await self._news.wait()
            self._news.clear()
            if self._desired is None:
                continue
            commit, document = self._desired
            self._settle(document, commit)
            if commit == self.state.commit:
                continue
            await self._apply_maintenance(document)
            await self.maintenance.scaler.settle()
            decision = decide(document, self.state)
            if decision.intent is Intent.NOTHING:
                await self._accept(commit, document)
            else:
                self.state.has_containers |= document.uses_containers
                self.state.rollout = RolloutRecord(
                    commit=commit,
                    document=document,
                    route=decision.route,
                    state=State.RESOURCES,
                    began=time.time(),
                    verdicts={n: str(v) for n, v in decision.verdicts.items()},
                    is_switched=False,
                )
                await self._roll_out(rollout.begin())

    async def resume(self) -> None:
        """Adopt and start what should be running, and continue a rollout in progress."""
        await self.maintenance.adopt()
        record = self.state.rollout
        if record is not None:
            self._steps.expect_recovery(record)
        await self.maintenance.restore()
        self.schedules.adopt()
        await self.store.save()
        if record is None:
            try:
                await self.maintenance.tidy()
            except LapwingError as error:
                self.store.problem = str(error)  # `tick` publishes again.
        else:
            self.store.event("agent", "Resuming the deployment in progress.", record.commit)
            step = rollout.resume(record.state, record.outcome, switched=bool(record.is_switched))
            await self.maintenance.scaler.settle()
            await self._roll_out(step)

    async def tick(self) -> None:
        """Retry failed writes, and maintain what is running. Raises ProxyError."""
        self.store.retry()
        await self.outcomes.retry()
        before = self.store.problem
        try:
            await self.maintenance.tick()
            await self._roll_back_crash_loop()
        except ProxyError as error:
            self.store.problem = str(error)
            raise
        finally:
            if self.store.problem != before:
                self.store.update_status()

    def unwatch_all(self) -> None:
        """Stop watching, and leave every process running."""
        self._replicas.unwatch_all()
        self.maintenance.stopping.unwatch_all()
        self._servers.unwatch_all()
        self.schedules.unwatch_all()

    # The rollout

    async def _roll_out(self, step: rollout.Step) -> None:
        record = self.state.rollout
        assert record is not None
        while True:
            record.state, record.outcome = step.state, step.outcome
            self.store.event("state", step.state, record.commit, state=step.state)
            event = await self._perform_step(step, record)
            if step.state in rollout.TERMINAL:
                return
            step = rollout.step(step.state, event, record.route, step.outcome)

    async def _perform_step(self, step: rollout.Step, record: RolloutRecord) -> Event:
        """Perform the actions of a step, unless a new document interrupts it."""
        work = asyncio.create_task(self._perform_actions(step, record))
        try:
            while True:
                news = asyncio.create_task(self._news.wait())
                await asyncio.wait({work, news}, return_when=asyncio.FIRST_COMPLETED)
                news.cancel()
                if work.done():
                    return work.result()
                if step.state in rollout.UNINTERRUPTIBLE or step.state in rollout.TERMINAL:
                    return await work
                event = await self._interruption(record)
                if event is not None:
                    return event
        finally:
            if not work.done():
                work.cancel()
                with contextlib.suppress(asyncio.CancelledError, LapwingError):
                    await work

    async def _interruption(self, record: RolloutRecord) -> Event | None:
        """Return what the newest document means for the rollout in progress."""
        self._news.clear()
        if self._desired is None or self._desired[0] in (record.commit, record.head):
            return None
        commit, document = self._desired
        is_applied = await self._apply_maintenance(document)
        intent = decide(document, self.state).intent
        if intent is Intent.PROMOTE:
            record.promoted, record.head = True, commit
            await self.store.save()
            self._steps.promoted.set()
            return None
        if intent is Intent.NOTHING:
            record.head = commit
            if is_applied:
                await self.outcomes.note(commit, "succeeded", None)
                self._report_outcome(commit, "succeeded", "The routes are in use.")
            return None
        self._news.set()
        aborted = intent is Intent.ABORT
        record.reason = document.deployment.reason or (
            f"{document.deployment.actor} "
            + ("aborted the deployment" if aborted else f"deployed {commit[:12]}")
        )
        return Event.ABORTED if aborted else Event.SUPERSEDED

    async def _apply_maintenance(self, document: Document) -> bool:
        """Begin or end maintenance, also during a rollout; return whether the routes changed."""
        record, running = self.state.rollout, self.state.document
        current = running or (record.document if record else document)
        if current.maintenance == document.maintenance:
            return False
        is_stopped = all(service.runs_once for service in current.services.values())
        is_start = document.services and is_stopped
        if is_start and current.maintenance and current.maintenance.restoring:
            return False  # It ends with the switch.
        replace, wanted = msgspec.structs.replace, document.maintenance
        if running is not None:
            self.state.document = replace(running, maintenance=wanted)
        if record is not None:
            record.document = replace(record.document, maintenance=wanted)
        await self.store.save()
        await self._until_confirmed("maintenance", self._publish)
        return True

    async def _perform_actions(self, step: rollout.Step, record: RolloutRecord) -> Event:
        ending = step.state is State.UNDOING or step.state in rollout.TERMINAL
        for action in step.actions:
            try:
                await self.store.save()
                await self._perform(action, record)
            except LapwingError as error:
                if ending:
                    log.error("%s in state %s failed: %s", action, step.state, error)
                    continue
                record.reason, record.hint = self._mask(error.message), error.hint
                record.detail = error.detail and self._mask(error.detail)
                return Event.FAILED
            except OSError as error:
                log.exception("%s in state %s failed", action, step.state)
                if ending:
                    continue
                record.reason = f"{error.strerror or error} ({error.filename or action})"
                return Event.FAILED
            except Exception as error:
                if ending:
                    raise  # The agent tries again: no replica may stop before traffic has left it.
                log.exception("%s in state %s failed", action, step.state)
                reason = f"Unexpected error in {action}: {type(error).__name__}: {error}"
                record.reason, record.detail = self._mask(reason), None
                record.hint = f"See {self._log}."
                return Event.FAILED
        return Event.DONE

    async def _perform(self, action: Action, record: RolloutRecord) -> None:
        if action is Action.RESTORE_DESIRED_STATE:
            await self._restore_desired_state(record)
        elif action is Action.RECORD_OUTCOME:
            await self._record_outcome(record)
        elif record.state is State.UNDOING:
            perform = functools.partial(self._steps.perform, action, record)
            await self._until_confirmed(action, perform)
        else:
            await self._steps.perform(action, record)

    async def _until_confirmed(
        self,
        what: str,
        perform: Callable[[], Awaitable[None]],
        ends: Callable[[], bool] = lambda: False,
    ) -> None:
        """Repeat a change of routes until Envoy has confirmed it, or until `ends`.

        A replica must not be stopped while Envoy may still send it requests.
        """
        while True:
            try:
                await perform()
            except ProxyError as error:
                log.error("%s failed: %s", what, error)
                self.store.problem = str(error)
                self.store.update_status()
                if ends():
                    return
                await asyncio.sleep(UNDO_RETRY_S)
                continue
            self.store.problem = None
            return

    async def _restore_desired_state(self, record: RolloutRecord) -> None:
        """Commit the running document, so that the desired state matches it again.

        A deployment that was committed meanwhile is kept.
        """
        running = self.state.document
        act = Deployment(
            kind="revert",
            actor="lapwing",
            revision=running.deployment.revision if running else "",
            restores=self.state.commit,
            reason=record.reason,
        )
        document = msgspec.structs.replace(running or empty(record.document), deployment=act)
        expected = record.head or record.commit
        try:
            await asyncio.to_thread(self._repository.commit, document, expected=expected)
        except DesiredStateError as error:
            log.warning("%s was not reverted in the desired state: %s", record.commit, error)

    # Outcomes

    async def _record_outcome(self, record: RolloutRecord) -> None:
        """Complete a rollout: publish its routes, write the outcome of its commits, then the state.

        In this order, because a command that waits for the outcome ends when it is written, and
        after a crash in between the outcome is written once more. While Envoy confirms nothing, a
        newer deployment ends the wait.
        """
        await self._until_confirmed("the final routes", self._publish, ends=self._news.is_set)
        outcome = str(record.state)
        head = record.head or record.commit
        pending = await self.outcomes.pending_commits(record.document, head)
        commits = list(dict.fromkeys([record.commit, *pending]))
        for commit in commits:
            await self.outcomes.note(commit, outcome, record.reason)
        if record.is_switched:
            await self._condemn_crashing(record)
            forward = record.document.deployment.is_forward
            self.state.previous = self.state.commit if record.previous and forward else None
            self.state.document = record.document
            self.state.commit = head
            self.store.problem = None
        self.state.rollout = None
        await self.store.save()
        for commit in commits:
            self.store.event(
                "outcome",
                record.reason or outcome,
                commit,
                outcome=outcome,
                detail=record.detail,
                hint=record.hint,
            )
        self._settle(record.document, head)
        await self.maintenance.tidy()

    async def _condemn_crashing(self, record: RolloutRecord) -> None:
        """Note that a release was crashing when it was replaced: no rollback may choose it."""
        act, running = record.document.deployment, self.state.document
        for number in record.previous.values():
            old = self.state.numbered(number)
            if old is None or not (running and self.state.commit):
                continue
            if generations.is_crashing(old):
                reason = act.reason or f"{old.service} was crashing when it was replaced."
                outcome = "rolled-back" if act.kind == "rollback" else "failed"
                await self.outcomes.condemn(running, self.state.commit, outcome, reason)

    async def _roll_back_crash_loop(self) -> None:
        """Commit a rollback of a deployment whose replicas crash while the old slot is warm."""
        found = generations.crash_loops(self.state)
        commit, target = self.state.commit, self.state.previous
        if self.state.rollout is not None or not found or target is None or commit is None:
            return
        where = (self.state.stack, self.state.environment)
        document = await asyncio.to_thread(self._repository.read, *where, target)
        if document is None:
            return
        reason = f"{found[0].service} crashed repeatedly after the deployment."
        act = Deployment(
            kind="rollback",
            actor="lapwing",
            revision=document.deployment.revision,
            restores=target,
            reason=reason,
        )
        kept = self.state.document.maintenance if self.state.document else UNSET
        restored = msgspec.structs.replace(document, deployment=act, maintenance=kept)
        await asyncio.to_thread(self._repository.commit, restored, expected=commit)
        self.state.previous = None
        self.store.event("agent", f"{reason} Rolling back.", commit)

    async def _accept(self, commit: str, document: Document) -> None:
        """Accept a commit whose document is already running.

        It is an abort, a revert or a repeated deployment.
        """
        self.state.commit = commit
        if self.state.document is not None:
            self.state.document = document
        await self.store.save()
        pending = await self.outcomes.pending_commits(document, commit)
        for each in dict.fromkeys([*pending, commit]):
            await self.outcomes.note(each, "succeeded", None)
            self._report_outcome(each, "succeeded", "It is already running.")

    def _settle(self, document: Document, commit: str) -> None:
        """Write the outcome of superseded commits in the background."""
        running = commit == self.state.commit
        settling = self.outcomes.settle(document, commit, succeeded=running)
        self._settling = asyncio.create_task(settling)

    def _report_outcome(self, commit: str, outcome: str, reason: str) -> None:
        self.store.event("outcome", reason, commit, outcome=outcome)
