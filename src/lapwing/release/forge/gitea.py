"""Releases on Gitea and Forgejo, through their REST API.

Source: the API's own description, `/swagger.v1.json` of a Gitea 1.26. A tag that was pushed with
git is no release yet: asking for its release answers 404. A draft is found by its tag or in the
list, as the version has it.

Gitea looks at a pushed tag some moments after the push, and then publishes a draft of that tag
(services/repository/push.go, pushUpdateAddTags). So a release may be seen before its files are all
there; it is completed the same way.
"""

from __future__ import annotations

from typing import Any

from lapwing.release.forge import answers
from lapwing.release.forge.api import Api
from lapwing.release.forge.model import Asset, File, Published

PAGE = 50
"""Releases in one answer; Gitea's own upper limit by default."""
DRAFTS = 10
"""Pages of drafts that are looked through."""


class Gitea:
    """Releases of `owner/name`."""

    def __init__(self, api: Api, owner: str, name: str) -> None:
        self._api = api
        self._path = f"/repos/{owner}/{name}/releases"

    async def find(self, tag: str) -> Published | None:
        """The release of a tag, or its draft."""
        found = await self._api.read(f"{self._path}/tags/{tag}", missing=True)
        if found is not None:
            return _release(found)
        for page in range(1, DRAFTS + 1):
            listed = await self._api.read(f"{self._path}?draft=true&limit={PAGE}&page={page}")
            drafts = [_release(entry) for entry in answers.entries(listed)]
            for draft in drafts:
                if draft.draft and draft.tag == tag:
                    return draft
            if not drafts:
                break
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
        return _release(await self._api.change("POST", self._path, json=about))

    async def upload(self, release: Published, file: File) -> Asset:
        """Add a file."""
        sent = {"attachment": (file.name, file.content, file.media_type)}
        path = f"{self._path}/{release.id}/assets"
        return _asset(await self._api.change("POST", path, params={"name": file.name}, files=sent))

    async def remove(self, release: Published, asset: Asset) -> None:
        """Remove a file."""
        await self._api.change("DELETE", f"{self._path}/{release.id}/assets/{asset.id}")

    async def publish(self, release: Published) -> Published:
        """Show it."""
        path = f"{self._path}/{release.id}"
        return _release(await self._api.change("PATCH", path, json={"draft": False}))


def _release(data: Any) -> Published:
    assets = [_asset(entry) for entry in answers.entries(answers.field(data, "assets", list))]
    return Published(
        id=answers.field(data, "id", int),
        tag=answers.field(data, "tag_name", str),
        draft=answers.field(data, "draft", bool),
        page=answers.field(data, "html_url", str),
        assets={asset.name: asset for asset in assets},
    )


def _asset(data: Any) -> Asset:
    return Asset(
        id=answers.field(data, "id", int),
        name=answers.field(data, "name", str),
        size=answers.field(data, "size", int),
    )
