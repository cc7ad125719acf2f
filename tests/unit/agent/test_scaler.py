"""Changes of the number of replicas by the autoscaler."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import AsyncMock, MagicMock

import pytest

from lapwing.agent.environment import Environment
from lapwing.agent.rollout import State
from lapwing.agent.scaler import Scaler
from lapwing.agent.scaling import Recommendation
from lapwing.plan.model import Scale
from lapwing.settings import read
from tests.unit.agent.samples import document, environment, generation, rollout, service


async def test_measurement_before_a_rollout_changes_nothing_during_it() -> None:
    scaled = generation(1, spec=service("api-1", scale=Scale(max=4, cpu=1.0)))
    state = environment(scaled)
    store = SimpleNamespace(state=state)
    scaler = Scaler(cast("Any", None), cast("Any", store), cast("Any", None), cast("Any", None))
    assert scaler.scaled() == [scaled]
    rollout(document(api=service("api-2", scale=Scale(max=4, cpu=1.0))), state)
    scaler.follow(scaled, Recommendation(0.0, 4, "busy"), 4)
    assert not scaler._changes


async def test_change_that_began_before_a_rollout_is_resumed_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A paused rollout continues after a restart of the agent: candidates are started again."""
    scaled = generation(1, spec=service("api-1", scale=Scale(max=4, cpu=1.0)))
    state = environment(scaled)
    rollout(
        document(api=service("api-2", scale=Scale(max=4, cpu=1.0))), state
    ).state = State.HOLDING
    context = MagicMock()
    context.settings = read({"LAPWING_HOME": str(tmp_path)})
    context.secrets.mask = lambda text, **_: text
    resumed = Environment(state, context)
    scaler = resumed.maintenance.scaler
    adding = asyncio.Event()
    change: list[asyncio.Task[None]] = []

    async def add(*_: object) -> None:
        adding.set()
        await asyncio.Event().wait()

    async def restore() -> None:
        scaler.follow(scaled, Recommendation(0.0, 4, "busy"), 4)
        await adding.wait()
        change.extend(scaler._changes.values())

    async def roll_out(_step: object) -> None:
        assert [task.cancelled() for task in change] == [True]

    monkeypatch.setattr(scaler, "add", add)
    monkeypatch.setattr("lapwing.agent.scaler._fitting", lambda _generation, count: count)
    monkeypatch.setattr(resumed.store, "save", AsyncMock())
    monkeypatch.setattr(resumed.maintenance, "adopt", AsyncMock())
    monkeypatch.setattr(resumed.maintenance, "restore", restore)
    monkeypatch.setattr(resumed.schedules, "adopt", lambda: None)
    monkeypatch.setattr(resumed._steps, "expect_recovery", lambda _: None)
    monkeypatch.setattr(resumed, "_roll_out", roll_out)
    await resumed.resume()
    assert change
