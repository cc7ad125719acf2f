"""What a rollout does before it starts candidates."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from lapwing.agent import generations
from lapwing.agent.state import Generation
from lapwing.agent.steps import Steps
from tests.unit.agent.samples import document, environment, generation, rollout, service


class _Stop(Exception):
    pass


def test_written_files_are_reported_for_started_services_and_for_warm_slots(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state = environment(*(generation(n, of=of) for n, of in enumerate(("api", "old", "same"), 1)))
    verdicts: Any = {"api": "start", "old": "switch", "same": "keep"}
    wanted = document(api=service(), old=service(), same=service())
    record = rollout(wanted, state)
    record.verdicts = verdicts
    reported: list[tuple[str, str]] = []

    async def report(active: Generation, commit: str) -> None:
        reported.append((active.service, commit))

    def stop(*_: Any) -> None:
        raise _Stop

    monkeypatch.setattr(generations, "create_candidates", stop)
    advice = SimpleNamespace(report_written=report)
    scaler = SimpleNamespace(free_port=lambda: 1)
    fake: Any = SimpleNamespace(state=state, advice=advice, scaler=scaler, states=list)
    steps = Steps(fake, fake, fake, fake, fake, fake)
    with pytest.raises(_Stop):
        asyncio.run(steps._start_candidates(record))
    assert reported == [("api", record.commit), ("old", record.commit)]
