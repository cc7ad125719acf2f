"""Writes the outcome of each commit of the desired state, as a git note.

Every commit gets one, also a commit that a newer one superseded before it was started, one whose
note did not fit on a full disk, and one whose agent was killed before it wrote the note: a command
may wait for any of them, and the history must not show `in-progress` for ever.
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

SUPERSEDED = "A newer deployment was made before this one started."


class Outcomes:
    """Writes the outcomes of one environment.

    `report` receives commit, outcome and reason of those that `settle` finds.
    """

    def __init__(
        self,
        repository: DesiredRepository,
        stack: str,
        environment: str,
        report: Callable[[str, str, str], None],
    ) -> None:
        self._repository = repository
        self._where = (stack, environment)
        self._report = report
        self._unwritten: dict[str, tuple[str, str | None]] = {}

    async def note(self, commit: str, outcome: str, reason: str | None) -> None:
        """Write an outcome; if the disk is full, at the next `retry`."""
        self._unwritten[commit] = (outcome, reason)
        await self.retry()

    async def retry(self) -> None:
        """Write the outcomes that could not be written before."""
        for commit, (outcome, reason) in list(self._unwritten.items()):
            try:
                await asyncio.to_thread(self._repository.record_outcome, commit, outcome, reason)
            except NoSpaceError as error:
                log.warning("The outcome of %s cannot be written yet: %s", commit, error)
                return
            except LapwingError as error:
                log.warning("The outcome of %s was not written: %s", commit, error)
            self._unwritten.pop(commit, None)

    async def pending_commits(self, document: Document, head: str) -> list[str]:
        """Return the commits up to `head` with this document and without an outcome, oldest first.

        A deployment and its promotions share an outcome, and so do repeated deployments.
        """
        return [c for c in reversed(await self._open(head)) if await self._has(document, c)]

    async def settle(self, document: Document, head: str, *, succeeded: bool) -> None:
        """Write the outcome of every commit before `head` that has none.

        It is superseded, unless it has the same document. With `succeeded`, this document is
        running.
        """
        for commit in await self._open(head):
            if not await self._has(document, commit):
                await self._late(commit, "superseded", SUPERSEDED)
            elif succeeded:
                await self._late(commit, "succeeded", "It is running.")

    async def condemn(self, document: Document, head: str, outcome: str, reason: str) -> None:
        """Replace the outcome of `head` and of the commits directly before it with this document.

        They are repeated deployments, and the beginning or the end of a maintenance.
        """
        for commit in await self._commits(head):
            if not await self._has(document, commit):
                return
            await self.note(commit, outcome, reason)

    async def _has(self, document: Document, commit: str) -> bool:
        try:
            found = await asyncio.to_thread(self._repository.read, *self._where, commit)
        except DesiredStateError:
            return False
        return found is not None and same(found, document)

    async def _late(self, commit: str, outcome: str, reason: str) -> None:
        await self.note(commit, outcome, None if outcome == "succeeded" else reason)
        self._report(commit, outcome, reason)

    async def _open(self, commit: str) -> list[str]:
        found = await self._commits(commit)
        return [c for c, has_one in found.items() if not has_one and c not in self._unwritten]

    async def _commits(self, commit: str) -> dict[str, bool]:
        """Return the commits from `commit` backwards, and which have an outcome."""
        try:
            return await asyncio.to_thread(history.commits, self._repository, *self._where, commit)
        except DesiredStateError as error:
            log.warning("Outcomes cannot be read: %s", error)
            return {}
