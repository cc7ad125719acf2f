"""The one loop of a release: look at each step, do what is missing, stop at what fails.

It does not know what the steps do. A release that broke off anywhere is completed by running it
again, and one that is whole is left alone, because each step looks before it acts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol

from lapwing.errors import LapwingError
from lapwing.registry.registry import RetryPolicy
from lapwing.release.forge.api import Unclear
from lapwing.release.plan import LeftOut, Outcome, Present, Result, Verdict


class Step(Protocol):
    """Something that a release consists of."""

    @property
    def name(self) -> str:
        """How it is called in a report."""
        ...

    @property
    def is_local(self) -> bool:
        """Whether looking at it needs nothing but the commit."""
        ...

    async def look(self) -> Verdict:
        """Whether it is there; changes nothing. Raises LapwingError if something else is."""
        ...

    async def act(self) -> str:
        """Make it; returns a note for people."""
        ...


class ReleaseStopped(Exception):
    """A step failed: `results` has those before it and itself."""

    def __init__(self, results: list[Result], error: LapwingError) -> None:
        super().__init__(str(error))
        self.results = results
        self.error = error


async def run(steps: Iterable[Step], *, dry: bool, tell: Callable[[Result], None]) -> list[Result]:
    """Look at each step, and do what is missing; with `dry`, only look.

    Raises ReleaseStopped at the first step that fails. A dry run goes on after it, because the
    steps behind may fail for reasons of their own, and raises for the first one at its end.
    """
    results: list[Result] = []
    stopped: LapwingError | None = None
    for step in steps:
        try:
            result = await _one(step, dry=dry)
        except LapwingError as error:
            result = Result(step.name, Outcome.FAILED, error.message)
            stopped = stopped or error
        results.append(result)
        tell(result)
        if stopped is not None and not dry:
            break
    if stopped is not None:
        raise ReleaseStopped(results, stopped)
    return results


async def glimpse(
    steps: Iterable[Step], obstacles: Sequence[LapwingError], tell: Callable[[Result], None]
) -> list[Result]:
    """What a dry run can tell where a release could not be made: why, and the steps. Only those
    that are made of the commit are looked at."""
    results = [Result("check", Outcome.FAILED, error.message) for error in obstacles]
    for result in results:
        tell(result)
    for step in steps:
        try:
            result = (
                await _one(step, dry=True) if step.is_local else Result(step.name, Outcome.PLANNED)
            )
        except LapwingError as error:
            result = Result(step.name, Outcome.FAILED, error.message)
        results.append(result)
        tell(result)
    return results


async def _one(step: Step, *, dry: bool) -> Result:
    verdict = await step.look()
    if isinstance(verdict, Present):
        return Result(step.name, Outcome.PRESENT, verdict.note)
    if isinstance(verdict, LeftOut):
        return Result(step.name, Outcome.SKIPPED, verdict.reason)
    if dry:
        return Result(step.name, Outcome.PLANNED, verdict.note)
    return Result(step.name, Outcome.DONE, await step.act() or verdict.note)


async def surely(
    act: Callable[[], Awaitable[None]],
    look: Callable[[], Awaitable[Verdict]],
    patience: RetryPolicy,
) -> None:
    """Act, and where it stays unclear whether that was done, look; act again only if it was not.

    Raises the error of the last try.
    """
    failed = 0
    while True:
        try:
            await act()
            return
        except Unclear as unclear:
            failed += 1
            await asyncio.sleep(patience.delay(failed))
            if isinstance(await look(), Present):
                return
            if failed >= patience.attempts:
                raise unclear.error from unclear
