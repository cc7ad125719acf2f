"""The generations of a service: which one is in which slot and role.

    candidate -> active -> warm -> draining -> stopped
                   ^         |
                   +---------+   a rollback: a change of route, no boot

Each service has two slots, and one generation with live traffic. `switch` makes every candidate of
a rollout active and every generation they replace warm, in one call, so the route table derived
from the state afterwards moves all services or none. A warm generation whose slot has a candidate
stays until that is switched to. It does not stop at once: it drains until its last request,
websocket or stream has ended, or until its deadline.

The functions here change the state they are given and do no I/O.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Mapping

import msgspec

from lapwing.agent.processes import SUCCESS
from lapwing.agent.state import EnvironmentState, Generation, Replica, RolloutRecord, Slot
from lapwing.plan.model import Service

MIN_DRAIN = 2.0
"""The least seconds that a generation drains: Envoy's workers apply a new route table shortly after
its main thread has confirmed it."""
CRASH_LOOP = 3
"""Exits of a replica without a steady run in between that count as a crash loop."""
UNHEALTHY_REPORTS = 3
"""A ready replica is not ready after this many reports in a row that it is unhealthy. Envoy checks
unhealthy replicas each second, and is late on a busy machine."""


def idle_slot(state: EnvironmentState, service: str) -> Slot:
    """Return the slot for a new candidate of a service: never the active one."""
    active = state.of(service, "active")
    return "green" if active is not None and active.slot == "blue" else "blue"


def add_candidate(
    state: EnvironmentState, service: str, spec: Service, ports: Iterable[int], now: float
) -> Generation:
    """Create a generation in the idle slot.

    A warm one in that slot stays until the switch, as the target of the next rollback in case the
    candidate is rejected or aborted; one that is not usable starts to drain.
    """
    warm = state.of(service, "warm")
    if warm is not None and not is_usable(warm):
        start_draining(warm, now)
    generation = Generation(
        number=state.next_number,
        service=service,
        slot=idle_slot(state, service),
        role="candidate",
        spec=spec,
        replicas=[Replica(index=i, port=port) for i, port in enumerate(ports)],
    )
    state.next_number += 1
    state.generations.append(generation)
    return generation


def create_candidates(
    state: EnvironmentState, rollout: RolloutRecord, port: Callable[[Service], int], now: float
) -> None:
    """Create a candidate for every changed service that has none.

    A service whose release is still warm reuses the warm generation; if that is gone (it expired,
    the machine rebooted), a new one is created. Idempotent.
    """
    for service in rollout.services_with("switch"):
        warm = state.of(service, "warm")
        wanted = rollout.document.services[service]
        if warm is not None and warm.spec.identity() == wanted.identity():
            if service not in rollout.candidates:
                rollout.candidates[service] = warm.number
                for replica in warm.replicas:
                    replica.restarts = replica.crashes = 0
            count = wanted.replicas - len(warm.replicas)
            warm.replicas += new_replicas(state, warm, count, functools.partial(port, wanted))
    for service in sorted({*rollout.services_with("start"), *rollout.services_with("switch")}):
        spec = rollout.document.services[service]
        number = rollout.candidates.get(service)
        if spec.kind == "job" or (number is not None and state.numbered(number) is not None):
            continue
        active = state.of(service, "active")
        count = spec.replica_count(len(active.replicas) if active else 0)
        ports = distinct_ports([], count, functools.partial(port, spec))
        rollout.candidates[service] = add_candidate(state, service, spec, ports, now).number


def new_replicas(
    state: EnvironmentState, generation: Generation, count: int, port: Callable[[], int]
) -> list[Replica]:
    """Return `count` more replicas for a generation, which are not in it yet.

    No replica of the generation has the same index, including those that drain or are stopping.
    """
    parts = [g for g in state.with_processes if g.number == generation.number]
    used = {r.index for g in parts for r in g.replicas}
    free = (i for i in itertools.count() if i not in used)
    ports = distinct_ports((r.port for r in generation.replicas), count, port)
    return [Replica(index=i, port=p) for i, p in zip(free, ports, strict=False)]


def split_off(state: EnvironmentState, generation: Generation, count: int) -> None:
    """Drain `count` replicas of a generation, beginning with those that are not ready.

    They become a generation with the same number, and keep their processes and cluster. Their
    deadline begins when Envoy has the change (`split_parts`).
    """
    order = sorted(generation.replicas, key=lambda r: (r.ready, -r.index))
    surplus = order[:count]
    generation.replicas = [r for r in generation.replicas if r not in surplus]
    part = msgspec.structs.replace(generation, replicas=surplus, role="draining", deadline=None)
    state.generations.append(part)


def split_parts(state: EnvironmentState) -> list[Generation]:
    """Return the replicas that were split off a generation and whose deadline has not begun."""
    return [g for g in state.generations if g.role == "draining" and g.deadline is None]


def distinct_ports(taken: Iterable[int], count: int, port: Callable[[], int]) -> list[int]:
    """Return `count` new ports that differ from each other and from those taken.

    0 (no port) may repeat.
    """
    known, found = set(taken), list[int]()
    while len(found) < count:
        new = port()
        if new == 0 or new not in known:
            known.add(new)
            found.append(new)
    return found


def switch(state: EnvironmentState, rollout: RolloutRecord, now: float) -> None:
    """Make every candidate active, and the generation that it replaces warm. Idempotent.

    Candidates get the settings of the rollout's document.
    """
    for service in sorted({*rollout.candidates, *rollout.services_with("remove")}):
        number = rollout.candidates.get(service)
        active = state.of(service, "active")
        if (active.number if active else None) == number:
            continue
        candidate = state.numbered(number) if number is not None else None
        if number is not None and candidate is None:
            continue
        for warm in [g for g in state.generations if g.service == service and g.role == "warm"]:
            if warm is not candidate:
                start_draining(warm, now)
        if active is not None:
            rollout.previous[service] = active.number
            active.role = "warm"
            active.deadline = now + active.spec.rollout.keep_old
        if candidate is not None:
            candidate.role = "active"
            candidate.deadline = None
            candidate.spec = rollout.document.services.get(service, candidate.spec)
    rollout.is_switched = True
    _apply_settings(state, rollout, rollout.document.services)


def switch_back(state: EnvironmentState, rollout: RolloutRecord, now: float) -> None:
    """Make the previous generations active again, if they were switched.

    Candidates that had traffic drain; the others stay candidates, to be retired. Idempotent.
    """
    for number in rollout.candidates.values():
        candidate = state.numbered(number)
        if candidate is not None and candidate.role == "active":
            start_draining(candidate, now)
    for number in rollout.previous.values():
        old = state.numbered(number)
        if old is not None:
            old.role = "active"
            old.deadline = None
    rollout.previous.clear()
    rollout.is_switched = False
    _apply_settings(state, rollout, state.document.services if state.document else {})


def _apply_settings(
    state: EnvironmentState, rollout: RolloutRecord, services: Mapping[str, Service]
) -> None:
    """Apply the settings of `services` to the services whose processes stay."""
    for name in rollout.services_with("adjust"):
        active = state.of(name, "active")
        if active is not None and name in services:
            active.spec = services[name]


def start_draining(generation: Generation, now: float) -> None:
    """Make a generation drain until its deadline."""
    generation.role = "draining"
    generation.deadline = now + max(generation.spec.rollout.drain, MIN_DRAIN)


def drain_by(generation: Generation, latest: float) -> None:
    """Make a generation drain until `latest`, or until its earlier deadline if it drains."""
    if generation.role != "draining" or generation.deadline is None:
        generation.deadline = latest
    generation.role = "draining"
    generation.deadline = min(generation.deadline, latest)


def expired(state: EnvironmentState, now: float) -> list[Generation]:
    """Return the warm generations whose deadline has passed and that no rollout refers to."""
    referenced = _referenced(state)
    return [
        g
        for g in state.generations
        if g.role == "warm"
        and g.number not in referenced
        and g.deadline is not None
        and g.deadline < now
    ]


def lost_at_boot(state: EnvironmentState) -> list[Generation]:
    """Return the generations that are dropped after a reboot.

    These are draining and warm ones, except those that a rollout in progress may switch to.
    """
    referenced = _referenced(state)
    return [
        g
        for g in state.generations
        if g.role == "draining" or (g.role == "warm" and g.number not in referenced)
    ]


def forget_processes(state: EnvironmentState) -> None:
    """Forget every process id after a reboot: another process may have it now."""
    for replica in (r for g in state.generations for r in g.replicas):
        replica.pid, replica.ready = None, False
    state.resources.clear()


def _referenced(state: EnvironmentState) -> set[int]:
    """Return the numbers of the generations that a rollout in progress refers to."""
    rollout = state.rollout
    return {*rollout.candidates.values(), *rollout.previous.values()} if rollout else set()


def drained(
    state: EnvironmentState, active: Mapping[str, Mapping[int, int]], now: float
) -> list[Generation]:
    """Return the draining generations that may stop.

    No request is in progress, or the deadline has passed. `active` are the requests in progress by
    cluster and port.
    """
    done = []
    for generation in state.generations:
        if generation.role != "draining" or generation.deadline is None:
            continue
        began = generation.deadline - max(generation.spec.rollout.drain, MIN_DRAIN)
        counted = active.get(state.cluster_name(generation), {})
        quiet = not any(counted.get(r.port) for r in generation.replicas)
        if now > generation.deadline or (quiet and now > began + MIN_DRAIN):
            done.append(generation)
    return done


def instability(generation: Generation) -> str | None:
    """Return why a generation that was healthy is not any more, None if it is still healthy.

    A restart counts even if the replica is ready again. A worker may exit with status 0.
    """
    for replica in generation.replicas:
        if has_finished(generation, replica):
            continue
        if replica.restarts:
            return f"a replica {replica.last_exit or 'was restarted'}"
        if not replica.ready:
            return "a replica is not ready"
    return None


def has_finished(generation: Generation, replica: Replica) -> bool:
    """Return whether the last exit of a replica was that of a worker that ended its work."""
    return generation.spec.kind == "worker" and replica.last_exit == SUCCESS


def is_usable(generation: Generation) -> bool:
    """Return whether a warm generation can receive traffic at once: every replica is ready."""
    return all(r.pid is not None and r.ready for r in generation.replicas)


def is_crashing(generation: Generation) -> bool:
    """Return whether a replica is in a crash loop or is not ready after it exited."""
    return any(r.crashes >= CRASH_LOOP or (r.crashes and not r.ready) for r in generation.replicas)


def crash_loops(state: EnvironmentState) -> list[Generation]:
    """Return the active generations with a replica in a crash loop that can be rolled back.

    That is while the generation before them is warm and usable, unless the analysis is turned off
    (a worker has none).
    """
    return [
        g
        for g in state.generations
        if g.role == "active"
        and (g.spec.kind == "worker" or g.spec.rollout.analysis is not None)
        and any(r.crashes >= CRASH_LOOP for r in g.replicas)
        and (warm := state.of(g.service, "warm")) is not None
        and is_usable(warm)
    ]


def update_readiness(
    state: EnvironmentState,
    generations: Iterable[Generation],
    health: Mapping[str, Mapping[int, bool]],
    doubted: dict[int, int],
) -> bool:
    """Set each running replica's readiness to the proxy's; returns whether one changed.

    A replica that is unknown to the proxy keeps its readiness. One that is ready keeps it until
    the proxy reports it as unhealthy `UNHEALTHY_REPORTS` times in a row, because the proxy checks a
    restarted replica after the agent. `doubted` counts these reports by port; it is updated.
    """
    changed, before = False, dict(doubted)
    doubted.clear()
    for generation in generations:
        known = health.get(state.cluster_name(generation), {})
        for replica in generation.replicas:
            ready = known.get(replica.port, replica.ready)
            if replica.pid is None or replica.ready is ready:
                continue
            found = before.get(replica.port, 0) + 1
            if not ready and found < UNHEALTHY_REPORTS:
                doubted[replica.port] = found
            else:
                replica.ready, changed = ready, True
    return changed
