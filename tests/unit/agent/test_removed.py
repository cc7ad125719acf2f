"""What the agent forgets of environments of branches that were removed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lapwing.agent.removed import RemovedEnvironments
from lapwing.desired.repository import DesiredRepository

KEY = ("shop", "preview_fix")


def stopped(home: Path) -> Any:
    """An environment without processes, with a folder."""
    folder = home / "environments" / KEY[0] / KEY[1]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "state.json").write_text("{}")
    return SimpleNamespace(idle=True, store=SimpleNamespace(folder=folder))


def forget(home: Path, environments: dict[Any, Any], end: Any, ticks: int = 1) -> None:
    repository = DesiredRepository(home / "desired.git")
    removed = RemovedEnvironments(cast(Any, environments), repository, end, home)

    async def run() -> None:
        for _ in range(ticks):
            await removed.tick()

    asyncio.run(run())


@pytest.mark.parametrize("is_deployed_again", [False, True])
def test_folder_of_an_environment_that_is_deployed_again_stays(
    tmp_path: Path, is_deployed_again: bool
) -> None:
    environments = {KEY: stopped(tmp_path)}
    folder = environments[KEY].store.folder
    left = tmp_path / "environments" / ".removed" / "left"
    left.mkdir(parents=True)

    async def end(key: Any) -> None:
        del environments[key]
        await asyncio.sleep(0)
        if is_deployed_again:
            environments[key] = stopped(tmp_path)
            environments[key].idle = False

    forget(tmp_path, environments, end)
    assert folder.exists() == is_deployed_again
    assert [p.name for p in (tmp_path / "environments").iterdir()] == ["shop"]


def test_environment_that_was_busy_for_a_moment_is_forgotten_later(tmp_path: Path) -> None:
    answers = iter([True, False])  # Idle, then busy while the desired state is read; then idle.

    class Busy(SimpleNamespace):
        @property
        def idle(self) -> bool:
            return next(answers, True)

    environments: dict[Any, Any] = {KEY: Busy(store=stopped(tmp_path).store)}

    async def end(key: Any) -> None:
        del environments[key]

    forget(tmp_path, environments, end, ticks=2)
    assert environments == {}
