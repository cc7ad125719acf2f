"""State that survives a kill: replaced whole or not at all."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from lapwing.agent import state
from lapwing.agent.rollout import State
from tests.unit.agent.samples import document, environment, generation, rollout, service


def test_saved_state_is_loaded(tmp_path: Path) -> None:
    memory = environment(
        generation(1, deadline=5.5), generation(2, role="warm"), running=document(api=service())
    )
    flight = rollout(document(api=service("api-9"), web=service("web-1", route="/w")), memory)
    flight.state, flight.outcome, flight.reason = State.UNDOING, State.FAILED, "it broke — badly"
    flight.candidates, flight.previous = {"api": 3}, {"api": 1}
    memory.jobs = {"migrate": "abc"}
    memory.resources = {"db": state.ResourceProcess(pid=1, started=2.0, port=3)}
    state.save(tmp_path / "deep/folder", memory)
    assert state.load(tmp_path / "deep/folder") == memory


def test_missing_state(tmp_path: Path) -> None:
    assert state.load(tmp_path) is None


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"stack": 1}', b"\xff\xfe"])
def test_damaged_state_raises(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "state.json").write_bytes(data)
    with pytest.raises((msgspec.MsgspecError, UnicodeDecodeError)):
        state.load(tmp_path)


def test_newest_generation_in_a_role() -> None:
    memory = environment(generation(1, role="draining"), generation(2, role="draining"))
    found = memory.of("api", "draining")
    assert found is not None
    assert found.number == 2
    assert memory.of("api", "active") is None
    assert memory.numbered(1) is memory.generations[0]
    assert memory.numbered(9) is None
    assert found.label == "blue-2"
