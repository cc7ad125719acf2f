"""A file watch reports every change from the moment it is armed, on the real kernel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lapwing.agent.desired_watcher import FileWatch

LONG = 60.0
"""Longer than any test waits: a change that is not reported fails the test by its duration."""


@pytest.fixture
async def watch(tmp_path: Path) -> AsyncIterator[FileWatch]:
    made = FileWatch((tmp_path, tmp_path / "later"))
    made.arm()
    yield made
    made.close()


async def reports_change(watch: FileWatch) -> bool:
    """Whether a change is reported well before the timeout."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    await watch.changed(LONG)
    return loop.time() - began < LONG / 2


async def test_rename_before_the_wait_is_reported(watch: FileWatch, tmp_path: Path) -> None:
    (tmp_path / "new").write_text("x")
    (tmp_path / "new").replace(tmp_path / "file")
    assert await reports_change(watch)


async def test_write_during_the_wait_is_reported(watch: FileWatch, tmp_path: Path) -> None:
    waiting = asyncio.create_task(reports_change(watch))
    await asyncio.sleep(0)
    (tmp_path / "file").write_text("x")
    assert await waiting


async def test_folder_created_later_is_watched_after_arming(
    watch: FileWatch, tmp_path: Path
) -> None:
    (tmp_path / "later").mkdir()
    assert await reports_change(watch)
    watch.arm()
    (tmp_path / "later" / "file").write_text("x")
    assert await reports_change(watch)


async def test_wait_ends_without_a_change(watch: FileWatch) -> None:
    await watch.changed(0.05)
    await watch.changed(0.05)
