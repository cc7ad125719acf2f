"""A watch hears what happens from the moment it is armed, on the real kernel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lapwing.agent.watch import Watch

LONG = 60.0
"""Seconds nobody waits for: a move that is not heard fails by the timeout of the test."""


@pytest.fixture
async def watch(tmp_path: Path) -> AsyncIterator[Watch]:
    made = Watch((tmp_path, tmp_path / "later"))
    made.arm()
    yield made
    made.close()


async def hears(watch: Watch) -> bool:
    """Whether a move is told well before the patience is over."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    await watch.moved(LONG)
    return loop.time() - began < LONG / 2


async def test_a_move_before_the_wait_is_heard(watch: Watch, tmp_path: Path) -> None:
    (tmp_path / "new").write_text("x")
    (tmp_path / "new").replace(tmp_path / "file")
    assert await hears(watch)


async def test_a_move_during_the_wait_is_heard(watch: Watch, tmp_path: Path) -> None:
    waiting = asyncio.create_task(hears(watch))
    await asyncio.sleep(0)
    (tmp_path / "file").write_text("x")
    assert await waiting


async def test_a_folder_that_comes_later_is_watched_once_it_is_armed(
    watch: Watch, tmp_path: Path
) -> None:
    (tmp_path / "later").mkdir()
    assert await hears(watch)
    watch.arm()
    (tmp_path / "later" / "file").write_text("x")
    assert await hears(watch)


async def test_the_wait_ends_when_nothing_moves(watch: Watch) -> None:
    await watch.moved(0.05)
    await watch.moved(0.05)
