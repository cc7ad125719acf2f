"""One ship for the tests of a module, with clients that watch it all the time.

A module that needs another stack than the usual one names it STACK.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.installation import installation
from tests.integration.faults import ship as usual
from tests.integration.faults.ship import Ship, Watchers


@pytest.fixture(scope="module")
def ship(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ship]:
    stack: str = getattr(request.module, "STACK", usual.STACK)
    with installation(tmp_path_factory.mktemp("faults")) as where:
        made = Ship(where, stack)
        made.up()
        yield made


@pytest.fixture(scope="module")
def clients(ship: Ship, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watchers]:
    made = Watchers(ship, tmp_path_factory.mktemp("clients"))
    yield made
    made.end()


@pytest.fixture
def watched(ship: Ship, clients: Watchers) -> Iterator[Watchers]:
    """The clients, while no request of theirs may fail."""
    with clients.watching():
        yield clients
