"""The status that others read, from what the agent remembers."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lapwing.agent import report
from lapwing.agent.rollout import State
from lapwing.agent.state import EnvironmentState, Replica, ResourceProcess
from lapwing.plan.model import Document, Resource
from lapwing.targets.base import StatusReport
from tests.unit.agent.samples import document, environment, generation, rollout, service

API = service("api-1", replicas=2)


def with_replicas(*ready: bool, running: Document | None = None) -> EnvironmentState:
    """An environment of which API runs with these replicas."""
    one = generation(1, spec=API)
    one.replicas = [Replica(index=i, port=i, pid=i, ready=r) for i, r in enumerate(ready, 1)]
    return environment(one, running=running or document(api=API))


def phases(state: EnvironmentState) -> dict[str, str]:
    """Service to phase."""
    return {s.name: s.phase for s in report.status(state, 8585, None).services}


@pytest.mark.parametrize(
    ("ready", "phase"),
    [((True, True), "running"), ((True, False), "degraded"), ((False, False), "crashing")],
)
def test_phases_of_an_active_service(ready: tuple[bool, ...], phase: str) -> None:
    assert phases(with_replicas(*ready)) == {"api": phase}


def test_phases_of_others() -> None:
    job = service("migrate-1", kind="job", route=None)
    wanted = document(api=API, migrate=job)
    state = environment(running=wanted)
    assert phases(state) == {"api": "stopped", "migrate": "done"}
    state = environment()
    rollout(wanted, state)
    assert phases(state) == {"api": "starting", "migrate": "done"}


@pytest.mark.parametrize(("at", "phase"), [(State.HOLDING, "held"), (State.TESTING, "running")])
def test_only_changed_services_are_paused(at: State, phase: str) -> None:
    web = service("web-1", route="/web")
    state = environment(
        generation(1, spec=service("api-1")),
        generation(2, of="web", spec=web),
        running=document(api=service("api-1"), web=web),
    )
    flight = rollout(document(api=service("api-2"), web=web), state)
    flight.state, flight.candidates = at, {"api": 3}
    assert phases(state) == {"api": phase, "web": "running"}


def test_crashing_service_is_reported_while_paused() -> None:
    state = with_replicas(False)
    flight = rollout(document(api=service("api-2")), state)
    flight.state, flight.candidates = State.HOLDING, {"api": 3}
    assert phases(state) == {"api": "crashing"}


def test_documented_json_keys() -> None:
    state = with_replicas(True, True)
    state.generations.append(generation(2, role="warm", slot="green", deadline=1e12))
    state.generations.append(generation(3, role="draining", slot="green"))
    found: dict[str, Any] = msgspec.to_builtins(report.status(state, 8443, "a problem"))
    assert {"stack", "environment", "url", "services"} <= set(found)
    assert (found["url"], found["problem"]) == ("https://shop.localhost:8443", "a problem")
    [api] = found["services"]
    assert {"name", "phase", "active", "idle"} <= set(api)
    slot = {"slot": "blue", "release": "api-1", "revision": "r1", "replicas": 2, "ready": 2}
    assert slot.items() <= api["active"].items()
    assert (api["idle"]["slot"], api["idle"]["release"]) == ("green", "api-2")
    assert api["idle"]["warm_for"] > 0
    assert api["active"]["warm_for"] is None
    assert api["draining"] == 1
    assert found["running"] is True


def test_url_has_no_default_port() -> None:
    assert not report.status(with_replicas(True), 443, None).url.endswith(":443")
    assert report.status(with_replicas(True), 8585, None).url.endswith(":8585")


def test_rollout_in_progress() -> None:
    state = with_replicas(True, True)
    flight = rollout(document(api=API, web=service("web-1", route="/web")), state)
    flight.state, flight.outcome, flight.reason = State.UNDOING, State.FAILED, "it broke"
    found = report.status(state, 8585, None).rollout
    assert found is not None
    assert (found.state, found.outcome, found.reason) == ("undoing", "failed", "it broke")
    assert found.services == ["web"]
    assert found.preview == "https://preview.shop.localhost:8585"


def test_status_before_the_first_deployment() -> None:
    found = report.status(environment(), 8585, None)
    assert (found.url, found.services, found.running) == ("https://localhost:8585", [], False)


def test_database_that_requires_no_password_has_a_warning() -> None:
    programs = {"old": "/usr/bin/mongod", "db": "/usr/bin/ferretdb"}
    wanted = msgspec.structs.replace(
        document(api=API),
        resources={
            name: Resource(kind="mongodb", provider="binary", program=path, variable="DB_URL")
            for name, path in programs.items()
        },
    )
    state = EnvironmentState(stack="shop", environment="local", document=wanted)
    warnings = {r.name: r.warning for r in report.status(state, 1, None).resources}
    assert warnings == {
        "old": "mongod requires no password: every user of this machine can connect",
        "db": None,
    }


def test_running_resources() -> None:
    given = Resource(kind="mongodb", provider="url", variable="DB_URL", secret="v1")
    own = Resource(kind="redis", provider="binary", program="/bin/r", variable="CACHE_URL")
    wanted = msgspec.structs.replace(document(api=API), resources={"db": given, "cache": own})
    state = with_replicas(True, True, running=wanted)
    assert [r.running for r in report.status(state, 1, None).resources] == [False, None]
    state.resources = {"cache": ResourceProcess(pid=1, started=1.0, port=1)}
    assert [r.running for r in report.status(state, 1, None).resources] == [True, None]


def test_environment_is_stopping_while_its_last_requests_end() -> None:
    draining = generation(1, "draining", spec=API)
    found = report.status(environment(draining, running=document()), 8585, None)
    assert (found.stopping, found.is_stopping) == ({}, True)
    assert StatusReport(found).state == "stopping"
    assert not report.status(environment(running=document()), 8585, None).is_stopping
    assert not report.status(with_replicas(True, True), 8585, None).is_stopping
