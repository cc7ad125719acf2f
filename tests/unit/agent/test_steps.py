"""The candidates of a deployment that continues after a power failure."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lapwing.agent.rollout import Route
from lapwing.agent.state import EnvironmentState
from lapwing.agent.steps import Steps
from lapwing.errors import ReplicaError
from tests.unit.agent.samples import document, environment, generation, rollout, service


async def _all_healthy(_ports: object) -> set[str]:
    return set()


def steps_of(state: EnvironmentState) -> Any:
    """The steps of an environment without processes, with an Envoy that finds all healthy."""
    context: Any = SimpleNamespace(publisher=SimpleNamespace(wait_until_healthy=_all_healthy))
    unused: Any = None
    store: Any = SimpleNamespace(state=state)
    launcher: Any = SimpleNamespace(log_of=lambda *_: Path("/nonexistent"))
    return Steps(context, store, launcher, unused, unused, unused)


def analysing() -> tuple[Any, Any, Any]:
    """A rollout in its analysis: its steps, its record and its candidate, whose process is gone."""
    candidate = generation(2)
    candidate.replicas[0].started = -1.0
    state = environment(candidate)
    record = rollout(document(api=service("a-2")), state)
    record.route, record.candidates = Route(analyse=True), {"api": 2}
    return steps_of(state), record, candidate


async def test_only_a_crash_after_the_recovery_counts() -> None:
    steps, record, candidate = analysing()
    replica = candidate.replicas[0]
    steps.expect_recovery(record)
    assert (replica.pid, replica.ready) == (None, False)
    steps._check_candidates(record)
    replica.pid, replica.ready = 7, True
    await steps._await_recovery()
    steps._check_candidates(record)
    replica.restarts, replica.last_exit = 1, "exited with status 7"
    with pytest.raises(ReplicaError, match="after the switch: a replica exited with status 7"):
        steps._check_candidates(record)


async def test_crash_before_the_power_failure_counts() -> None:
    steps, record, candidate = analysing()
    candidate.replicas[0].restarts = 1
    steps.expect_recovery(record)
    with pytest.raises(ReplicaError, match="became unhealthy after the switch"):
        steps._check_candidates(record)


async def test_recovery_ends_after_the_start_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lapwing.agent.steps.WATCH_INTERVAL_S", 0.001)
    steps, record, candidate = analysing()
    candidate.spec = service("a-2", health=type(candidate.spec.health)(start_timeout=0.01))
    steps.expect_recovery(record)
    await steps._await_recovery()
    with pytest.raises(ReplicaError, match="a replica is not ready"):
        steps._check_candidates(record)
