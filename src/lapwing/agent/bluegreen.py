"""Blue-green: which generation of a service is in which slot and role. Pure, but for the state
that it is handed and changes.

    candidate -> active -> warm -> draining -> gone
                   ^         |
                   +---------+   a rollback: a change of route, no boot

Each service has two slots, and one generation with live traffic. A switch makes every candidate of
a rollout active and every generation they replace warm, in one call, so the route table that is
made from the state afterwards moves all services or none. A warm generation that has to leave its
slot for a new candidate does not stop: it drains until its last request, websocket or stream has
ended, or its deadline is over.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping

from lapwing.agent.proxy.model import Cluster, Counters, Route, VirtualHost
from lapwing.agent.state import EnvironmentState, Generation, Replica, RolloutRecord, Slot
from lapwing.plan.model import Document, Service

MIN_DRAIN = 2.0
"""Seconds that a draining generation stays at least: Envoy's workers take a new route table a
moment after its main thread has confirmed it."""


def idle_slot(state: EnvironmentState, service: str) -> Slot:
    """The slot that a new candidate of a service goes to: never the active one."""
    active = state.of(service, "active")
    return "green" if active is not None and active.slot == "blue" else "blue"


def add_candidate(
    state: EnvironmentState, service: str, spec: Service, ports: Iterable[int], now: float
) -> Generation:
    """Put a new generation in the idle slot; a warm one that is there begins to drain."""
    warm = state.of(service, "warm")
    if warm is not None:
        drain(warm, now)
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


def nominate(
    state: EnvironmentState, rollout: RolloutRecord, port: Callable[[Service], int], now: float
) -> None:
    """Give every service that is to change a candidate, if it has none. Where a warm generation
    was to be switched to and is gone (its time was over, the machine was booted), a new one takes
    its part. Doing it twice changes nothing."""
    for service in rollout.having("switch"):
        warm = state.of(service, "warm")
        wanted = rollout.document.services[service]
        if warm is not None and warm.spec.identity() == wanted.identity():
            rollout.candidates.setdefault(service, warm.number)
            more = range(len(warm.replicas), wanted.replicas)
            ports = different(
                [r.port for r in warm.replicas], len(more), functools.partial(port, wanted)
            )
            warm.replicas += [Replica(index=i, port=p) for i, p in zip(more, ports, strict=True)]
    for service in sorted({*rollout.having("start"), *rollout.having("switch")}):
        spec = rollout.document.services[service]
        number = rollout.candidates.get(service)
        if spec.kind == "job" or (number is not None and state.numbered(number) is not None):
            continue
        ports = different([], spec.replicas, functools.partial(port, spec))
        rollout.candidates[service] = add_candidate(state, service, spec, ports, now).number


def different(taken: Iterable[int], count: int, port: Callable[[], int]) -> list[int]:
    """This many new ports, no two the same and none taken; 0 (no port) may repeat."""
    known, found = set(taken), list[int]()
    while len(found) < count:
        new = port()
        if new == 0 or new not in known:
            known.add(new)
            found.append(new)
    return found


def switch(state: EnvironmentState, rollout: RolloutRecord, now: float) -> None:
    """Make every candidate active, with the settings that are wanted now, and what it replaces
    warm. Doing it twice changes nothing."""
    for service in sorted({*rollout.candidates, *rollout.having("remove")}):
        number = rollout.candidates.get(service)
        active = state.of(service, "active")
        if (active.number if active else None) == number:
            continue
        candidate = state.numbered(number) if number is not None else None
        if number is not None and candidate is None:
            continue
        for warm in [g for g in state.generations if g.service == service and g.role == "warm"]:
            if warm is not candidate:
                drain(warm, now)
        if active is not None:
            rollout.previous[service] = active.number
            active.role = "warm"
            active.deadline = now + active.spec.rollout.keep_old
        if candidate is not None:
            candidate.role = "active"
            candidate.deadline = None
            candidate.spec = rollout.document.services.get(service, candidate.spec)
    _adjust(state, rollout, rollout.document.services)


def switch_back(state: EnvironmentState, rollout: RolloutRecord, now: float) -> None:
    """Give the traffic back to what had it before, if it was switched. Candidates that had traffic
    drain; the others stay candidates, to be retired. Doing it twice changes nothing."""
    for number in rollout.candidates.values():
        candidate = state.numbered(number)
        if candidate is not None and candidate.role == "active":
            drain(candidate, now)
    for number in rollout.previous.values():
        old = state.numbered(number)
        if old is not None:
            old.role = "active"
            old.deadline = None
    rollout.previous.clear()
    _adjust(state, rollout, state.document.services if state.document else {})


def _adjust(
    state: EnvironmentState, rollout: RolloutRecord, services: Mapping[str, Service]
) -> None:
    """Give the services whose processes stay the settings that `services` says."""
    for name in rollout.having("adjust"):
        active = state.of(name, "active")
        if active is not None and name in services:
            active.spec = services[name]


def drain(generation: Generation, now: float) -> None:
    """Begin to drain a generation."""
    generation.role = "draining"
    generation.deadline = now + max(generation.spec.rollout.drain, MIN_DRAIN)


def expired(state: EnvironmentState, now: float) -> list[Generation]:
    """The warm generations whose time is over and that no rollout in flight refers to."""
    held = _held(state)
    return [
        g
        for g in state.generations
        if g.role == "warm" and g.number not in held and g.deadline is not None and g.deadline < now
    ]


def lost_at_boot(state: EnvironmentState) -> list[Generation]:
    """The generations that a reboot has ended for good: warm and draining ones, but for those that
    a rollout in flight goes to or may have to go back to."""
    held = _held(state)
    return [
        g
        for g in state.generations
        if g.role == "draining" or (g.role == "warm" and g.number not in held)
    ]


def _held(state: EnvironmentState) -> set[int]:
    """The generations that a rollout in flight refers to."""
    flight = state.rollout
    return {*flight.candidates.values(), *flight.previous.values()} if flight else set()


def finished(
    state: EnvironmentState, counters: Mapping[str, Counters], now: float
) -> list[Generation]:
    """The draining generations that may stop: no request is left, or their time is over."""
    done = []
    for generation in state.generations:
        if generation.role != "draining" or generation.deadline is None:
            continue
        began = generation.deadline - max(generation.spec.rollout.drain, MIN_DRAIN)
        counted = counters.get(cluster_name(state, generation))
        quiet = counted is None or counted.active_requests == 0
        if now > generation.deadline or (quiet and now > began + MIN_DRAIN):
            done.append(generation)
    return done


def hear(
    state: EnvironmentState,
    generations: Iterable[Generation],
    health: Mapping[str, Mapping[int, bool]],
) -> bool:
    """Set each running replica's readiness to what the proxy says of it; whether one changed. A
    replica that the proxy does not know stays as it is."""
    changed = False
    for generation in generations:
        known = health.get(cluster_name(state, generation), {})
        for replica in generation.replicas:
            ready = known.get(replica.port, replica.ready)
            if replica.pid is not None and replica.ready is not ready:
                replica.ready, changed = ready, True
    return changed


def cluster_name(state: EnvironmentState, generation: Generation) -> str:
    """Envoy's name for a generation, never used for another."""
    return f"{state.stack}/{state.environment}/{generation.service}/{generation.label}"


