"""What a document means for what runs."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lapwing.agent.decide import Decision, Intent, Verdict, decide
from lapwing.agent.rollout import Route, State
from lapwing.plan.model import (
    Analysis,
    Deployment,
    Document,
    Edge,
    Health,
    Rollout,
    Schedule,
    Smoke,
)
from tests.unit.agent.samples import document, environment, generation, rollout, service

API = service("api-1")
RUNS = document(api=API)


def decided(wanted: Document, *generations: Any, running: Document | None = RUNS) -> Decision:
    """The decision where `generations` (by default the active one of API) run."""
    found = generations or (generation(1, spec=API),)
    return decide(wanted, environment(*found, running=running))


def test_first_deployment_starts_every_service() -> None:
    found = decide(RUNS, environment())
    assert found == Decision(Intent.ROLL_OUT, {"api": Verdict.START}, Route())


def test_same_document_changes_nothing() -> None:
    again = msgspec.structs.replace(RUNS, deployment=Deployment(kind="rollback", actor="bob"))
    assert decided(again) == Decision(Intent.NOTHING, {"api": Verdict.KEEP})


def test_empty_first_document_changes_nothing() -> None:
    assert decide(document(), environment()).intent is Intent.NOTHING


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, Verdict.KEEP),
        ({"release": "api-2"}, Verdict.START),
        ({"env": {"A": "1"}}, Verdict.START),
        ({"secrets": {"KEY": "v2"}}, Verdict.START),
        ({"needs": {"db": "v2"}}, Verdict.START),
        ({"command": "other"}, Verdict.START),
        ({"health": Health(path="/ready")}, Verdict.START),
        ({"route": "/v2"}, Verdict.ADJUST),
        ({"replicas": 3}, Verdict.ADJUST),
        ({"timeout": 5.0}, Verdict.ADJUST),
        ({"rollout": Rollout(hold=True)}, Verdict.ADJUST),
        ({"revision": "r2"}, Verdict.ADJUST),
        ({"health": Health(interval=1.0)}, Verdict.ADJUST),
    ],
)
def test_verdicts(changes: dict[str, Any], verdict: Verdict) -> None:
    wanted = document(api=msgspec.structs.replace(API, **changes))
    assert decided(wanted).verdicts == {"api": verdict}


def test_warm_generation_is_reused() -> None:
    warm, active = generation(1, spec=API, role="warm"), generation(2, slot="green")
    found = decided(RUNS, warm, active, running=document(api=active.spec))
    assert found.verdicts == {"api": Verdict.SWITCH}
    warm.replicas[0].ready = False
    found = decided(RUNS, warm, active, running=document(api=active.spec))
    assert found.verdicts == {"api": Verdict.START}, "what is dead is not warm"
    warm.replicas[0].ready = True
    warm.role = "draining"
    found = decided(RUNS, warm, active, running=document(api=active.spec))
    assert found.verdicts == {"api": Verdict.START}


def test_missing_service_is_removed() -> None:
    found = decided(document("down"))
    assert (found.intent, found.verdicts) == (Intent.ROLL_OUT, {"api": Verdict.REMOVE})
    assert found.services_with(Verdict.REMOVE, Verdict.KEEP) == ["api"]


def test_changed_host_names_start_a_rollout() -> None:
    wanted = msgspec.structs.replace(RUNS, domains=("shop.example",))
    assert decided(wanted) == Decision(Intent.ROLL_OUT, {"api": Verdict.KEEP}, Route())


def test_job_runs_once_per_identity() -> None:
    job = service("migrate-1", kind="job", route=None)
    wanted = document(api=API, migrate=job)
    state = environment(generation(1, spec=API), running=RUNS)
    found = decide(wanted, state)
    assert (found.verdicts["migrate"], found.route.jobs) == (Verdict.START, True)
    state.jobs = {"migrate": job.identity()}
    assert decide(wanted, state).verdicts["migrate"] is Verdict.KEEP
    state.jobs, state.document = {}, wanted
    assert decide(wanted, state).verdicts["migrate"] is Verdict.KEEP


def test_rollback_runs_no_jobs() -> None:
    job = service("migrate-0", kind="job", route=None)
    found = decided(document("rollback", api=service("api-0"), migrate=job))
    assert found.verdicts["migrate"] is Verdict.START
    assert not found.route.jobs


CAREFUL = Rollout(smoke=(Smoke(get="/"),), hold=True, analysis=Analysis())


@pytest.mark.parametrize(
    ("kind", "running", "route"),
    [
        ("deploy", True, Route(test=True, hold=True, analyse=True)),
        ("promote", True, Route(test=True, analyse=True)),
        ("rollback", True, Route(test=True)),
        ("revert", True, Route(test=True)),
        ("deploy", False, Route(test=True)),
    ],
)
def test_optional_states(kind: Any, running: bool, route: Route) -> None:
    wanted = document(kind, api=service("api-2", rollout=CAREFUL))
    state = environment(generation(1, spec=API), running=RUNS) if running else environment()
    assert decide(wanted, state).route == route


@pytest.mark.parametrize(("kind", "tested"), [("deploy", True), ("rollback", False)])
def test_warm_release_is_tested_at_a_deployment(kind: Any, tested: bool) -> None:
    careful = service("api-1", rollout=CAREFUL)
    warm, active = generation(1, spec=API, role="warm"), generation(2, slot="green")
    state = environment(warm, active, running=document(api=active.spec))
    found = decide(document(kind, api=careful), state)
    assert (found.verdicts["api"], found.route.test) == (Verdict.SWITCH, tested)


def test_only_started_services_are_tested() -> None:
    kept = service("api-1", rollout=CAREFUL)
    wanted = document(api=kept, web=service("web-1", route="/web"))
    found = decided(wanted, generation(1, spec=kept), running=document(api=kept))
    assert found.route == Route()


def test_deployment_can_be_paused() -> None:
    assert decided(document(hold=True, api=service("api-2"))).route.hold
    assert not decided(document(hold=True, api=API)).route.hold


def test_deployment_of_settings_can_be_paused() -> None:
    held = document(hold=True, api=API)
    edge = msgspec.structs.replace(held, edge=Edge(headers={"x-robots-tag": "noindex"}))
    for wanted in (edge, document(hold=True, api=service(route="/new")), document(hold=True)):
        assert decided(wanted).route == Route(hold=True)
        assert not decide(wanted, environment()).route.hold


@pytest.mark.parametrize("state", [s for s in State if s in ("holding", "testing", "analysing")])
def test_new_document_during_a_rollout(state: State) -> None:
    memory = environment(generation(1, spec=API), running=RUNS)
    wanted = document(api=service("api-2"))
    rollout(wanted, memory).state = state
    promotion = msgspec.structs.replace(wanted, deployment=Deployment(kind="promote", actor="b"))
    newer = document(api=service("api-3"))
    assert decide(wanted, memory).intent is Intent.NOTHING
    assert decide(promotion, memory).intent is Intent.PROMOTE
    assert decide(RUNS, memory).intent is Intent.ABORT
    assert decide(newer, memory) == Decision(Intent.ROLL_OUT, {})


def test_abort_of_the_first_deployment() -> None:
    memory = environment()
    rollout(RUNS, memory)
    assert decide(document("abort"), memory).intent is Intent.ABORT


def test_verdicts_after_a_completed_rollout() -> None:
    memory = environment(generation(1, spec=API), running=RUNS)
    rollout(document(api=service("api-2")), memory).state = State.FAILED
    assert decide(RUNS, memory) == Decision(Intent.NOTHING, {"api": Verdict.KEEP})


def test_scheduled_job_does_not_run_at_a_deployment() -> None:
    daily = service("j-1", kind="job", route=None, schedule=Schedule(cron="@daily"))
    state = environment(running=document(api=service(), digest=daily))
    assert decide(document(api=service(), digest=daily), state).verdicts["digest"] is Verdict.KEEP
    newer = document(api=service(), digest=msgspec.structs.replace(daily, release="j-2"))
    decision = decide(newer, state)
    assert decision.verdicts["digest"] is Verdict.ADJUST
    assert not decision.route.jobs
    once = msgspec.structs.replace(daily, schedule=msgspec.UNSET)
    assert decide(document(digest=once), state).verdicts["digest"] is Verdict.START
