"""Changes of the number of replicas by the autoscaler."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from lapwing.agent.scaler import Scaler
from lapwing.agent.scaling import Recommendation
from lapwing.plan.model import Scale
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