def clusters(state: EnvironmentState) -> list[Cluster]:
    """Every generation that has a port, as Envoy has to know it."""
    return [
        Cluster(
            name=cluster_name(state, g),
            ports=tuple(r.port for r in g.replicas),
            health_path="/" if g.spec.kind == "static" else g.spec.health.path,
            health_interval=g.spec.health.interval,
            health_timeout=g.spec.health.timeout,
        )
        for g in state.generations
        if g.spec.kind in ("web", "static") and g.replicas
    ]


def virtual_hosts(states: Iterable[EnvironmentState]) -> tuple[VirtualHost, ...]:
    """All routes of all environments. The only environment also answers on plain `localhost`."""
    known = [s for s in states if s.generations]
    hosts: list[VirtualHost] = []
    for state in known:
        domains = list(_domains(state))
        preview = [f"preview.{d}" for d in domains]
        if len(known) == 1:
            domains += ["localhost", "127.0.0.1", "[::1]"]
        name = f"{state.stack}/{state.environment}"
        hosts.append(VirtualHost(name, tuple(domains), _routes(state, preview=False)))
        hosts.append(VirtualHost(f"{name}/preview", tuple(preview), _routes(state, preview=True)))
    return tuple(hosts)


def _domains(state: EnvironmentState) -> tuple[str, ...]:
    """The host names in use; during a rollout also those that it brings, so that its preview host
    can be tested and they answer from the switch on."""
    documents = [state.document, state.rollout.document if state.rollout else None]
    return tuple(dict.fromkeys(d for known in documents if known for d in known.domains))


def taken_domain(
    states: Iterable[EnvironmentState], own: EnvironmentState, document: Document
) -> tuple[str, str] | None:
    """A host name that a document wants and another environment has, and which one has it: Envoy
    refuses a table in which two stacks have the same name, for all of them."""
    for state in states:
        if state is not own and state.generations:
            for domain in _domains(state):
                if domain in document.domains:
                    return domain, f"{state.stack}/{state.environment}"
    return None


def _previewed(state: EnvironmentState, service: str) -> Generation | None:
    """What the preview host shows of a service in place of the active generation: during a
    rollout its candidate, so tests meet what clients will; else what one could go back to."""
    if state.rollout is None:
        return state.of(service, "warm")
    number = state.rollout.candidates.get(service)
    found = state.numbered(number) if number is not None else None
    return found if found is not None and found.role in ("candidate", "warm") else None


def _routes(state: EnvironmentState, *, preview: bool) -> tuple[Route, ...]:
    routes = []
    for service in sorted({g.service for g in state.generations}):
        chosen = state.of(service, "active")
        if preview:
            chosen = _previewed(state, service) or chosen
        if chosen is None or chosen.spec.route is None:
            continue
        prefix = re.sub(r"(?<=.)/$", "", chosen.spec.route)
        routes.append(Route(prefix, cluster_name(state, chosen), chosen.spec.timeout))
    return tuple(sorted(routes, key=lambda r: (-len(r.prefix), r.prefix)))
