"""Outcomes: what became of each commit, as a git note. Every commit gets one.

That includes a commit that nobody took up because a newer one was there first, one whose note a
full disk refused, and one whose agent was killed a moment before it wrote the note: somebody may
wait for each of them, and the history must not say `in-progress` for ever.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from lapwing.agent.decide import same
from lapwing.desired import history
from lapwing.desired.repository import DesiredRepository
from lapwing.errors import DesiredStateError, LapwingError, NoSpaceError
from lapwing.plan.model import Document

log = logging.getLogger(__name__)

OVERTAKEN = "A newer deployment came before it was begun."


class Outcomes:
    """Writes the outcomes of one environment. `tell` is given commit, outcome and reason of those
    that are found out late."""

    def __init__(
        self,
        repository: DesiredRepository,
        stack: str,
        environment: str,
        tell: Callable[[str, str, str], None],
    ) -> None:
        self._repository = repository
        self._where = (stack, environment)
        self._tell = tell
        self._unwritten: dict[str, tuple[str, str | None]] = {}

    async def note(self, commit: str, outcome: str, reason: str | None) -> None:
        """Write down an outcome; when the disk is full, at the next `retry`."""
        self._unwritten[commit] = (outcome, reason)
        await self.retry()

    async def retry(self) -> None:
        """Write what could not be written before."""
        for commit, (outcome, reason) in list(self._unwritten.items()):
            try:
                await asyncio.to_thread(self._repository.note, commit, outcome, reason)
            except NoSpaceError as error:
                log.warning("The outcome of %s cannot be noted yet: %s", commit, error)
                return
            except LapwingError as error:
                log.warning("The outcome of %s was not noted: %s", commit, error)
            self._unwritten.pop(commit, None)

    async def of_same(self, document: Document, head: str) -> list[str]:
        """The commits up to `head` that want this document and have no outcome yet, oldest first:
        a deployment and its promotions share one, and so do two that were told apart by nothing."""
        return [c for c in reversed(await self._open(head)) if await self._wants(document, c)]

    async def settle(self, document: Document, head: str, *, succeeded: bool) -> None:
        """Note the outcome of every commit before `head` that has none: it was overtaken, unless it
        wants the same. With `succeeded`, this document is known to run."""
        for commit in await self._open(head):
            if not await self._wants(document, commit):
                await self._late(commit, "superseded", OVERTAKEN)
            elif succeeded:
                await self._late(commit, "succeeded", "It runs.")

    async def _wants(self, document: Document, commit: str) -> bool:
        try:
            found = await asyncio.to_thread(self._repository.read, *self._where, commit)
        except DesiredStateError:
            return False
        return found is not None and same(found, document)

    async def _late(self, commit: str, outcome: str, reason: str) -> None:
        await self.note(commit, outcome, None if outcome == "succeeded" else reason)
        self._tell(commit, outcome, reason)

    async def _open(self, commit: str) -> list[str]:
        try:
            found = await asyncio.to_thread(history.open_, self._repository, *self._where, commit)
        except DesiredStateError as error:
            log.warning("Open outcomes cannot be read: %s", error)
            return []
        return [c for c in found if c not in self._unwritten]
