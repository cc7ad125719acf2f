"""Errors that nobody expected: reported as the reason of a failure, not repeated for ever."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import AsyncMock, MagicMock

import httpx
import pytest

from lapwing.agent import checks, daemon, rollout
from lapwing.agent.checks import Preview
from lapwing.agent.environment import Environment
from lapwing.agent.rollout import Event, Route, State
from lapwing.agent.state import EnvironmentState, RolloutRecord
from lapwing.errors import SmokeError
from lapwing.observed import agent as observed
from lapwing.settings import read
from tests.unit.agent.samples import document


def environment(home: Path, error: Exception) -> tuple[Environment, RolloutRecord]:
    """An environment whose every action raises this error, and a rollout."""
    context = MagicMock()
    context.settings = read({"LAPWING_HOME": str(home)})
    context.secrets.mask = lambda text, **_: text
    found = Environment(EnvironmentState(stack="shop", environment="local"), context)
    found.store.save = AsyncMock()  # type: ignore[method-assign]
    found._perform = AsyncMock(side_effect=error)  # type: ignore[method-assign]
    record = RolloutRecord(commit="c", document=document(), route=Route(), state=State.TESTING)
    return found, record


async def test_unexpected_error_in_an_action_fails_the_deployment(tmp_path: Path) -> None:
    one, record = environment(tmp_path, ValueError("Invalid IPv6 URL"))
    step = rollout.enter(State.TESTING)
    assert await one._perform_actions(step, record) is Event.FAILED
    assert record.reason == "Unexpected error in test-candidates: ValueError: Invalid IPv6 URL"


async def test_unexpected_error_while_undoing_stops_no_replica(tmp_path: Path) -> None:
    one, record = environment(tmp_path, ValueError("no"))
    step = rollout.enter(State.UNDOING, State.FAILED)
    with pytest.raises(ValueError, match="no"):
        await one._perform_actions(step, record)
    one._perform.assert_awaited_once()  # type: ignore[attr-defined]


async def test_unexpected_error_of_the_agent_is_in_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon.Agent, "run", AsyncMock(side_effect=UnicodeError("odd name")))
    settings = read({"LAPWING_HOME": str(tmp_path)})
    settings.agent.mkdir(parents=True)
    assert await daemon._main(settings, lock=-1) == 1
    record = observed.read(settings.agent)
    assert record is not None
    assert record.problem == "The agent failed: UnicodeError: odd name"
    assert record.hint == f"See {tmp_path / 'agent' / 'agent.log'}."


async def page_test(monkeypatch: pytest.MonkeyPatch, page: str) -> list[str]:
    """Test a page; returns the paths that were requested."""
    seen = []

    def respond(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.path)
        kind = "text/html" if request.url.path == "/" else "text/javascript"
        return httpx.Response(200, headers={"content-type": kind}, text=page)

    client = httpx.AsyncClient(transport=httpx.MockTransport(respond))
    monkeypatch.setattr(checks, "_client", AsyncMock(return_value=client))
    await checks.run_page_test("/", Preview("127.0.0.1", 8443, "shop.localhost", Path("ca")))
    return seen


@pytest.mark.parametrize("odd", ['<script src="//[abc">', '<base href="//[abc">', "<![odd[ ]>"])
async def test_odd_page_is_tested_as_far_as_it_can(
    monkeypatch: pytest.MonkeyPatch, odd: str
) -> None:
    page = f'<script src="/a.js"></script>{odd}'
    assert await page_test(monkeypatch, page) == ["/", "/a.js"]


async def test_reference_that_cannot_be_requested_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SmokeError, match=r"GET '/s/a\\x01b.js' failed: "):
        await page_test(monkeypatch, '<script src="/s/a\x01b.js"></script>')
