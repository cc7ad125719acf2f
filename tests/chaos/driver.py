"""Runs the rounds of a seed, and checks after each that everything is consistent."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lapwing.load.record import now
from tests.chaos.faults import FaultInjector
from tests.chaos.plan import STACKS, Action, Fault, Round, rounds
from tests.chaos.record import Clients, Period, Record
from tests.chaos.stack import Stack
from tests.disk import Disk
from tests.installation import Installation
from tests.integration.crash.runtimes import Processes

CERTAIN = frozenset({Fault.NONE, Fault.AGENT_KILLED, Fault.AGENT_STOPPED, Fault.AGENT_FROZEN})
"""Faults that change the outcome of no command."""
REJECTED = frozenset({Action.REJECTED, Action.EXITING})


class InvariantViolation(Exception):
    """An invariant does not hold after a round."""


class Driver:
    """The stacks and the clients of one run."""

    def __init__(
        self,
        where: Installation,
        runtime: Processes,
        folder: Path,
        disk: Disk | None,
        record: Record,
        say: Callable[[str], None],
    ) -> None:
        self._record = record
        self._say = say
        self._disk = disk
        places = [where, *(where.beside(name) for name in STACKS[1:])]
        self._stacks = [Stack(p, name, runtime) for p, name in zip(places, STACKS, strict=True)]
        for stack in self._stacks:
            stack.deploy()  # So that there is a release to roll back to.
        self._clients = [Clients(s.target, folder / s.name) for s in self._stacks]

    def run(self, seed: int, seconds: float) -> None:
        """Run rounds for some seconds. Raises InvariantViolation."""
        until = time.monotonic() + seconds
        for round_ in rounds(seed):
            if time.monotonic() > until:
                return
            self._say(str(round_))
            try:
                self._run(round_)
            except Exception as error:
                said = "\n".join(line for s in self._stacks for line in s.output)
                raise InvariantViolation(f"round {round_.number}: {error!r}\n{said}") from error

    def end(self) -> None:
        """Stop the clients, and all stacks but the first, which its installation stops."""
        for clients in self._clients:
            clients.stop()
        self._count()
        for stack in self._stacks[1:]:
            stack.where.run("down")

    def _run(self, round_: Round) -> None:
        period = Period(round_.number, round_.fault, now())
        self._record.begin(period)
        before = [stack.desired_version() for stack in self._stacks]
        for stack in self._stacks:
            stack.begin_round()
        injector = FaultInjector(round_, self._stacks, self._disk)
        with ThreadPoolExecutor() as pool:
            injection = pool.submit(injector.run)
            try:
                results = list(pool.map(Stack.act, self._stacks, round_.actions))
            finally:
                injector.end()
            injection.result()
            period.injected_at = injector.injected_at
            self._stacks[0].where.run("agent", "start")
            affected = [self._is_affected(round_, number) for number in range(len(STACKS))]
            list(pool.map(_check, self._stacks, round_.actions, results, before, affected))
        self._count()

    @staticmethod
    def _is_affected(round_: Round, number: int) -> bool:
        """Whether the fault may change the outcome of what is asked of a stack."""
        if round_.fault in (Fault.CLI_KILLED, Fault.CLI_INTERRUPTED):
            return number == round_.stack
        return round_.fault not in CERTAIN

    def _count(self) -> None:
        for clients in self._clients:
            for exchange in clients.new():
                self._record.add(exchange)
                if exchange.version == "bad":
                    raise InvariantViolation(f"A rejected release was live: {exchange}")


def _check(stack: Stack, action: Action, results: list[int], before: str, affected: bool) -> None:
    """Check a stack after a round: its action was done exactly; if `affected`, that or nothing."""
    stack.settle_rollout()
    version = stack.desired_version()
    expected = before if action in (*REJECTED, Action.ABORT) else stack.newest
    if action is Action.ROLLBACK:
        assert affected or version != before, version
        expected = version
    if not affected:
        assert results == [0] * (len(results) - 1) + [int(action in REJECTED)], (action, results)
        assert version == expected, (version, expected)
    elif action is not Action.SUPERSEDE:
        assert version in (before, expected), (version, before, expected)
    stack.check(version)
