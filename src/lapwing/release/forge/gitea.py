"""Releases on Gitea and Forgejo, through their REST API.

Source: the API's own description, `/swagger.v1.json` of a Gitea 1.26. A tag that was pushed with
git is no release yet: asking for its release answers 404. A draft is found by its tag or in the
list, as the version has it.

Gitea looks at a pushed tag some moments after the push, and then publishes a draft of that tag
(services/repository/push.go, pushUpdateAddTags). So a release may be seen before its files are all
there; it is completed the same way. For the same reason a repository counts as empty for some
moments after its first push, and takes no release yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from lapwing.errors import ForgeError
from lapwing.release.forge import answers
from lapwing.release.forge.model import Asset, File, Published
from lapwing.release.forge.releases import Releases

PAGE = 50
"""Releases in one answer; Gitea's own upper limit by default."""
DRAFTS = 10
"""Pages of drafts that are looked through."""
EMPTY = "repo is empty"
"""What Gitea says, with a 422, of a repository whose first push it has not looked at yet
(routers/api/v1/repo/release.go)."""


class Gitea(Releases):
    """Releases of `owner/name` on a Gitea or Forgejo."""

    async def _listed(self) -> AsyncIterator[Any]:
        for page in range(1, DRAFTS + 1):
            path = f"{self._path}?draft=true&limit={PAGE}&page={page}"
            listed = answers.entries(await self._api.read(path))
            for entry in listed:
                yield entry
            if not listed:
                return

    async def create(self, tag: str, commit: str, notes: str) -> Published:
        """Make a draft, as soon as Gitea has looked at the push."""
        failed = 0
        while True:
            try:
                return await super().create(tag, commit, notes)
            except ForgeError as error:
                failed += 1
                if error.detail != EMPTY or failed >= self._api.patience.attempts:
                    raise
            await asyncio.sleep(self._api.patience.delay(failed))

    async def upload(self, release: Published, file: File) -> Asset:
        """Add a file."""
        sent = {"attachment": (file.name, file.content, file.media_type)}
        path = f"{self._path}/{release.id}/assets"
        return self._asset(
            await self._api.change("POST", path, params={"name": file.name}, files=sent)
        )

    async def remove(self, release: Published, asset: Asset) -> None:
        """Remove a file."""
        await self._api.change("DELETE", f"{self._path}/{release.id}/assets/{asset.id}")

    def _asset(self, data: Any) -> Asset:
        return Asset(
            id=answers.field(data, "id", int),
            name=answers.field(data, "name", str),
            size=answers.field(data, "size", int),
        )
