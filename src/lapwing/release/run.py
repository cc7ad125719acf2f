"""The loop of a release: check each step, run what is missing, stop at the first failure.

It does not know what the steps do. Because each step checks before it acts, an interrupted release
is completed by running it again, and a complete one is left alone.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, NoReturn

from lapwing.errors import LapwingError
from lapwing.release.forge_api import OutcomeUnknown
from lapwing.system.retry import RetryPolicy


@dataclass(frozen=True, slots=True)
class Present:
    """The step's result exists already."""

    note: str = ""


@dataclass(frozen=True, slots=True)
class Missing:
    """The step has to run; `note` describes its result."""

    note: str = ""


@dataclass(frozen=True, slots=True)
class Skipped:
    """The step is not part of this release."""

    reason: str


StepState = Present | Missing | Skipped


class Outcome(StrEnum):
    """The outcome of a step. `planned` is a dry run's `done`."""

    DONE = "done"
    PRESENT = "present"
    PLANNED = "planned"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class StepResult:
    """A step and its outcome; `note` is for people."""

    name: str
    outcome: Outcome
    note: str = ""


Report = Callable[[StepResult], None]
"""Called with each result as soon as it is known."""


@dataclass(slots=True)
class Step(ABC):
    """One step of a release. `name` is its name in reports."""

    name: str
    is_local: ClassVar[bool] = False
    """Whether its check needs nothing but the commit."""

    @abstractmethod
    async def check(self) -> StepState:
        """Return whether the step's result exists; change nothing.

        Raises LapwingError if something else exists in its place.
        """

    @abstractmethod
    async def run(self) -> str:
        """Run the step; return a note for people."""


class ReleaseStopped(Exception):
    """A step failed: `results` has those before it and itself."""

    def __init__(self, results: list[StepResult], error: LapwingError) -> None:
        super().__init__(str(error))
        self.results = results
        self.error = error


async def run_steps(steps: Iterable[Step], *, dry_run: bool, report: Report) -> list[StepResult]:
    """Check each step, and run what is missing; with `dry_run`, only check.

    Raises ReleaseStopped at the first step that fails. A dry run continues after it, because later
    steps may fail for other reasons, and raises for the first one at its end.
    """
    results: list[StepResult] = []
    stopped: LapwingError | None = None
    for step in steps:
        try:
            result = await _run_step(step, dry_run=dry_run)
        except LapwingError as error:
            result = StepResult(step.name, Outcome.FAILED, error.message)
            stopped = stopped or error
        results.append(result)
        report(result)
        if stopped is not None and not dry_run:
            break
    if stopped is not None:
        raise ReleaseStopped(results, stopped)
    return results


async def preview_steps(
    steps: Iterable[Step], problems: Sequence[LapwingError], report: Report
) -> NoReturn:
    """Show the problems that prevent a release, and its steps, for a dry run.

    Only steps that depend on nothing but the commit are checked. Raises ReleaseStopped for the
    first problem.
    """
    results = [StepResult("check", Outcome.FAILED, problem.message) for problem in problems]
    for result in results:
        report(result)
    for step in steps:
        try:
            result = StepResult(step.name, Outcome.PLANNED)
            if step.is_local:
                result = await _run_step(step, dry_run=True)
        except LapwingError as error:
            result = StepResult(step.name, Outcome.FAILED, error.message)
        results.append(result)
        report(result)
    raise ReleaseStopped(results, problems[0])


async def _run_step(step: Step, *, dry_run: bool) -> StepResult:
    state = await step.check()
    if isinstance(state, Present):
        return StepResult(step.name, Outcome.PRESENT, state.note)
    if isinstance(state, Skipped):
        return StepResult(step.name, Outcome.SKIPPED, state.reason)
    if dry_run:
        return StepResult(step.name, Outcome.PLANNED, state.note)
    return StepResult(step.name, Outcome.DONE, await step.run() or state.note)


async def run_once(
    change: Callable[[], Awaitable[None]],
    check: Callable[[], Awaitable[StepState]],
    retry: RetryPolicy,
) -> None:
    """Make a change; where its outcome is unknown, check, and repeat it only if it was not made.

    Raises the error of the last attempt.
    """
    failed = 0
    while True:
        try:
            await change()
            return
        except OutcomeUnknown as unknown:
            failed += 1
            await asyncio.sleep(retry.delay(failed))
            if isinstance(await check(), Present):
                return
            if failed >= retry.attempts:
                raise unknown.error from unknown
