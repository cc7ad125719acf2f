"""What an environment does outside of rollouts: recover after a restart, drain, expire, clean up.

Every method can be repeated: a crash may come between any two of them.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

from lapwing.agent import (
    generations,
    one_off,
    process_tree,
    processes,
    state,
    termination,
)
from lapwing.agent.advice import Advice
from lapwing.agent.context import Context
from lapwing.agent.launch import JOB_LABEL, Launcher
from lapwing.agent.processes import Identity
from lapwing.agent.replicas import Replicas
from lapwing.agent.resources.servers import Servers
from lapwing.agent.scaler import Scaler
from lapwing.agent.state import Generation, JobRun
from lapwing.agent.stopping import Stopping
from lapwing.agent.store import Store
from lapwing.errors import LapwingError
from lapwing.observed.logs import TimeKeeper
from lapwing.plan.model import Service

SCAN_INTERVAL_S = 30.0
"""Time between two searches for files that replicas wrote into their release."""
DOWN_DRAIN_S = 10.0
"""How long connections may take to end on `lapwing down`."""
UNREMOVED = (
    "Stopped containers of {} could not be removed; the agent removes them when the container "
    "engine is running again."
)


class Maintenance:
    """Maintains the processes and the routes of one environment between rollouts."""

    def __init__(
        self,
        context: Context,
        store: Store,
        launcher: Launcher,
        replicas: Replicas,
        servers: Servers,
    ) -> None:
        self.state = store.state
        self._context = context
        self._store = store
        self._launcher = launcher
        self._replicas = replicas
        self._servers = servers
        self.stopping = Stopping(store, launcher, replicas, self._note_unremoved)
        self.scaler = Scaler(context, store, replicas, self.stopping)
        self._prefix = f"{self.state.stack}/{self.state.environment}/"
        self.advice = Advice(context, store, launcher)
        self._scanned = -math.inf
        self._doubted = dict[int, int]()
        """How often in a row Envoy reported a ready replica as unhealthy, by port."""
        self._log_times = TimeKeeper()

    # After a restart of the agent

    async def adopt(self) -> None:
        """Drop the generations that a reboot ended, and kill the processes of no running replica.

        A process belongs to a replica by its mark, so the helpers of a running one are kept.
        """
        boot = state.boot_id()
        if self.state.boot != boot:
            self.state.boot = boot
            for generation in generations.lost_at_boot(self.state):
                self.state.generations.remove(generation)
            self.state.stopping.clear()
            generations.forget_processes(self.state)
        known = {
            str(self._launcher.owner(g.service, g.label, r.index))
            for g in self.state.generations
            for r in g.replicas
            if r.pid is not None and processes.alive(Identity(r.pid, r.started))
        }
        known |= {
            str(self._launcher.owner(g.service, g.label, r.index))
            for g in self.state.stopping
            for r in g.replicas
        }
        known |= {
            owner
            for owner, run in self._runs().items()
            if run.pid is not None
            and (run.spec.container or processes.alive(Identity(run.pid, run.started)))
        }
        running = await asyncio.to_thread(
            lambda: [*process_tree.owned(self._context.settings.home)]
        )
        for identity, owner in running:
            resource = owner.split("/")[3:4] == ["resource"]
            if resource or one_off.is_running(owner):
                continue
            if owner.startswith(self._prefix) and owner not in known:
                await termination.kill(identity, f"{self._context.settings.home}|{owner}")
        self.state.has_containers |= self._uses_containers
        if self.state.has_containers:
            await self._remove_containers(lambda o: o in known or self._is_needed_resource(o))

    def _runs(self) -> dict[str, JobRun]:
        """Return the runs of scheduled jobs in progress, by owner."""
        return {str(self._launcher.owner(n, JOB_LABEL)): r for n, r in self.state.runs.items()}

    @property
    def _running_specs(self) -> list[Service]:
        """The specifications of running replicas and scheduled jobs."""
        runs = self.state.runs.values()
        return [*(g.spec for g in self.state.with_processes), *(run.spec for run in runs)]

    @property
    def _uses_containers(self) -> bool:
        """Whether a service runs in a container, or did when the agent was last running."""
        rollout = self.state.rollout
        documents = [self.state.document, rollout.document if rollout else None]
        return (
            any(d is not None and d.uses_containers for d in documents)
            or any(spec.container is not None for spec in self._running_specs)
            or any(r.container is not None for r in self.state.resources.values())
        )

    async def _remove_containers(self, known: Callable[[str], bool]) -> None:
        """Remove the containers that are not `known`; if that fails, `tick` tries again."""
        before = self._store.engine_problem
        try:
            await self._context.runtimes.containers.remove_unknown(
                self._prefix, lambda owner: one_off.is_running(owner) or known(owner)
            )
            self._store.engine_problem = None
            self.state.has_containers = self._uses_containers
            self._store.save_soon()
        except LapwingError as error:
            self._store.engine_problem = UNREMOVED.format(self._prefix.rstrip("/"))
            if before is None:
                self._store.event("agent", f"{error.message} {error.hint or ''}".strip())
                self._store.update_status()

    def _note_unremoved(self) -> None:
        """Report containers that could not be removed, so that `down` reads it from the status."""
        if self._context.runtimes.containers.unremoved(self._prefix):
            self._store.engine_problem = UNREMOVED.format(self._prefix.rstrip("/"))

    async def _remove_ended_containers(self) -> None:
        """Retry failed removals of containers; after `down`, remove all that remain."""
        unremoved = self._context.runtimes.containers.unremoved(self._prefix)
        ended = self.state.has_containers and not self._uses_containers
        if (ended or unremoved or self._store.engine_problem) and not self.state.is_deploying:
            await self._remove_containers(self._is_known)

    def _is_known(self, owner: str) -> bool:
        """Return whether a container may be needed, as one of a job during a rollout is."""
        return (
            self.state.is_deploying
            or owner in self._runs()
            or self._is_needed_resource(owner)
            or any(
                owner == str(self._launcher.owner(g.service, g.label, r.index))
                for g in self.state.with_processes
                for r in g.replicas
            )
        )

    def _is_needed_resource(self, owner: str) -> bool:
        """Return whether this is the server of a resource that is running or has to run."""
        _, _, name, label, *_ = owner.split("/")
        return label == "resource" and (name in self.state.resources or name in self._needed)

    async def restore(self) -> None:
        """Start what should be running after a crash or a reboot: databases, replicas, routes."""
        document = self.state.document
        rollout = self.state.rollout
        if document is not None:
            for name, resource in document.resources.items():
                try:
                    await self._servers.ensure(name, resource)
                except LapwingError as error:
                    self._store.event("resource", str(error))
                    self._servers.retry(name, resource)
        for generation in self.state.generations:
            candidate = rollout is not None and generation.number in rollout.candidates.values()
            if not (candidate and generation.role in ("candidate", "warm")):
                self._replicas.adopt(generation)
        self.stopping.adopt()
        try:
            await self._context.publisher.publish()
        except LapwingError as error:
            self._store.problem = str(error)
        if rollout is not None and self._uses_containers:
            await self._context.runtimes.containers.wait_for_engine(
                lambda reason: self._store.event("agent", reason, rollout.commit)
            )

    # After a rollout

    async def tidy(self) -> None:
        """Complete a rollout or a restart; when everything is to stop, drain it.

        Removes preview routes and unused host names, and drains surplus replicas; after `down` also
        one-off commands.
        """
        document = self.state.document
        down = (
            document is not None
            and not document.services
            and document.deployment.kind in ("down", "restore")
        )
        if down and self.state.generations:
            latest = time.monotonic() + DOWN_DRAIN_S
            for generation in self.state.generations:
                generations.drain_by(generation, latest)
            await self._store.save()
        if down:
            containers = self._context.runtimes.containers
            await one_off.stop_all(self._context.settings, containers, self._prefix)
        self.scaler.remove_surplus()
        await self._store.save()
        await self._context.publisher.publish()

    async def retire(self, retired: list[Generation]) -> None:
        """Remove generations without traffic from Envoy, then begin to stop their processes.

        Raises ProxyError; then `tick` tries again. Until Envoy confirms it, they have no deadline.
        """
        for generation in [g for g in retired if g in self.state.generations]:
            self.state.generations.remove(generation)
            generation.deadline = None
            self.state.stopping.append(generation)
        await self._store.save()
        await self._context.publisher.publish()
        await self.stopping.begin(retired)

    # Every few seconds

    @property
    def needs_tick(self) -> bool:
        """Whether anything has to be checked at every tick.

        That is a deadline, a draining generation, a problem, or a replica that is not ready or that
        Envoy finds unhealthy.
        """
        changing = bool(self.state.retiring) or any(
            g.role in ("warm", "draining") or not all(r.ready for r in g.replicas)
            for g in self.state.generations
        )
        return changing or bool(self._doubted) or self._store.problem is not None

    async def tick(self) -> None:
        """Maintain what is running. Raises ProxyError.

        Retries publishing, reads health from Envoy, drains what has expired, retires what has
        drained.
        """
        now = time.monotonic()
        if self._store.problem is not None and not self.state.is_deploying:
            await self._context.publisher.publish()
        await self._update_readiness()
        if not self.state.is_deploying:
            self._store.problem = None
        if parts := generations.split_parts(self.state):
            await self._context.publisher.publish()
            for part in parts:
                generations.start_draining(part, time.monotonic())
        for generation in generations.expired(self.state, now):
            generations.start_draining(generation, now)
        draining = [g for g in self.state.generations if g.role == "draining"]
        if draining:
            active = await self._context.publisher.envoy.admin.active_requests()
            done = generations.drained(self.state, active, now)
            if done:
                await self.retire(done)
        if self.state.retiring:
            await self.retire(self.state.retiring)
        self.stopping.proceed()
        self._stop_unneeded_servers()
        await self._remove_ended_containers()
        self._launcher.record_active()
        if now - self._scanned >= SCAN_INTERVAL_S:
            self._scanned = now
            for generation in [g for g in self.state.generations if g.role == "active"]:
                await self.advice.report_written(generation)
                await self.advice.report_public_port(generation)

    async def _update_readiness(self) -> None:
        """Take over Envoy's health status, so that a replica that hangs is not reported ready."""
        served = [g for g in self.state.generations if g.role in ("active", "warm")]
        if served:
            health = await self._context.publisher.envoy.admin.health()
            if generations.update_readiness(self.state, served, health, self._doubted):
                self._store.update_status()

    def _stop_unneeded_servers(self) -> None:
        """Stop the servers of resources that no document and no generation needs any more."""
        self._servers.stop_all_but(self._needed)

    @property
    def _needed(self) -> set[str]:
        """The resources that a document or a generation needs."""
        documents = [self.state.document]
        if self.state.rollout is not None:
            documents.append(self.state.rollout.document)
        needed = {n for d in documents if d is not None for n in d.resources}
        return needed | {n for spec in self._running_specs for n in spec.needs}

    async def note_log_times(self) -> None:
        """Note when the logs of replicas, databases and jobs were written, for `lapwing logs`."""
        found = [
            (self._launcher.log_of(g, r), g.spec.release)
            for g in self.state.with_processes
            for r in g.replicas
        ]
        found += [(self._launcher.server_log(n), "-") for n in self.state.resources]
        found += [
            (self._launcher.job_log(name, run.log), run.spec.release)
            for name, run in self.state.runs.items()
        ]
        if rollout := self.state.rollout:
            found += [
                (self._launcher.job_log(name, rollout.commit), service.release)
                for name, service in rollout.document.services.items()
                if service.kind == "job"
            ]
        if found:
            await asyncio.to_thread(self._log_times.note, found)
