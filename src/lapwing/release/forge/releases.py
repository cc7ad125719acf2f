"""What GitHub's and Gitea's release APIs have in common: Gitea's is made after GitHub's.

A subclass says how drafts are listed, how files are sent and removed, and what an answer means.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from typing import Any

from lapwing.release.forge import answers
from lapwing.release.forge.api import Api
from lapwing.release.forge.model import Asset, Published


class Releases(ABC):
    """Releases of `owner/name`."""

    def __init__(self, api: Api, owner: str, name: str) -> None:
        self._api = api
        self._path = f"/repos/{owner}/{name}/releases"

    async def find(self, tag: str) -> Published | None:
        """The release of a tag, or its draft: a tag that was pushed is no release yet."""
        found = await self._api.read(f"{self._path}/tags/{tag}", missing=True)
        if found is not None:
            return self._release(found)
        async for entry in self._listed():
            named = answers.field(entry, "tag_name", str)
            if named == tag and answers.field(entry, "draft", bool):
                return self._release(entry)
        return None

    async def create(self, tag: str, commit: str, notes: str) -> Published:
        """Make a draft."""
        about = {
            "tag_name": tag,
            "target_commitish": commit,
            "name": tag,
            "body": notes,
            "draft": True,
            "prerelease": False,
        }
        return self._release(await self._api.change("POST", self._path, json=about))

    async def publish(self, release: Published) -> Published:
        """Show it."""
        path = f"{self._path}/{release.id}"
        return self._release(await self._api.change("PATCH", path, json={"draft": False}))

    @abstractmethod
    def _listed(self) -> AsyncIterator[Any]:
        """The newest releases among which a draft is, as the forge answers them."""

    @abstractmethod
    def _asset(self, data: Any) -> Asset:
        """What the forge says of a file."""

    def _release(self, data: Any) -> Published:
        assets = [self._asset(e) for e in answers.entries(answers.field(data, "assets", list))]
        return Published(
            id=answers.field(data, "id", int),
            tag=answers.field(data, "tag_name", str),
            draft=answers.field(data, "draft", bool),
            page=answers.field(data, "html_url", str),
            assets={asset.name: asset for asset in assets},
        )
