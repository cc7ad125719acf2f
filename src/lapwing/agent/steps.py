"""The work of a rollout: what each action does to processes, Envoy and databases.

Every method can be repeated, because a restarted agent repeats the action of the state it was in.
Decisions are made elsewhere (`decide`, `generations`, `analysis`); this module acts, in the order
that loses no request. `smoke_tests` and `analysis_run` test the candidates before and after the
switch.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import time
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from lapwing.agent import (
    basic_auth,
    generations,
    logs,
    processes,
    publisher,
    rollout,
)
from lapwing.agent.analysis_run import AnalysisRun
from lapwing.agent.context import Context
from lapwing.agent.launch import JOB_LABEL, Launcher
from lapwing.agent.maintenance import Maintenance
from lapwing.agent.proxy import provided_certificates
from lapwing.agent.replicas import Replicas, is_running
from lapwing.agent.resources.servers import Servers
from lapwing.agent.rollout import Action
from lapwing.agent.smoke_tests import SmokeTests
from lapwing.agent.state import Generation, RolloutRecord
from lapwing.agent.store import Store
from lapwing.errors import JobError, LapwingError, ProxyError, ReplicaError
from lapwing.plan import host_names
from lapwing.plan.model import JOB_TIMEOUT_S, Service
from lapwing.stack.resource_reference import variable_of

WATCH_INTERVAL_S = 0.1
"""Time between two looks at the candidates that have to stay healthy."""


class Steps:
    """Performs the actions of rollouts of one environment."""

    def __init__(
        self,
        context: Context,
        store: Store,
        launcher: Launcher,
        replicas: Replicas,
        servers: Servers,
        maintenance: Maintenance,
    ) -> None:
        self.state = store.state
        self.promoted = asyncio.Event()
        """Set when a paused rollout is promoted."""
        self._context = context
        self._store = store
        self._launcher = launcher
        self._replicas = replicas
        self._servers = servers
        self._maintenance = maintenance
        self._recovering: list[Generation] = []
        self._smoke_tests = SmokeTests(context, launcher, self._note)
        self._analysis = AnalysisRun(context, store.state, launcher, self._note)
        self._actions: Mapping[Action, Callable[[RolloutRecord], Awaitable[None]]] = {
            Action.ENSURE_RESOURCES: self._ensure_resources,
            Action.RUN_JOBS: self._run_jobs,
            Action.START_CANDIDATES: self._start_candidates,
            Action.TEST_CANDIDATES: self._test_candidates,
            Action.AWAIT_PROMOTION: self._await_promotion,
            Action.SWITCH: self._switch,
            Action.ANALYSE: self._analyse,
            Action.RUN_JOBS_AFTER: self._run_jobs,
            Action.SWITCH_BACK: self._switch_back,
            Action.RETIRE_CANDIDATES: self._retire_candidates,
        }

    async def perform(self, action: Action, record: RolloutRecord) -> None:
        """Perform an action. Raises LapwingError when the rollout cannot continue.

        That includes a candidate that crashes meanwhile, in the states in which it has to run.
        """
        work = asyncio.ensure_future(self._actions[action](record))
        try:
            while not work.done():
                watched = record.state in rollout.WATCHED
                await asyncio.wait({work}, timeout=WATCH_INTERVAL_S if watched else None)
                if watched and not self._is_exit_unreported(record):
                    self._check_candidates(record)
            await work
            if record.state in rollout.WATCHED:
                self._check_candidates(record)
        finally:
            if not work.done():
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)

    def _is_exit_unreported(self, record: RolloutRecord) -> bool:
        """Return whether a replica of a candidate has exited a moment ago.

        Envoy may notice first that it is not ready; its watcher will report the reason.
        """
        replicas = [r for g in self._candidates(record) for r in g.replicas]
        return any(r.pid is not None and not is_running(r) for r in replicas)

    def _check_candidates(self, record: RolloutRecord) -> None:
        """Raise ReplicaError if a replica of a candidate exited or is not ready."""
        for generation in self._candidates(record):
            if generation in self._recovering:
                continue
            reason = generations.instability(generation)
            if reason is not None:
                switched = generation.role == "active"
                unready = [r for r in generation.replicas if r.restarts or not r.ready]
                raise ReplicaError(
                    f"{generation.service} became unhealthy {'after' if switched else 'before'} "
                    f"the switch: {reason}.",
                    detail=logs.tail(self._launcher.log_of(generation, unready[0])),
                )

    # Before the switch

    def _check_host_names(self, record: RolloutRecord) -> None:
        """Raise StateError if another environment uses a host name of the document."""
        conflict = publisher.domain_conflict(self._context.states(), self.state, record.document)
        if conflict is not None:
            raise host_names.conflict_error(*conflict)

    async def _ensure_resources(self, record: RolloutRecord) -> None:
        self._check_host_names(record)
        await asyncio.to_thread(basic_auth.check, record.document, self._context.secrets)
        await asyncio.to_thread(
            provided_certificates.check,
            record.document,
            self._context.states(),
            self._context.secrets,
        )
        for name, resource in record.document.resources.items():
            try:
                await self._servers.ensure(name, resource, replace=True)
            except LapwingError:
                running = self.state.document
                if running is not None and name in running.resources:
                    self._servers.retry(name, running.resources[name])
                raise
        await self._store.save()

    async def _run_jobs(self, record: RolloutRecord) -> None:
        """Run the new jobs: before the switch those without `after`, afterwards the others."""
        afterwards = record.state is rollout.State.AFTERWARDS
        for name in record.services_with("start"):
            spec = record.document.services[name]
            if spec.kind == "job" and bool(spec.after) is afterwards:
                await self._run_job(name, spec, record)

    async def _run_job(self, name: str, spec: Service, record: RolloutRecord) -> None:
        self._note(record, f"running job {name}")
        log = self._launcher.job_log(name, record.commit)
        await asyncio.to_thread(logs.remove_old, log.parent)
        timeout = spec.timeout or JOB_TIMEOUT_S
        owner = self._launcher.owner(name, JOB_LABEL)
        # A job with `after` connects to replicas on the loopback of the machine.
        late = bool(spec.after)
        launch = await self._launcher.launch(spec, owner, record.document, host_network=late)
        launch = dataclasses.replace(launch, environ={**launch.environ, **self._urls(spec)})
        ended = await self._context.runtimes.of(spec).run(launch, log, timeout)
        await self._maintenance.note_log_times()
        if ended != processes.SUCCESS:
            ended = ended or f"did not exit within {timeout:g} s"
            raise JobError(
                f"Job {name} {ended}.",
                detail=logs.tail(log),
                hint=f"`lapwing logs {name} -e {self.state.environment}` shows the whole log.",
            )
        self.state.jobs[name] = spec.identity()
        await self._store.save()

    def _urls(self, spec: Service) -> dict[str, str]:
        """Return `<SERVICE>_URL` for each service with a port that a job runs after."""
        found = {name: self.state.of(name, "active") for name in spec.after or ()}
        return {
            variable_of(name): f"http://127.0.0.1:{generation.replicas[0].port}"
            for name, generation in found.items()
            if generation is not None and generation.spec.kind != "worker"
        }

    async def _start_candidates(self, record: RolloutRecord) -> None:
        for name in [*record.services_with("start"), *record.services_with("switch")]:
            active = self.state.of(name, "active")
            if active is not None:
                await self._maintenance.advice.report_written(active, record.commit)
        self._check_host_names(record)  # Another first deployment may have begun meanwhile.
        port = self._maintenance.scaler.free_port
        generations.create_candidates(self.state, record, port, time.monotonic())
        await self._store.save()
        scaling = [self._add_missing(record, g) for g in self._adjusted(record)]
        starting = [
            g
            for g in self._candidates(record)
            if g.role == "candidate" or (g.role == "warm" and not all(r.ready for r in g.replicas))
        ]
        if starting:
            names = ", ".join(f"{g.service} {g.label}" for g in starting)
            self._note(record, f"starting {names}")
        try:
            async with asyncio.TaskGroup() as group:
                for generation in starting:
                    note = functools.partial(self._note, record)
                    group.create_task(self._replicas.start(generation, note=note))
                for scale in scaling:
                    group.create_task(scale)
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        for generation in starting:
            await self._maintenance.advice.report_public_port(generation, record.commit)
        await self._store.save()
        await self._context.publisher.publish()
        await self._wait_for_envoy(starting)

    async def _wait_for_envoy(self, starting: list[Generation]) -> None:
        """Wait until Envoy, too, finds these generations healthy."""
        served = {
            self.state.cluster_name(g): g for g in starting if g.spec.kind in ("web", "static")
        }
        ports = {name: [r.port for r in g.replicas] for name, g in served.items()}
        for name in await self._context.publisher.wait_until_healthy(ports):
            raise ReplicaError(
                f"{served[name].service} passes the agent's health check, but not Envoy's.",
                hint=f"Envoy sends `Host: {served[name].spec.health.host}` and expects a status "
                "below 400.",
            )
        for replica in (r for g in served.values() for r in g.replicas if r.pid is not None):
            replica.ready = True  # A tick may have read Envoy's status before it was healthy.

    def _adjusted(self, record: RolloutRecord) -> list[Generation]:
        """Return the active generations that stay, and get other settings at the switch."""
        found = (self.state.of(name, "active") for name in record.services_with("adjust"))
        return [generation for generation in found if generation is not None]

    async def _add_missing(self, record: RolloutRecord, generation: Generation) -> bool:
        spec = record.document.services[generation.service]
        note = functools.partial(self._note, record)
        return await self._maintenance.scaler.add_missing(generation, spec, note)

    async def _test_candidates(self, record: RolloutRecord) -> None:
        await self._smoke_tests.run(record, self._candidates(record))

    async def _await_promotion(self, record: RolloutRecord) -> None:
        try:  # The preview, also of settings alone.
            await self._context.publisher.publish()
        except ProxyError as error:  # Repeated later: Envoy may be starting.
            self._store.problem = str(error)
        self._note(
            record,
            f"paused before the switch; preview: {self._smoke_tests.preview(record.document).url}",
        )
        if not record.promoted:
            self.promoted.clear()
            await self.promoted.wait()
        await self._maintenance.scaler.settle()
        found = [*self._adjusted(record), *self._candidates(record)]
        added = [g for g in found if await self._add_missing(record, g)]
        if added:  # The running release was scaled meanwhile.
            await self._store.save()
            await self._context.publisher.publish()
            await self._wait_for_envoy(added)

    # The switch and the analysis

    async def _switch(self, record: RolloutRecord) -> None:
        if not record.is_switched:
            self._check_candidates(record)
        self._launcher.record_active()
        generations.switch(self.state, record, time.monotonic())
        if (running := self.state.document) is not None:  # That of a restore ends here.
            maintenance = record.document.maintenance
            self.state.document = msgspec.structs.replace(running, maintenance=maintenance)
        await self._store.save()
        self._launcher.record_active()
        await self._context.publisher.publish()
        if record.document.services:  # `lapwing down` has none.
            self._note(record, "switched traffic to the new release")

    def expect_recovery(self, record: RolloutRecord) -> None:
        """Note the candidates with traffic that ended while no agent was running.

        That is no crash of theirs (a power failure, a reboot), so the analysis begins when they are
        ready again. A crash that was recorded before still counts.
        """
        for generation in self._candidates(record):
            lost = [r for r in generation.replicas if not is_running(r)]
            crashed = any(r.restarts for r in generation.replicas)
            if generation.role == "active" and lost and not crashed and record.route.analyse:
                for replica in lost:
                    replica.pid, replica.ready = None, False
                self._recovering.append(generation)

    async def _await_recovery(self) -> None:
        """Wait until the recovering candidates are ready, at most for their start timeout."""
        began = time.monotonic()
        try:
            for generation in self._recovering:
                until = began + generation.spec.health.start_timeout
                while not generations.is_usable(generation) and time.monotonic() < until:
                    await asyncio.sleep(WATCH_INTERVAL_S)
            ready = [g for g in self._recovering if generations.is_usable(g)]
            await self._wait_for_envoy(ready)
            for replica in (r for g in ready for r in g.replicas):
                replica.restarts = replica.crashes = 0
        finally:
            self._recovering.clear()

    async def _analyse(self, record: RolloutRecord) -> None:
        await self._await_recovery()
        await self._analysis.run(record, self._candidates(record))

    # Undoing

    async def _switch_back(self, record: RolloutRecord) -> None:
        generations.switch_back(self.state, record, time.monotonic())
        await self._store.save()
        await self._context.publisher.publish()

    async def _retire_candidates(self, record: RolloutRecord) -> None:
        """Stop at once the candidates that had no traffic; the others drain."""
        unused = [g for g in self._candidates(record) if g.role == "candidate"]
        unused += [g for g in self.state.retiring if g.number in record.candidates.values()]
        if unused:
            await self._maintenance.retire(unused)
            await self._maintenance.stopping.ended(unused)

    def _candidates(self, record: RolloutRecord) -> list[Generation]:
        numbers = [record.candidates[name] for name in sorted(record.candidates)]
        return [g for n in numbers if (g := self.state.numbered(n)) is not None]

    def _note(self, record: RolloutRecord, text: str) -> None:
        self._store.event("note", text, record.commit, state=record.state)
