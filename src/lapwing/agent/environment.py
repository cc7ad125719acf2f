"""One environment on one machine: wants in, processes and routes out.

The loop is short: take the newest wanted document, decide (`decide.py`), and lead a rollout
(`rollout.py`) whose work is done in `steps.py`. Work is raced against news: a newer document that
arrives meanwhile promotes, aborts or supersedes what is in flight. State is saved before each act,
so whatever kills the agent, `resume` goes on from the same state.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lapwing.agent import bluegreen, logs, report, rollout, state
from lapwing.agent.decide import Intent, decide
from lapwing.agent.journal import Journal
from lapwing.agent.outcomes import Outcomes
from lapwing.agent.publisher import Publisher
from lapwing.agent.rollout import Action, Event, State
from lapwing.agent.state import EnvironmentState, RolloutRecord
from lapwing.agent.steps import Steps
from lapwing.build.release import ReleaseStore
from lapwing.errors import DesiredStateError, LapwingError, NoSpaceError, ProxyError
from lapwing.observed import status
from lapwing.plan.model import Deployment, Document
from lapwing.settings import Settings

if TYPE_CHECKING:
    import httpx

    from lapwing.desired.repository import DesiredRepository
    from lapwing.desired.secrets import SecretStore

log = logging.getLogger(__name__)

UNDO_AGAIN = 0.5
"""Seconds between two tries to undo a rollout that Envoy does not take back."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """What all environments of an agent share."""

    settings: Settings
    store: ReleaseStore
    repository: DesiredRepository
    secrets: SecretStore
    publisher: Publisher
    client: httpx.AsyncClient
    ports: Callable[[], set[int]]
    """Every port that some replica of some environment has."""
    states: Callable[[], list[EnvironmentState]]
    """What is remembered of every environment."""


class Environment:
    """Runs one environment. `desire` hands it a document; `run` is its task."""

    def __init__(self, memory: EnvironmentState, runtime: Runtime) -> None:
        self.state = memory
        self.runtime = runtime
        self.folder = runtime.settings.environment(memory.stack, memory.environment)
        self.journal = Journal(self.folder)
        self.event = self.journal.event
        self.steps = Steps(self)
        self.problem: str | None = None
        self.desired_problem: str | None = None
        """What is wrong with the desired state itself; set by the agent."""
        self.unsaved: str | None = None
        """Why the state on disk is not the present one."""
        self.outcomes = Outcomes(
            runtime.repository, memory.stack, memory.environment, self._tell_late
        )
        self._wanted: tuple[str, Document] | None = None
        self._news = asyncio.Event()
        self._settling: asyncio.Task[None] | None = None

    # What others call

    def desire(self, commit: str, document: Document) -> None:
        """A commit whose document this environment should become."""
        self._wanted = (commit, document)
        self._news.set()

    @property
    def idle(self) -> bool:
        """Whether nothing runs here and nothing is on its way."""
        empty = self.state.document is None or not self.state.document.services
        return (
            empty
            and self.state.rollout is None
            and not self.state.generations
            and not self.state.resources
            and not self._news.is_set()
        )

    async def run(self) -> None:
        """Adopt what runs, finish what was in flight, then follow the desired state for ever."""
        await self.resume()
        while True:
            await self._news.wait()
            self._news.clear()
            if self._wanted is None:
                continue
            commit, document = self._wanted
            self._settle(document, commit)
            if commit == self.state.commit:
                continue
            choice = decide(document, self.state)
            if choice.intent is Intent.NOTHING:
                await self._take_over(commit, document)
            else:
                self.state.rollout = RolloutRecord(
                    commit=commit,
                    document=document,
                    route=choice.route,
                    state=State.RESOURCES,
                    began=time.time(),
                    verdicts={n: str(v) for n, v in choice.verdicts.items()},
                )
                await self._lead(rollout.begin())

    async def _take_over(self, commit: str, document: Document) -> None:
        """A commit that wants what already runs: an abort, a revert, a repeated deployment."""
        self.state.commit = commit
        if self.state.document is not None:
            self.state.document = document
        self.save()
        for each in dict.fromkeys([*await self.outcomes.of_same(document, commit), commit]):
            await self.outcomes.note(each, "succeeded", None)
            self.event("outcome", "It already runs.", each, outcome="succeeded")

    def _settle(self, document: Document, commit: str) -> None:
        """Give an outcome, beside the work, to what was overtaken before anybody took it up."""
        runs = commit == self.state.commit
        self._settling = asyncio.create_task(self.outcomes.settle(document, commit, succeeded=runs))

    def _tell_late(self, commit: str, outcome: str, reason: str) -> None:
        self.event("outcome", reason, commit, outcome=outcome)

    async def resume(self) -> None:
        """After a start of the agent: adopt, restart, route, and finish a rollout in flight."""
        self.steps.adopt()
        flight = self.state.rollout
        await self.steps.restore()
        self.save()
        if flight is None:
            with self._publishing():
                await self.steps.tidy()
        else:
            self.event("agent", "Going on with the deployment that was in flight.", flight.commit)
            switched = self.steps.switched(flight)
            await self._lead(rollout.resume(flight.state, flight.outcome, switched=switched))

    @contextlib.contextmanager
    def _publishing(self) -> Iterator[None]:
        """What Envoy does not take is told in the status, and `tick` tries it again."""
        try:
            yield
        except LapwingError as error:
            self.problem = str(error)

    # The rollout

    async def _lead(self, step: rollout.Step) -> None:
        flight = self.state.rollout
        assert flight is not None
        while True:
            flight.state, flight.outcome = step.state, step.outcome
            self.event("state", step.state, flight.commit, state=step.state)
            event = await self._carry_out(step, flight)
            if step.state in rollout.TERMINAL:
                return
            step = rollout.step(step.state, event, flight.route, step.outcome)

    async def _carry_out(self, step: rollout.Step, flight: RolloutRecord) -> Event:
        """Do the work of a step; news may cut it short."""
        work = asyncio.create_task(self._work(step))
        try:
            while True:
                news = asyncio.create_task(self._news.wait())
                await asyncio.wait({work, news}, return_when=asyncio.FIRST_COMPLETED)
                news.cancel()
                if work.done():
                    return work.result()
                if step.state in rollout.UNINTERRUPTIBLE or step.state in rollout.TERMINAL:
                    return await work
                event = self._interpret(flight)
                if event is not None:
                    return event
        finally:
            if not work.done():
                work.cancel()
                with contextlib.suppress(asyncio.CancelledError, LapwingError):
                    await work

    def _interpret(self, flight: RolloutRecord) -> Event | None:
        """What the newest document means for the rollout in flight."""
        self._news.clear()
        if self._wanted is None or self._wanted[0] in (flight.commit, flight.head):
            return None
        commit, document = self._wanted
        intent = decide(document, self.state).intent
        if intent is Intent.PROMOTE:
            flight.promoted, flight.head = True, commit
            self.save()
            self.steps.promoted.set()
            return None
        if intent is Intent.NOTHING:
            flight.head = commit
            return None
        self._news.set()
        flight.reason = document.deployment.reason or (
            f"{document.deployment.actor} "
            + ("aborted it" if intent is Intent.ABORT else f"deployed {commit[:12]}")
        )
        return Event.ABORTED if intent is Intent.ABORT else Event.SUPERSEDED

    async def _work(self, step: rollout.Step) -> Event:
        flight = self.state.rollout
        assert flight is not None
        for action in step.actions:
            try:
                self.save()
                if action is Action.RESTORE_DESIRED_STATE:
                    await self._restore_desired_state(flight)
                elif action is Action.RECORD_OUTCOME:
                    await self._record(flight)
                else:
                    await self._perform(action, flight)
            except LapwingError as error:
                if step.state is State.UNDOING or step.state in rollout.TERMINAL:
                    log.error("%s during %s: %s", action, step.state, error)
                    continue
                flight.reason, flight.detail, flight.hint = error.message, error.detail, error.hint
                return Event.FAILED
            except OSError as error:
                log.exception("%s during %s", action, step.state)
                if step.state is State.UNDOING or step.state in rollout.TERMINAL:
                    continue
                flight.reason = f"{error.strerror or error} ({error.filename or action})"
                return Event.FAILED
        return Event.DONE

    async def _perform(self, action: Action, flight: RolloutRecord) -> None:
        """Do an action. One of UNDOING is tried until Envoy has taken it: a replica must not go
        while Envoy may still send it requests."""
        while True:
            try:
                await self.steps.perform(action, flight)
            except ProxyError as error:
                if flight.state is not State.UNDOING:
                    raise
                log.error("%s: %s", action, error)
                self.problem = str(error)
                self.changed()
                await asyncio.sleep(UNDO_AGAIN)
                continue
            if flight.state is State.UNDOING:
                self.problem = None
            return

    async def _restore_desired_state(self, flight: RolloutRecord) -> None:
        """Commit what runs, so that the head of the desired state is true again. A newer
        deployment that is there already is left alone."""
        running = self.state.document
        document = Document(
            stack=self.state.stack,
            environment=self.state.environment,
            domains=flight.document.domains,
            services=running.services if running else {},
            resources=running.resources if running else {},
            deployment=Deployment(
                kind="revert",
                actor="lapwing",
                revision=running.deployment.revision if running else "",
                restores=self.state.commit,
                reason=flight.reason,
            ),
        )
        expected = flight.head or flight.commit
        try:
            await asyncio.to_thread(self.runtime.repository.commit, document, expected=expected)
        except DesiredStateError as error:
            log.warning("No revert of %s: %s", flight.commit, error)

    async def _record(self, flight: RolloutRecord) -> None:
        """End a rollout: write the outcome to the history, remember what runs now. The note comes
        first: after a kill in between, it is written once more."""
        outcome = str(flight.state)
        head = flight.head or flight.commit
        same = await self.outcomes.of_same(flight.document, head)
        commits = list(dict.fromkeys([flight.commit, *same, head]))
        for commit in commits:
            await self.outcomes.note(commit, outcome, flight.reason)
        kept = flight.state is State.SUPERSEDED and self.steps.switched(flight)
        if flight.state is State.SUCCEEDED or kept:
            self.state.document = flight.document
            self.state.commit = head
            self.problem = None
        self.state.rollout = None
        self.save()
        for commit in commits:
            self.event(
                "outcome",
                flight.reason or outcome,
                commit,
                outcome=outcome,
                detail=flight.detail,
                hint=flight.hint,
            )
        self._settle(flight.document, head)
        await self.steps.tidy()

    # Housekeeping

    async def tick(self) -> None:
        """Every few seconds: write down what could not be, hear from Envoy who is healthy, let warm
        slots go when their time is over, stop what has drained, keep logs bounded."""
        if self.unsaved is not None:
            self.remember()
        self.journal.flush()
        await self.outcomes.retry()
        before = self.problem
        try:
            await self._look_after()
        except ProxyError as error:
            self.problem = str(error)
            raise
        finally:
            if self.problem != before:
                self.changed()

    async def _look_after(self) -> None:
        now = time.monotonic()
        if self.problem is not None and self.state.rollout is None:
            await self.runtime.publisher.publish()
        await self._hear_health()
        if self.state.rollout is None:
            self.problem = None
        for generation in bluegreen.expired(self.state, now):
            bluegreen.drain(generation, now)
        draining = [g for g in self.state.generations if g.role == "draining"]
        if draining:
            names = [bluegreen.cluster_name(self.state, g) for g in draining]
            counters = await self.runtime.publisher.proxy.counters(names)
            done = bluegreen.finished(self.state, counters, now)
            if done:
                await self.steps.retire(done)
        await self.steps.stop_unneeded_resources()
        for generation in self.state.generations:
            for replica in generation.replicas:
                logs.rotate(self.steps.launcher.log_of(generation, replica))
        for name in self.state.resources:
            logs.rotate(self.steps.launcher.server_log(name))

    async def _hear_health(self) -> None:
        """Take over Envoy's word on which running replicas get requests, so that the status never
        calls one ready that hangs."""
        served = [g for g in self.state.generations if g.role in ("active", "warm")]
        if not served:
            return
        health = await self.runtime.publisher.proxy.health()
        if bluegreen.hear(self.state, served, health):
            self.changed()

    @property
    def needs_tick(self) -> bool:
        """Whether there is a deadline, a draining generation, a replica that is not ready or a
        problem to look after."""
        changing = any(
            g.role in ("warm", "draining") or not all(r.ready for r in g.replicas)
            for g in self.state.generations
        )
        return changing or self.problem is not None

    # Telling

    def save(self) -> None:
        """Persist, and renew the status. Raises NoSpaceError or OSError; memory stays right, and
        `tick` tries again."""
        try:
            state.save(self.folder, self.state)
        except OSError as error:
            flight = self.state.rollout
            self.unsaved = f"The state cannot be saved: {error.strerror}."
            log.error("%s", self.unsaved)
            self.changed()
            if flight is None or flight.state in (State.UNDOING, *rollout.TERMINAL):
                return
            raise NoSpaceError(self.unsaved, hint="Free some space and deploy again.") from error
        self.unsaved = None
        self.changed()

    def remember(self) -> None:
        """Persist what happened to a process by itself. A process in no record is taken for an
        orphan by the next agent; a full disk is told in the status, and no reason to stop."""
        with contextlib.suppress(NoSpaceError):
            self.save()

    def changed(self) -> None:
        """Renew the status file."""
        present = report.status(
            self.state,
            self.runtime.settings.port,
            self.desired_problem or self.unsaved or self.problem,
        )
        with contextlib.suppress(OSError):
            status.write(self.folder, present)
