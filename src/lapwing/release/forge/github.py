"""Releases on GitHub, through its REST API.

Source: GitHub's REST API documentation, "Releases" and "Release assets" (version 2022-11-28): a
draft is found in the list only, files are sent to `upload_url`, and an upload that broke off leaves
a file in state `starter`, which has to be deleted before its name is free again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote, urlsplit

from lapwing.errors import ForgeError
from lapwing.release.forge import answers
from lapwing.release.forge.model import Asset, File, Published
from lapwing.release.forge.releases import Releases

PAGE = 100
DRAFTS = 5
"""Pages of releases that are looked through for a draft; drafts are among the newest."""


class GitHub(Releases):
    """Releases of `owner/name` on GitHub."""

    async def _listed(self) -> AsyncIterator[Any]:
        for page in range(1, DRAFTS + 1):
            path = f"{self._path}?per_page={PAGE}&page={page}"
            listed = answers.entries(await self._api.read(path))
            for entry in listed:
                yield entry
            if len(listed) < PAGE:
                return

    async def upload(self, release: Published, file: File) -> Asset:
        """Add a file, at the address that the release names."""
        address = (release.uploads or "").partition("{")[0]
        self._check(address)
        return self._asset(
            await self._api.change(
                "POST",
                f"{address}?name={quote(file.name)}",
                content=file.content,
                headers={"Content-Type": file.media_type},
            )
        )

    async def remove(self, release: Published, asset: Asset) -> None:
        """Remove a file."""
        await self._api.change("DELETE", f"{self._path}/assets/{asset.id}")

    def _check(self, address: str) -> None:
        """The token goes to GitHub only: `uploads.<domain>`, or the API's own host."""
        ours, theirs = urlsplit(self._api.base), urlsplit(address)
        hosts = (ours.netloc, ours.netloc.replace("api.", "uploads.", 1))
        if theirs.scheme != ours.scheme or theirs.netloc not in hosts:
            raise ForgeError(
                f"{self._api.name} names a strange address for files: {address[:200]}.",
                hint="Nothing was sent there.",
            )

    def _release(self, data: Any) -> Published:
        uploads = answers.field(data, "upload_url", str)
        return dataclasses.replace(super()._release(data), uploads=uploads)

    def _asset(self, data: Any) -> Asset:
        digest = data.get("digest") if isinstance(data, dict) else None
        return Asset(
            id=answers.field(data, "id", int),
            name=answers.field(data, "name", str),
            size=answers.field(data, "size", int),
            digest=digest if isinstance(digest, str) else None,
            whole=answers.field(data, "state", str) == "uploaded",
        )


def api_of(web: str) -> str:
    """The address of the API of a GitHub. Source: GitHub's documentation of Enterprise Server
    (`/api/v3`) and of data residency (`api.NAME.ghe.com`)."""
    parts = urlsplit(web)
    if parts.netloc == "github.com" or parts.netloc.endswith(".ghe.com"):
        return f"https://api.{parts.netloc}"
    return f"{web}/api/v3"


def headers(token: str | None) -> dict[str, str]:
    """What every request says. Source: GitHub's documentation, "API versions"."""
    said = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"}
    return said | ({"Authorization": f"Bearer {token}"} if token else {})
