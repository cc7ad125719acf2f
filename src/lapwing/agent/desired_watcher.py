"""Follows the branch of the desired-state repository and hands each changed document on.

The watch is armed before the branch is read, so no commit in between is missed, and an idle agent
costs nothing. Events report only that a file changed, never which commit: the branch is read again,
and is read every second anyway, so a replaced folder or a file system without inotify delays the
agent and no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lapwing.desired import history
from lapwing.desired.repository import DesiredRepository
from lapwing.errors import DesiredStateError, LapwingError
from lapwing.plan.model import Document

if TYPE_CHECKING:
    from asyncinotify import Inotify

log = logging.getLogger(__name__)

READ_INTERVAL_S = 1.0
"""Time after which the branch is read although no file changed."""
POLL_INTERVAL_S = 0.05
"""Time between two reads where the system has no inotify."""
REPAIR_HINT = (
    "Running services continue. `lapwing doctor --repair` commits what is running to the "
    "desired state."
)

Key = tuple[str, str]
"""Stack and environment."""


class FileWatch:
    """Watches the files directly in `folders`. Belongs to one event loop; `close` it."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self._folders = tuple(folders)
        self._inotify = _inotify()

    def arm(self) -> None:
        """Watch the folders as they are now; missing ones are skipped. Idempotent."""
        if self._inotify is None:
            return
        from asyncinotify import Mask

        mask = Mask.MOVED_TO | Mask.CREATE | Mask.DELETE | Mask.CLOSE_WRITE
        for folder in self._folders:
            with contextlib.suppress(OSError):
                self._inotify.add_watch(folder, mask)

    async def changed(self, timeout: float) -> None:
        """Return when a file changed since `arm` or the last call, or after `timeout` seconds."""
        if self._inotify is None:
            await asyncio.sleep(min(timeout, POLL_INTERVAL_S))
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._inotify.get()

    def close(self) -> None:
        """Stop watching."""
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None


def _inotify() -> Inotify | None:
    try:
        from asyncinotify import Inotify

        return Inotify()
    except (ImportError, OSError, RuntimeError):  # macOS has none; Linux limits their number.
        return None


class DesiredStateWatcher:
    """Follows the desired state until cancelled.

    `running` returns the document of each environment; `apply` is called with each new document,
    `report` with the problem of all environments and those of single ones, `warn` with a sentence.
    `log` is where details of unexpected errors are.
    """

    def __init__(
        self,
        repository: DesiredRepository,
        log: Path,
        *,
        running: Callable[[], Mapping[Key, Document | None]],
        apply: Callable[[Key, str, Document], None],
        report: Callable[[LapwingError | None, Mapping[Key, LapwingError]], None],
        warn: Callable[[str], None],
    ) -> None:
        self._repository = repository
        self._log = log
        self._running = running
        self._apply = apply
        self._report = report
        self._warn = warn
        self._head: str | None = None
        self._applied: dict[Key, str] = {}
        self._broken: dict[Key, LapwingError] = {}
        """The environments whose document is invalid or missing."""
        self._rewritten: str | None = None
        """The head that was last reported as a rewrite of the history."""

    async def run(self) -> None:
        """Read the branch now and whenever it changes; after a failure, again in a second."""
        path = self._repository.path
        watch = FileWatch((path, path / "refs" / "heads"))
        seen: object = None
        try:
            while True:
                watch.arm()
                present = self._repository.fingerprint()
                if present != seen:
                    seen = present if await self._read() else None
                await watch.changed(READ_INTERVAL_S)
        finally:
            watch.close()

    async def _read(self) -> bool:
        """Apply the documents at the head; returns whether all could be read."""
        try:
            head = self._repository.head()
            if head == self._head and not self._broken:
                self._report(None, {})
                return True
            if rewrite := await asyncio.to_thread(self._check_rewrite, head):
                self._warn(rewrite)
            running = dict(self._running())
            changes, self._broken = await asyncio.to_thread(self._changes, head, running)
        except LapwingError as error:
            self._report(error, self._broken)
            return False
        except OSError as error:
            problem = DesiredStateError(f"The desired state cannot be read: {error}.")
            self._report(problem, self._broken)
            return False
        except Exception:  # A repository can be broken in unexpected ways: keep following it.
            log.exception("The desired state cannot be read.")
            problem = DesiredStateError(
                "The desired state cannot be read.",
                hint=f"See {self._log}. {REPAIR_HINT}",
            )
            self._report(problem, self._broken)
            return False
        self._head = head
        for key, commit, document in changes:
            self._apply(key, commit, document)
            self._applied[key] = commit
        self._report(None, self._broken)
        return not self._broken

    def _changes(
        self, head: str | None, running: Mapping[Key, Document | None]
    ) -> tuple[list[tuple[Key, str, Document]], dict[Key, LapwingError]]:
        """Return the new documents at a head, and the environments without a valid one. Runs git.

        An invalid document of one stack does not keep the others from being followed.
        """
        found, broken = [], dict[Key, LapwingError]()
        known = self._repository.environments(head)
        for key in known:
            commit = self._repository.newest(*key)
            if commit is None or self._applied.get(key) == commit:
                continue
            try:
                document = self._repository.read(*key, commit)
            except DesiredStateError as error:
                broken[key] = error
                continue
            if document is not None and document.target == "machine":
                found.append((key, commit, history.deployed(self._repository, document, commit)))
        for key, document in running.items():
            if key not in known and document is not None and document.services:
                broken[key] = DesiredStateError(
                    f"The desired state no longer has a document for {'/'.join(key)}.",
                    hint=REPAIR_HINT,
                )
        return found, broken

    def _check_rewrite(self, head: str | None) -> str | None:
        """After a force-push, keep the old head reachable; returns a warning about it. Runs git.

        The new head is then followed like any other commit; if it has no document, running services
        continue.
        """
        before = self._head
        if before is None or head == self._rewritten:
            return None
        if head is None:
            raise DesiredStateError(
                f"The desired-state repository {self._repository.path} has no branch `main`.",
                hint=REPAIR_HINT,
            )
        if self._repository.is_descendant(head, before):
            return None
        self._rewritten = head
        with contextlib.suppress(DesiredStateError):
            self._repository.pin(before, f"rewritten/{before[:12]}")
        return (
            "The history of the desired state was rewritten; the previous history is kept as "
            f"refs/lapwing/rewritten/{before[:12]}."
        )
