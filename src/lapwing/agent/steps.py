"""The work of a rollout: what each action does to processes, Envoy and databases.

Every method here can be done twice, because a restarted agent does the action of the state it was
in again. What needs deciding is decided elsewhere (`decide`, `bluegreen`, `analysis`); this module
acts, in the order that loses no request.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from lapwing.agent import analysis, bluegreen, logs, processes, smoke
from lapwing.agent.launcher import Launcher
from lapwing.agent.proxy.model import Counters
from lapwing.agent.replicas import Replicas
from lapwing.agent.resources.servers import Servers
from lapwing.agent.rollout import Action
from lapwing.agent.state import Generation, Replica, RolloutRecord
from lapwing.errors import JobError, LapwingError, ReplicaError, SmokeError
from lapwing.plan.model import Service, Smoke

if TYPE_CHECKING:
    from lapwing.agent.environment import Environment

JOB_TIMEOUT = 600.0
"""Seconds that a job may take where the stack file does not say."""
LOOK = 0.25
"""Seconds between two readings of the counters during an analysis."""
DOWN_PATIENCE = 10.0
"""Seconds that connections may take to end by themselves on `lapwing down`."""


class Steps:
    """Does the actions of rollouts of one environment."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.state = environment.state
        self.runtime = environment.runtime
        self.launcher = Launcher(self.state, self.runtime, environment.folder)
        self.promoted = asyncio.Event()
        self.replicas = Replicas(
            launch=self.launcher.replica,
            log_of=self.launcher.log_of,
            client=self.runtime.client,
            changed=environment.remember,
            tell=lambda text: environment.event("replica", text),
        )
        self.servers = Servers(
            self.state.resources,
            self.runtime.settings,
            place=lambda name: self.launcher.place(name, "resource"),
            changed=environment.remember,
            tell=lambda text: environment.event("resource", text),
        )
        self._actions: Mapping[Action, Callable[[RolloutRecord], Awaitable[None]]] = {
            Action.ENSURE_RESOURCES: self._ensure_resources,
            Action.RUN_JOBS: self._run_jobs,
            Action.START_CANDIDATES: self._start_candidates,
            Action.TEST_CANDIDATES: self._test_candidates,
            Action.AWAIT_PROMOTION: self._await_promotion,
            Action.SWITCH: self._switch,
            Action.ANALYSE: self._analyse,
            Action.SWITCH_BACK: self._switch_back,
            Action.RETIRE_CANDIDATES: self._retire_candidates,
        }

    async def perform(self, action: Action, flight: RolloutRecord) -> None:
        """Do an action. Raises LapwingError when the rollout cannot go on."""
        await self._actions[action](flight)

    # Before the switch

    async def _ensure_resources(self, flight: RolloutRecord) -> None:
        taken = bluegreen.taken_domain(self.runtime.states(), self.state, flight.document)
        if taken is not None:
            raise ReplicaError(
                f"{taken[0]} is the host name of {taken[1]} already.",
                hint="Give this environment another `domain`, or stop the other with "
                "`lapwing down`.",
            )
        for name, resource in flight.document.resources.items():
            await self.servers.ensure(name, resource)
        self.environment.save()

    async def _run_jobs(self, flight: RolloutRecord) -> None:
        for name in flight.having("start"):
            spec = flight.document.services[name]
            if spec.kind != "job":
                continue
            self._tell(flight, f"running job {name}")
            log = self.launcher.logs(name) / f"job-{flight.commit[:12]}.log"
            patience = spec.timeout or JOB_TIMEOUT
            started = self.launcher.launch(spec, self.launcher.place(name, "job"), flight.document)
            how = await smoke.command(started, {}, log, patience)
            if how != "exited with status 0":
                raise JobError(
                    f"Job {name} {how or f'did not end within {patience:g} s'}.",
                    detail=logs.tail(log),
                )
            self.state.jobs[name] = spec.identity()
            self.environment.save()

    async def _start_candidates(self, flight: RolloutRecord) -> None:
        bluegreen.nominate(self.state, flight, self._port, time.monotonic())
        self.environment.save()
        growing = [self._grow(flight, name) for name in flight.having("adjust")]
        starting = [
            g
            for g in self._candidates(flight)
            if g.role == "candidate" or (g.role == "warm" and not all(r.ready for r in g.replicas))
        ]
        if starting:
            self._tell(flight, "starting " + ", ".join(f"{g.service} {g.label}" for g in starting))
        try:
            async with asyncio.TaskGroup() as group:
                for generation in starting:
                    group.create_task(self.replicas.start(generation))
                for grow in growing:
                    group.create_task(grow)
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        self.environment.save()
        await self.runtime.publisher.publish()
        await self._agree(starting)

    async def _agree(self, generations: list[Generation]) -> None:
        """Have Envoy's word, too, that these are healthy. While it thought otherwise of one, a tick
        may have taken over that word."""
        asked = [g for g in generations if g.spec.kind in ("web", "static")]
        named = {bluegreen.cluster_name(self.state, g): g for g in asked}
        ports = {name: [r.port for r in g.replicas] for name, g in named.items()}
        for name in await self.runtime.publisher.wait_until_healthy(ports):
            raise ReplicaError(
                f"{named[name].service} answers its health check, but not to Envoy.",
                hint="Envoy asks it with `Host: localhost`; its answer has to be below 400.",
            )
        for replica in (r for g in asked for r in g.replicas if r.pid is not None):
            replica.ready = True

    async def _grow(self, flight: RolloutRecord, name: str) -> None:
        active, spec = self.state.of(name, "active"), flight.document.services[name]
        if active is None or spec.replicas <= len(active.replicas):
            return
        indices = range(len(active.replicas), spec.replicas)
        taken = [r.port for r in active.replicas]
        ports = bluegreen.different(taken, len(indices), lambda: self._port(spec))
        more = [Replica(index=i, port=p) for i, p in zip(indices, ports, strict=True)]
        await self.replicas.start(active, more)
        active.replicas.extend(more)

    async def _test_candidates(self, flight: RolloutRecord) -> None:
        for generation in self._candidates(flight):
            if generation.role != "candidate":
                continue
            for number, test in enumerate(generation.spec.rollout.smoke, start=1):
                what = test.run or f"GET {test.get}"
                self._tell(flight, f"smoke test of {generation.service}: {what}")
                try:
                    await self._test(flight, generation, test, number)
                except SmokeError as error:
                    raise SmokeError(
                        f"{generation.service}: {error.message}", detail=error.detail
                    ) from error

    async def _test(
        self, flight: RolloutRecord, generation: Generation, test: Smoke, number: int
    ) -> None:
        preview = self.launcher.preview(flight.document)
        if test.run is None:
            await smoke.expect(test, preview)
            return
        name = f"{generation.label}.smoke{number}.log"
        place = self.launcher.place(generation.service, generation.label)
        spec = _running(generation.spec, test.run)
        extra = {
            "LAPWING_PREVIEW_URL": preview.url,
            "SSL_CERT_FILE": str(preview.authority),
            "REQUESTS_CA_BUNDLE": str(preview.authority),
        }
        log = self.launcher.logs(generation.service) / name
        await smoke.run(test, self.launcher.launch(spec, place, flight.document), extra, log)

    async def _await_promotion(self, flight: RolloutRecord) -> None:
        self._tell(
            flight,
            f"held; look at {self.launcher.preview(flight.document).url}, then `lapwing promote`",
        )
        if flight.promoted:
            return
        self.promoted.clear()
        await self.promoted.wait()

    # The switch and after

    async def _switch(self, flight: RolloutRecord) -> None:
        for generation in self._candidates(flight):
            dead = [r for r in generation.replicas if not r.ready]
            if generation.role in ("candidate", "warm") and dead:
                raise ReplicaError(
                    f"{generation.service} became unhealthy before the switch"
                    + (f": it {dead[0].last_exit}." if dead[0].last_exit else "."),
                    detail=logs.tail(self.launcher.log_of(generation, dead[0])),
                )
        bluegreen.switch(self.state, flight, time.monotonic())
        self.environment.save()
        await self.runtime.publisher.publish()
        self._tell(flight, "switched")

    async def _analyse(self, flight: RolloutRecord) -> None:
        judged = {
            bluegreen.cluster_name(self.state, g): g
            for g in self._candidates(flight)
            if g.spec.rollout.analysis is not None and g.spec.kind in ("web", "static")
        }
        before = {name: Counters(name) for name in judged}
        before |= await self.runtime.publisher.counters(judged)
        began = time.monotonic()
        waiting = dict(judged)
        while waiting:
            await asyncio.sleep(LOOK)
            now = await self.runtime.publisher.counters(waiting)
            for name, generation in list(waiting.items()):
                limits = generation.spec.rollout.analysis
                assert limits is not None
                found = analysis.judge(limits, before[name], now.get(name, before[name]))
                if found.failed is not None:
                    raise ReplicaError(f"{generation.service}: {found.failed}.")
                if time.monotonic() - began >= limits.window:
                    del waiting[name]
                    self._tell(
                        flight, f"{generation.service}: {_words(found, limits.min_requests)}"
                    )

    def switched(self, flight: RolloutRecord) -> bool:
        """Whether the candidates of a rollout have the traffic."""
        found = self._candidates(flight)
        return bool(found) and all(g.role == "active" for g in found)

    # Back, and tidying up

    async def _switch_back(self, flight: RolloutRecord) -> None:
        bluegreen.switch_back(self.state, flight, time.monotonic())
        self.environment.save()
        await self.runtime.publisher.publish()

    async def _retire_candidates(self, flight: RolloutRecord) -> None:
        """Stop at once what never had traffic; what had some drains (see `Environment.tick`)."""
        never = [g for g in self._candidates(flight) if g.role == "candidate"]
        if never:
            await self.retire(never)

    async def tidy(self) -> None:
        """After a rollout, and after a start, as a kill may have come in between: show on the
        preview host what one could go back to, leave host names that are not wanted any more, stop
        surplus replicas, and, for `down`, everything soon."""
        document = self.state.document
        down = document is not None and document.deployment.kind == "down"
        lasting = [g for g in self.state.generations if down and g.role != "draining"]
        if lasting:
            for generation in lasting:
                bluegreen.drain(generation, time.monotonic())
                generation.deadline = time.monotonic() + DOWN_PATIENCE
            self.environment.save()
        await self.runtime.publisher.publish()
        for generation in [g for g in self.state.generations if g.role == "active"]:
            surplus = generation.replicas[generation.spec.replicas :]
            if surplus:
                del generation.replicas[generation.spec.replicas :]
                await self.runtime.publisher.publish()
                await asyncio.sleep(bluegreen.MIN_DRAIN)
                await self.replicas.stop(generation, surplus)
                self.environment.save()

    async def retire(self, generations: list[Generation]) -> None:
        """Stop generations that have no traffic: out of Envoy first, then the processes. If Envoy
        does not take it they stay, for another try. Raises ProxyError."""
        before = list(self.state.generations)
        for generation in generations:
            self.state.generations.remove(generation)
        try:
            await self.runtime.publisher.publish()
        except BaseException:
            missing = [g for g in before if g not in self.state.generations]
            self.state.generations.extend(missing)
            raise
        await asyncio.gather(*(self.replicas.stop(g) for g in generations))
        for generation in generations:
            logs.forget(self.launcher.logs(generation.service))
        self.environment.save()

    async def stop_unneeded_resources(self) -> None:
        """Stop the servers of resources that no document and no generation needs any more."""
        documents = [self.state.document]
        if self.state.rollout is not None:
            documents.append(self.state.rollout.document)
        needed = {n for d in documents if d is not None for n in d.resources}
        needed |= {n for g in self.state.generations for n in g.spec.needs}
        if await self.servers.stop_all_but(needed):
            self.environment.save()

    def forget(self) -> None:
        """Stop watching, and leave every process as it is."""
        self.replicas.forget()
        self.servers.forget()

    # After a restart of the agent

    def adopt(self) -> None:
        """Take over what runs; end what runs and is in no record."""
        if self.state.boot != (boot := _boot()):
            self.state.boot = boot
            for generation in bluegreen.lost_at_boot(self.state):
                self.state.generations.remove(generation)
        known = {r.pid for g in self.state.generations for r in g.replicas}
        prefix = f"{self.state.stack}/{self.state.environment}/"
        for identity, what in processes.owned(self.runtime.settings.home):
            resource = what.split("/")[3:4] == ["resource"]
            if what.startswith(prefix) and identity.pid not in known and not resource:
                processes.kill(identity)

    async def restore(self) -> None:
        """Bring back, after a crash or a reboot, what should run: databases, replicas, routes."""
        document = self.state.document
        flight = self.state.rollout
        if document is not None:
            for name, resource in document.resources.items():
                try:
                    await self.servers.ensure(name, resource)
                except LapwingError as error:
                    self.environment.event("resource", str(error))
                    self.servers.bring_back(name, resource)
        for generation in self.state.generations:
            in_flight = flight is not None and generation.number in flight.candidates.values()
            if not (in_flight and generation.role in ("candidate", "warm")):
                self.replicas.keep(generation)
        try:
            await self.runtime.publisher.publish()
        except LapwingError as error:
            self.environment.problem = str(error)

    def _port(self, spec: Service) -> int:
        if spec.kind == "worker":
            return 0
        return processes.free_port(self.runtime.ports())

    def _candidate(self, flight: RolloutRecord, name: str) -> Generation | None:
        number = flight.candidates.get(name)
        return None if number is None else self.state.numbered(number)

    def _candidates(self, flight: RolloutRecord) -> list[Generation]:
        found = (self._candidate(flight, name) for name in sorted(flight.candidates))
        return [g for g in found if g is not None]

    def _tell(self, flight: RolloutRecord, text: str) -> None:
        self.environment.event("note", text, flight.commit, state=flight.state)


def _running(spec: Service, command: str) -> Service:
    import msgspec

    return msgspec.structs.replace(spec, command=command)


def _boot() -> str:
    from lapwing.agent.state import boot_id

    return boot_id()


def _words(found: analysis.Judgement, enough: int) -> str:
    if found.requests < enough:
        return f"{found.requests} requests in the window: too few to judge by"
    p95 = "" if found.p95 is None else f", p95 {found.p95 * 1000:.0f} ms"
    return f"{found.requests} requests, {found.error_rate:.1%} errors{p95}"
