"""One port belongs to one LAPWING_HOME, although Envoy's workers share it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from lapwing.agent import termination
from lapwing.agent.proxy import sockets
from lapwing.agent.proxy.supervisor import Envoy
from lapwing.errors import PortTakenError
from lapwing.settings import Settings
from tests.installation import free_port

Make = Callable[[str], Envoy]


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    """Create the Envoy of a home, all on one port."""
    port = free_port()
    async with contextlib.AsyncExitStack() as stack:

        def create(name: str) -> Envoy:
            made = Envoy(Settings(home=tmp_path / name, port=port, bind="127.0.0.1"))
            stack.push_async_callback(made.stop)
            return made

        yield create


async def test_running_envoy_of_another_home_is_named(make: Make, tmp_path: Path) -> None:
    first, second = make("first"), make("second")
    await first.start()
    await first.leave()  # Its agent has exited.
    with pytest.raises(PortTakenError) as caught:
        await second.start()
    assert f"of LAPWING_HOME {tmp_path / 'first'}; this one is {tmp_path / 'second'}." in str(
        caught.value
    )
    await first.start()
    assert first.identity is not None


async def test_one_of_two_homes_that_start_at_once_gets_the_port(make: Make) -> None:
    homes = [make(f"home-{number}") for number in range(4)]
    results = await asyncio.gather(*(h.start() for h in homes), return_exceptions=True)
    assert sorted(type(r).__name__ for r in results) == ["NoneType", *["PortTakenError"] * 3]


async def test_port_stays_claimed_while_envoy_is_restarted(make: Make) -> None:
    first, second = make("first"), make("second")
    await first.start()
    first._unwatch()
    assert first.identity is not None
    await termination.kill(first.identity)
    with pytest.raises(PortTakenError, match=f"process {os.getpid()}"):
        await second.start()
    await first.stop()
    await second.start()


async def test_own_envoy_does_not_make_a_port_taken(make: Make) -> None:
    first = make("first")
    await first.start()
    address, port = first.settings.bind, first.settings.port
    sockets.check_port(address, port, first.settings.home)
    with pytest.raises(PortTakenError, match=f"by envoy .* of LAPWING_HOME {first.settings.home}"):
        sockets.check_port(address, port)
