"""Removes the state of branches' environments that were removed from the desired state.

`lapwing down --volumes` stops the environment of a branch, removes its document, and waits until
its folder is gone: the agent, which writes into the folder, removes it.
"""

from __future__ import annotations

import asyncio
import shutil
import uuid
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from lapwing.agent.environment import Environment
from lapwing.desired.repository import DesiredRepository
from lapwing.stack.branch_names import split

Key = tuple[str, str]
TRASH = ".removed"
"""How folders in `environments` begin that are being removed."""


class RemovedEnvironments:
    """Ends the stopped environments of branches without a document, and removes their folders.

    `end` stops the tasks of one. `tick` is called every second, and runs git only after a change.
    """

    def __init__(
        self,
        environments: Mapping[Key, Environment],
        repository: DesiredRepository,
        end: Callable[[Key], Awaitable[None]],
        home: Path,
    ) -> None:
        self._environments = environments
        self._repository = repository
        self._end = end
        self._folder = home / "environments"
        self._seen: object = None
        for left in self._folder.glob(f"{TRASH}*"):
            shutil.rmtree(left, ignore_errors=True)

    async def tick(self) -> None:
        """Forget what was removed. Raises DesiredStateError or OSError."""
        found = [k for k, e in self._environments.items() if split(k[1])[1] is not None and e.idle]
        present = (self._repository.fingerprint(), found)
        if not found or present == self._seen:
            return
        known = await asyncio.to_thread(self._repository.environments)
        self._seen = present
        for key in set(found) - set(known):
            if self._environments[key].idle:  # It was not deployed again meanwhile.
                await self._forget(key)
            else:
                self._seen = None

    async def _forget(self, key: Key) -> None:
        folder = self._environments[key].store.folder
        await self._end(key)
        if key in self._environments or not folder.exists():
            return  # It was deployed again meanwhile, and the new one uses the folder.
        trash = self._folder / f"{TRASH}-{uuid.uuid4().hex}"
        folder.rename(trash)
        await asyncio.to_thread(shutil.rmtree, trash, ignore_errors=True)
