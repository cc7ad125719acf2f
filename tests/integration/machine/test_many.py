"""Ten stacks in one home, deployed at the same moment: none waits for ever, none is mixed up."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.installation import Installation, installation
from tests.integration.faults.ship import STACK, Ship

COUNT = 10
pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group("machine-many")]


def ship(where: Installation, name: str) -> Ship:
    text = STACK.replace("stack: faults", f"stack: {name}").replace("replicas: 2", "replicas: 1")
    made = Ship(where, text, name)
    made.write(f"{name}-v0")
    return made


def all_at_once(ships: list[Ship], verb: str) -> None:
    """Run a command for each stack, all begun before the first ends."""
    commands = [each.begin(verb) for each in ships]
    ends = [(command.communicate(timeout=600), command.returncode) for command in commands]
    assert [status for _, status in ends] == [0] * len(ships), ends


def test_ten_stacks_are_deployed_at_once(tmp_path: Path) -> None:
    with installation(tmp_path) as where:
        others = [where.beside(f"stack-{n}") for n in range(1, COUNT)]
        ships = [ship(w, f"s{n}") for n, w in enumerate([where, *others])]
        for verb, version in (("up", "v0"), ("deploy", "v1")):
            for each in ships:
                each.version = f"{each.name}-{version}"
                each.write(each.version)
            all_at_once(ships, verb)
            for each in ships:
                each.whole()
                assert [e["outcome"] for e in each.history()][:1] == ["succeeded"]
        log = (where.home / "agent" / "agent.log").read_text()
        assert len(re.findall("The agent is ready", log)) == 1
        all_at_once(ships[1:], "down")
