"""Slots and roles: any sequence of deployments, failures, rollbacks, reboots and waits.

The machine below does what the driver does with the pure parts, in any order and at any time, and
after each act the promises about slots and routes must hold.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lapwing.agent import generations, publisher
from lapwing.agent.decide import Intent, decide
from lapwing.agent.generations import CRASH_LOOP, crash_loops, instability
from lapwing.agent.rollout import State
from lapwing.agent.state import EnvironmentState, Replica, Role, RolloutRecord
from lapwing.plan.model import Analysis, Document, Rollout, Scale, Service
from tests.unit.agent.samples import document, environment, generation, rollout, service

NAMES = ("api", "web", "mailer")


@st.composite
def documents(draw: st.DrawFn) -> Document:
    """A document of up to three services, with few releases, so that old ones come back."""
    services: dict[str, Service] = {}
    for name in draw(st.sets(st.sampled_from(NAMES))):
        worker = name == "mailer"
        services[name] = service(
            draw(st.sampled_from((f"{name}-1", f"{name}-2"))),
            kind="worker" if worker else "web",
            route=None if worker else draw(st.sampled_from((f"/{name}", f"/{name}/v2/"))),
            replicas=draw(st.integers(1, 3)),
            rollout=Rollout(drain=draw(st.sampled_from((0.0, 60.0)))),
        )
    return document(draw(st.sampled_from(("deploy", "rollback", "down"))), **services)


class Slots(RuleBasedStateMachine):
    """An environment, driven."""

    def __init__(self) -> None:
        super().__init__()
        self.state: EnvironmentState = environment()
        self.now = 1000.0
        self._ports = itertools.count(20000)

    @property
    def flight(self) -> RolloutRecord:
        assert self.state.rollout is not None
        return self.state.rollout

    def _twice(self, act: str, *arguments: object) -> None:
        """Do an act, then once more, which has to change nothing: so a kill between is harmless."""
        getattr(generations, act)(self.state, self.flight, *arguments)
        once = copy.deepcopy(self.state)
        getattr(generations, act)(self.state, self.flight, *arguments)
        assert self.state == once

    def _live(self) -> list[tuple[str, str | None]]:
        return [
            (r.prefix, r.cluster)
            for h in publisher.virtual_hosts([self.state])
            if not h.name.endswith("/preview")
            for r in h.routes
        ]

    @precondition(lambda self: self.state.rollout is None)
    @rule(wanted=documents())
    def begin(self, wanted: Document) -> None:
        if decide(wanted, self.state).intent is Intent.ROLL_OUT:
            rollout(wanted, self.state)

    @precondition(lambda self: self.state.rollout and not self.state.rollout.candidates)
    @rule()
    def start(self) -> None:
        before = self._live()
        self._twice("create_candidates", lambda _spec: next(self._ports), self.now)
        assert self._live() == before
        for name, wanted in self.flight.document.services.items():
            number = self.flight.candidates.get(name)
            if number is not None:
                found = self.state.numbered(number)
                assert found is not None
                assert found.spec.identity() == wanted.identity()
                assert len(found.replicas) >= wanted.replicas
                assert len({r.port for r in found.replicas}) == len(found.replicas)

    def _nominated(self) -> bool:
        flight = self.state.rollout
        if flight is None:
            return False
        wanted = {*flight.services_with("start"), *flight.services_with("switch")}
        return wanted <= set(flight.candidates)

    @precondition(_nominated)
    @rule(succeeds=st.booleans())
    def switch_and_end(self, succeeds: bool) -> None:
        before = self._live()
        self._twice("create_candidates", lambda _spec: next(self._ports), self.now)
        self._twice("switch", self.now)
        wanted = self.flight.document
        for name, spec in wanted.services.items():
            active = self.state.of(name, "active")
            assert active is not None
            assert active.spec == spec
        actives = {g.service for g in self.state.generations if g.role == "active"}
        assert actives == set(wanted.services)
        if not succeeds:
            self.undo(before)
            return
        self.state.document, self.state.rollout = wanted, None
        assert decide(wanted, self.state).intent is Intent.NOTHING

    @precondition(lambda self: self.state.rollout is not None)
    @rule()
    def give_up(self) -> None:
        self.undo(self._live())

    def undo(self, before: list[tuple[str, str | None]]) -> None:
        """Routes are again what they were before the switch; nothing stays a candidate."""
        self._twice("switch_back", self.now)
        assert self._live() == before
        for number in self.flight.candidates.values():
            candidate = self.state.numbered(number)
            if candidate is not None and candidate.role == "candidate":
                self.state.generations.remove(candidate)
        self.state.rollout = None
        running = self.state.document
        for name, spec in running.services.items() if running else ():
            active = self.state.of(name, "active")
            assert active is not None
            assert active.spec == spec

    @rule(seconds=st.sampled_from((1.0, 5.0, 700.0)))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        for old in generations.expired(self.state, self.now):
            generations.start_draining(old, self.now)
        for old in generations.drained(self.state, {}, self.now):
            assert old.role == "draining"
            self.state.generations.remove(old)

    @rule()
    def reboot(self) -> None:
        for lost in generations.lost_at_boot(self.state):
            self.state.generations.remove(lost)

    @invariant()
    def one_active_and_one_slot_each(self) -> None:
        for name in NAMES:
            mine = [g for g in self.state.generations if g.service == name]
            for role in ("active", "warm", "candidate"):
                assert sum(g.role == role for g in mine) <= 1
            active = self.state.of(name, "active")
            others = [g for g in mine if g.role in ("candidate", "warm")]
            assert all(active is None or g.slot != active.slot for g in others)
        labels = [g.label for g in self.state.generations]
        assert len(set(labels)) == len(labels)

    @invariant()
    def routes_name_known_clusters_only(self) -> None:
        known = {c.name for c in publisher.clusters(self.state)}
        for host in publisher.virtual_hosts([self.state]):
            assert {r.cluster for r in host.routes} <= known

    @invariant()
    def what_runs_is_what_was_asked_for(self) -> None:
        if self.state.rollout is None:
            wanted = self.state.document.services if self.state.document else {}
            actives = {g.service for g in self.state.generations if g.role == "active"}
            assert actives == set(wanted)


TestSlots = Slots.TestCase
TestSlots.settings = settings(max_examples=150, stateful_step_count=25)


def test_all_services_switch_in_one_route_table() -> None:
    old = {n: service(f"{n}-1", route=f"/{n}") for n in ("api", "web")}
    new = {n: service(f"{n}-2", route=f"/{n}") for n in ("api", "web")}
    state = environment(
        *(generation(i, of=n, spec=s) for i, (n, s) in enumerate(old.items(), 1)),
        running=document(**old),
    )
    flight = rollout(document(**new), state)
    generations.create_candidates(state, flight, _ports(), 0.0)
    [live, preview] = publisher.virtual_hosts([state])
    assert [r.cluster for r in live.routes] == [
        "shop/local/api/blue-1",
        "shop/local/web/blue-2",
    ]
    assert [r.cluster for r in preview.routes] == [
        "shop/local/api/green-3",
        "shop/local/web/green-4",
    ]
    assert preview.authority == f"{flight.document.domains[0]}:8585"
    generations.switch(state, flight, 0.0)
    [after, no_preview] = publisher.virtual_hosts([state])
    assert after.routes == preview.routes
    assert no_preview.routes == ()
    assert no_preview.clients == preview.clients == ("127.0.0.0/8", "::1/128")


def _ports() -> Callable[[Service], int]:
    found = itertools.count(30000)
    return lambda _spec: next(found)


def test_preview_routes_to_the_candidates() -> None:
    """A service that does not change is previewed as it serves, not as it was before."""
    api, web = service("api-1", route="/api"), service("web-1", route="/web")
    state = environment(
        generation(1, of="api", spec=api),
        generation(2, of="web", spec=web, slot="green"),
        generation(3, of="web", spec=service("web-0", route="/web"), role="warm"),
        running=document(api=api, web=web),
    )
    preview = publisher.virtual_hosts([state])[1]
    assert preview.routes == ()
    flight = rollout(document(api=service("api-2", route="/api"), web=web), state)
    generations.create_candidates(state, flight, lambda _spec: 30000, 0.0)
    preview = publisher.virtual_hosts([state])[1]
    assert [r.cluster for r in preview.routes] == [
        "shop/local/api/green-4",
        "shop/local/web/green-2",
    ]


def test_removed_service_stays_warm_after_repeated_switch() -> None:
    state = environment(generation(1), running=document(api=service("api-1")))
    flight = rollout(document(), state)
    for _ in range(2):
        generations.switch(state, flight, 10.0)
        assert state.generations[0].role == "warm"
    generations.switch_back(state, flight, 20.0)
    assert state.generations[0].role == "active"


def test_warm_generation_gets_the_new_settings() -> None:
    old, new = service("api-1", route="/"), service("api-2", route="/v2")
    state = environment(
        generation(1, spec=old, role="warm"),
        generation(2, spec=new, slot="green"),
        running=document(api=new),
    )
    flight = rollout(document(api=service("api-1", route="/v2", replicas=2)), state)
    assert flight.verdicts == {"api": "switch"}
    generations.create_candidates(state, flight, lambda _spec: 30000, 0.0)
    assert [r.port for r in state.generations[0].replicas] == [20001, 30000]
    generations.switch(state, flight, 0.0)
    [live, _] = publisher.virtual_hosts([state])
    assert [(r.prefix, r.cluster) for r in live.routes] == [("/v2", "shop/local/api/blue-1")]


def test_missing_warm_generation_is_created_again() -> None:
    state = environment(
        generation(1, role="warm"),
        generation(2, slot="green"),
        running=document(api=service("api-2")),
    )
    flight = rollout(document("rollback", api=service("api-1")), state)
    del state.generations[0]
    generations.create_candidates(state, flight, lambda _spec: 30000, 0.0)
    assert flight.candidates == {"api": 3}
    generations.switch(state, flight, 0.0)
    active = state.of("api", "active")
    assert active is not None
    assert active.spec.release == "api-1"


def test_reboot_keeps_generations_of_a_rollout() -> None:
    state = environment(
        generation(1, role="warm"),
        generation(2, slot="green"),
        generation(3, of="web", role="warm"),
        generation(4, of="web", role="draining"),
        running=document(api=service("api-2")),
    )
    flight = rollout(document("rollback", api=service("api-1")), state)
    flight.candidates = {"api": 1}
    assert [g.number for g in generations.lost_at_boot(state)] == [3, 4]
    state.rollout = None
    assert [g.number for g in generations.lost_at_boot(state)] == [1, 3, 4]


def test_draining_generation_stays_until_its_last_request() -> None:
    old = generation(1)
    state = environment(old)
    generations.start_draining(old, 100.0)
    name = state.cluster_name(old)

    def gone(active: int, now: float) -> bool:
        return bool(generations.drained(state, {name: {20001: active}}, now))

    assert not gone(0, 101.9)
    assert gone(0, 102.1)
    assert not gone(1, 3699.0)
    assert gone(1, 3700.1)


@pytest.mark.parametrize(
    ("role", "deadline", "expected"),
    [
        ("active", None, 110.0),
        ("warm", 105.0, 110.0),
        ("draining", 3700.0, 110.0),
        ("draining", 105.0, 105.0),
        ("draining", None, 110.0),
    ],
)
def test_end_of_an_environment_limits_every_drain(
    role: Role, deadline: float | None, expected: float
) -> None:
    found = generation(1, role=role)
    found.deadline = deadline
    generations.drain_by(found, 110.0)
    assert (found.role, found.deadline) == ("draining", expected)


def test_zero_drain_time_waits_for_envoy_workers() -> None:
    old = generation(1, spec=service(rollout=Rollout(drain=0.0)))
    state = environment(old)
    generations.start_draining(old, 100.0)
    assert generations.drained(state, {}, 101.0) == []
    assert generations.drained(state, {}, 102.1) == [old]


@pytest.mark.parametrize(("known", "ready"), [({20001: False}, False), ({}, True)])
def test_readiness_follows_the_proxy(known: dict[int, bool], ready: bool) -> None:
    one = generation(1)
    state = environment(one)
    health, doubted = {state.cluster_name(one): known}, dict[int, int]()
    for _ in range(generations.UNHEALTHY_REPORTS - 1):
        assert not generations.update_readiness(state, [one], health, doubted)
        assert one.replicas[0].ready, "The proxy may not have checked it yet."
    assert generations.update_readiness(state, [one], health, doubted) is not ready
    assert one.replicas[0].ready is ready


def test_unhealthy_checks_that_do_not_follow_each_other_change_nothing() -> None:
    one = generation(1)
    state, doubted = environment(one), dict[int, int]()
    for healthy in (False, True, False, True):
        health = {state.cluster_name(one): {20001: healthy}}
        assert not generations.update_readiness(state, [one], health, doubted)
        assert doubted == ({} if healthy else {20001: 1})
    assert one.replicas[0].ready


def test_exited_replica_is_not_ready() -> None:
    one = generation(1)
    one.replicas[0].pid, one.replicas[0].ready = None, False
    state = environment(one)
    health = {state.cluster_name(one): {20001: True}}
    assert not generations.update_readiness(state, [one], health, {})
    assert not one.replicas[0].ready


def test_single_environment_serves_plain_localhost() -> None:
    one = environment(generation(1), running=document(api=service()))
    assert publisher.virtual_hosts([one])[0].domains == (
        "shop.localhost",
        "localhost",
        "127.0.0.1",
        "[::1]",
    )
    mill = msgspec.structs.replace(document(api=service()), domains=("mill.localhost",))
    other = environment(generation(1), running=mill)
    other.stack = "mill"
    hosts = publisher.virtual_hosts([one, other, environment()])
    assert all("localhost" not in h.domains for h in hosts)
    assert [h.name for h in hosts] == [
        "shop/local",
        "shop/local/preview",
        "mill/local",
        "mill/local/preview",
    ]


def test_routes_are_sorted_by_prefix_length() -> None:
    specs = {"a": "/", "b": "/api/", "c": "/api/v2", "d": None}
    state = environment(
        *(
            generation(i, of=n, spec=service(route=r, kind="web" if r else "worker"))
            for i, (n, r) in enumerate(specs.items(), 1)
        ),
        running=document(),
    )
    [live, _] = publisher.virtual_hosts([state])
    assert [r.prefix for r in live.routes] == ["/api/v2", "/api", "/"]
    assert len(publisher.clusters(state)) == 3


def test_ports_are_distinct() -> None:
    given = iter((5, 5, 7, 5, 6))
    assert generations.distinct_ports([7], 2, lambda: next(given)) == [5, 6]
    assert generations.distinct_ports([], 2, lambda: 0) == [0, 0]


@pytest.mark.parametrize(("old", "new"), [("api", "web"), ("web", "api")])
def test_preview_has_no_service_that_the_deployment_removes(old: str, new: str) -> None:
    """A renamed service has the same route, and a removal alone can be paused."""
    running = {old: service(f"{old}-1", route="/")}
    state = environment(generation(1, of=old, spec=running[old]), running=document(**running))
    flight = rollout(document(**{new: service(f"{new}-2", route="/")}), state)
    generations.create_candidates(state, flight, _ports(), 0.0)
    [live, preview] = publisher.virtual_hosts([state])
    assert [r.cluster for r in live.routes] == [f"shop/local/{old}/blue-1"]
    assert [r.cluster for r in preview.routes] == [f"shop/local/{new}/blue-2"]
    state.generations.pop()
    rollout(document(), state).state = State.HOLDING
    [live, preview] = publisher.virtual_hosts([state])
    assert (len(live.routes), preview.routes) == (1, ())


def test_new_host_names_are_served_during_their_rollout() -> None:
    api = service("api-1")
    state = environment(generation(1, spec=api), running=document(api=api))
    moved = msgspec.structs.replace(document(api=api), domains=("shop.example", "shop.localhost"))
    rollout(moved, state).state = State.STARTING
    [live, preview] = publisher.virtual_hosts([state])
    assert live.domains[:2] == ("shop.localhost", "shop.example")
    assert preview.domains == ("preview.shop.localhost", "preview.shop.example")
    state.document, state.rollout = moved, None
    [live, _] = publisher.virtual_hosts([state])
    assert live.domains[:2] == ("shop.example", "shop.localhost")


@pytest.mark.parametrize(("active", "idle"), [("blue", "green"), ("green", "blue"), (None, "blue")])
def test_candidate_is_in_the_idle_slot(active: str | None, idle: str) -> None:
    state = environment(*([generation(1, slot=active)] if active else []))
    assert generations.idle_slot(state, "api") == idle
    assert generations.add_candidate(state, "api", service(), [1], 0.0).slot == idle


def test_switch_without_candidates_changes_nothing() -> None:
    """Whatever became of it: what is active stays, so a service is never without one."""
    state = environment(generation(1), running=document(api=service("api-1")))
    flight = rollout(document(api=service("api-2")), state)
    flight.candidates = {"api": 99}
    generations.switch(state, flight, 0.0)
    assert state.generations[0].role == "active"


def test_switch_back_clears_previous_generations() -> None:
    state = environment(generation(1), running=document(api=service("api-1")))
    flight = rollout(document(api=service("api-2")), state)
    generations.create_candidates(state, flight, lambda _spec: 30000, 0.0)
    generations.switch(state, flight, 0.0)
    assert flight.previous == {"api": 1}
    generations.switch_back(state, flight, 0.0)
    assert flight.previous == {}
    assert [g.role for g in state.generations] == ["active", "draining"]


def test_host_name_of_another_environment_conflicts() -> None:
    own = environment(generation(1), running=document(api=service()))
    other = environment(generation(2), running=document(api=service()))
    other.stack = "blog"
    wanted = document(api=service("a-2"))
    assert publisher.domain_conflict([own], own, wanted) is None
    assert publisher.domain_conflict([own, other], own, wanted) == ("shop.localhost", "blog/local")
    other.generations.clear()
    assert publisher.domain_conflict([own, other], own, wanted) is None, "nothing of it runs"


def test_generation_is_unstable_after_a_restart_or_while_not_ready() -> None:
    one = generation(1)
    assert instability(one) is None
    one.replicas[0].restarts, one.replicas[0].last_exit = 1, "exited with status 7"
    assert instability(one) == "a replica exited with status 7"
    other = generation(2)
    other.replicas[0].ready = False
    assert instability(other) == "a replica is not ready"


def test_worker_that_ends_its_work_is_stable() -> None:
    one = generation(1, spec=service(kind="worker"))
    one.replicas[0].restarts, one.replicas[0].last_exit = 1, "exited with status 0"
    assert instability(one) is None


def test_crash_loop_is_rolled_back_only_while_the_old_slot_is_usable() -> None:
    active = generation(2, slot="green", spec=service(rollout=Rollout(analysis=Analysis())))
    warm = generation(1, "warm")
    state = environment(active, warm)
    assert crash_loops(state) == []
    active.replicas[0].crashes = CRASH_LOOP
    assert crash_loops(state) == [active]
    warm.replicas[0].ready = False
    assert crash_loops(state) == []
    warm.replicas[0].ready = True
    active.spec = service(rollout=Rollout(analysis=None))
    assert crash_loops(state) == []


def replicas(*indices: int) -> list[Replica]:
    return [Replica(index=i, port=20000 + i, pid=i + 1, ready=i != 1) for i in indices]


def test_removed_replicas_drain_in_the_cluster_of_their_generation() -> None:
    """Those that are not ready first, then the newest."""
    one = generation(1, spec=service(scale=Scale(max=5, cpu=1.0)))
    one.replicas = replicas(0, 1, 2, 3)
    state = environment(one)
    generations.split_off(state, one, 2)
    assert [r.index for r in one.replicas] == [0, 2]
    assert state.numbered(1) is one
    [cluster] = publisher.clusters(state)
    assert (cluster.ports, set(cluster.draining)) == ((20000, 20002), {20001, 20003})
    [part] = generations.split_parts(state)
    assert generations.drained(state, {}, 1e9) == [], "Envoy may not know it yet."
    generations.start_draining(part, 100.0)
    active = {state.cluster_name(one): {20000: 1, 20003: 1}}
    assert generations.drained(state, active, 110.0) == []
    active[state.cluster_name(one)][20003] = 0
    assert generations.drained(state, active, 110.0) == [part]


def test_added_replicas_get_unused_indices() -> None:
    one = generation(1)
    one.replicas = replicas(0, 1, 2)
    state = environment(one)
    generations.split_off(state, one, 1)
    state.stopping.append(msgspec.structs.replace(one, replicas=replicas(3)))
    ports = iter([20000, 30001, 30002])
    more = generations.new_replicas(state, one, 2, lambda: next(ports))
    assert [(r.index, r.port) for r in more] == [(4, 30001), (5, 30002)]


def test_candidate_of_a_scaled_service_has_as_many_replicas_as_the_active_generation() -> None:
    scaled = service("two", replicas=2, scale=Scale(max=4, cpu=1.0))
    one = generation(1)
    one.replicas = replicas(0, 1, 2)
    state = environment(one, running=document(api=service()))
    record, ports = rollout(document(api=scaled), state), itertools.count(30000)
    generations.create_candidates(state, record, lambda _: next(ports), 0.0)
    candidate = state.of("api", "candidate")
    assert candidate is not None
    assert len(candidate.replicas) == 3
