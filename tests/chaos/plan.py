"""The rounds of a seed. Nothing here depends on the machine or on what happened before."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

STACKS = ("one", "two")
MAX_DELAY_S = 4.0
"""Longest time from the beginning of a round to a fault that waits for no state."""


class Action(StrEnum):
    """What is done with a stack in a round."""

    DEPLOY = "deploy"
    REJECTED = "deploy a bad release"
    EXITING = "deploy a release that exits"
    ROLLBACK = "rollback"
    PROMOTE = "hold and promote"
    ABORT = "hold and abort"
    SUPERSEDE = "deploy twice"


class Fault(StrEnum):
    """What goes wrong in a round."""

    NONE = "none"
    CLI_KILLED = "CLI killed"
    CLI_INTERRUPTED = "CLI interrupted"
    AGENT_KILLED = "agent killed"
    AGENT_STOPPED = "agent stopped"
    AGENT_FROZEN = "agent frozen"
    DISK_FULL = "disk full"
    REPLICA_KILLED = "replica killed"
    ENVOY_KILLED = "one Envoy killed"
    ENVOYS_KILLED = "all Envoys killed"
    ENVOYS_AND_AGENT_KILLED = "Envoys and agent killed"
    POWER_CUT = "power cut"


ACTIONS = {
    Action.DEPLOY: 4,
    Action.REJECTED: 2,
    Action.EXITING: 1,
    Action.ROLLBACK: 3,
    Action.PROMOTE: 2,
    Action.ABORT: 1,
    Action.SUPERSEDE: 1,
}
"""How often each action is chosen, in parts."""
FAULTS = {
    Fault.NONE: 2,
    Fault.CLI_KILLED: 3,
    Fault.CLI_INTERRUPTED: 1,
    Fault.AGENT_KILLED: 6,
    Fault.AGENT_STOPPED: 1,
    Fault.AGENT_FROZEN: 1,
    Fault.DISK_FULL: 1,
    Fault.REPLICA_KILLED: 2,
    Fault.ENVOY_KILLED: 2,
    Fault.ENVOYS_KILLED: 1,
    Fault.ENVOYS_AND_AGENT_KILLED: 1,
    Fault.POWER_CUT: 1,
}
"""How often each fault is injected in one cycle, whose length is the sum of these numbers."""
_BEGINNING = ("resources", "jobs", "starting", "testing")
_END = ("switching", "analysing", "succeeded")
STATES = {
    Action.DEPLOY: _BEGINNING + _END,
    Action.REJECTED: (*_BEGINNING, "undoing", "failed"),
    Action.EXITING: ("resources", "jobs", "starting", "undoing", "failed"),
    Action.ROLLBACK: ("resources", "starting", *_END),
    Action.PROMOTE: (*_BEGINNING, "holding", *_END),
    Action.ABORT: (*_BEGINNING, "holding", "undoing", "aborted"),
    Action.SUPERSEDE: (*_BEGINNING, "undoing", "superseded", *_END),
}
"""The rollout states that each action usually goes through."""


@dataclass(frozen=True, slots=True)
class Round:
    """One round: an action for each stack at the same time, and one fault.

    The fault is injected when the rollout of stack number `stack` enters the state `moment`, or
    `moment` seconds after the beginning. `choice` (0 to 1) selects one of several victims.
    """

    number: int
    actions: tuple[Action, ...]
    fault: Fault
    stack: int
    moment: str | float
    choice: float

    def __str__(self) -> str:
        """Return the line that is printed before the round."""
        actions = ", ".join(f"{s}: {a}" for s, a in zip(STACKS, self.actions, strict=True))
        if self.fault is Fault.NONE:
            return f"{self.number:4} {actions}"
        after = isinstance(self.moment, float)
        when = f"after {self.moment:.2f} s" if after else f"in state {self.moment}"
        return f"{self.number:4} {actions}; {self.fault} {when} of {STACKS[self.stack]}"


def rounds(seed: int) -> Iterator[Round]:
    """Yield the rounds of a seed, without end."""
    for number in itertools.count():
        chance = random.Random(f"{seed}/{number}")
        actions = tuple(chance.choices([*ACTIONS], [*ACTIONS.values()], k=len(STACKS)))
        cycle, position = divmod(number, sum(FAULTS.values()))
        stack = chance.randrange(len(STACKS))
        delay, state = chance.uniform(0.0, MAX_DELAY_S), chance.choice(STATES[actions[stack]])
        moment = delay if chance.random() < 0.3 else state
        fault = _shuffled(seed, cycle)[position]
        yield Round(number + 1, actions, fault, stack, moment, chance.random())


def _shuffled(seed: int, cycle: int) -> list[Fault]:
    """Return the faults of one cycle in random order: a short run has all of them, too."""
    faults = [fault for fault, times in FAULTS.items() for _ in range(times)]
    # The text stays as it is: recorded seeds keep giving the same rounds.
    random.Random(f"{seed}/deck {cycle}").shuffle(faults)
    return faults
