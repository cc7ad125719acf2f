"""The ship of the fault tests, and what these tests ask of it besides."""

from __future__ import annotations

import json

from lapwing.agent import processes
from tests.deployed import until
from tests.integration.faults.conftest import clients, ship, watched
from tests.integration.faults.ship import Ship

__all__ = ["clients", "kill_agent", "ship", "watched"]


def kill_agent(ship: Ship) -> None:
    """kill -9 the agent, and wait until it is gone."""
    record = json.loads((ship.where.home / "agent" / "agent.json").read_bytes())
    ship.kill(record["pid"])
    until(lambda: processes.started(record["pid"]) is None, "the end of the agent")
