"""Releases on GitHub, through its REST API.

Source: GitHub's REST API documentation, "Releases" and "Release assets" (version 2022-11-28): a
draft is found in the list only, files are sent to `upload_url`, and an upload that broke off leaves
a file in state `starter`, which has to be deleted before its name is free again.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlsplit

from lapwing.errors import ForgeError
from lapwing.release.forge import answers
from lapwing.release.forge.api import Api
from lapwing.release.forge.model import Asset, File, Published

PAGE = 100
DRAFTS = 5
"""Pages of releases that are looked through for a draft; drafts are among the newest."""


class GitHub:
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
            listed = answers.entries(
                await self._api.read(f"{self._path}?per_page={PAGE}&page={page}")
            )
            for entry in listed:
                if answers.field(entry, "draft", bool) and entry.get("tag_name") == tag:
                    return _release(entry)
            if len(listed) < PAGE:
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
        """Add a file, at the address that the release names."""
        address = (release.uploads or "").partition("{")[0]
        self._check(address)
        return _asset(
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

    async def publish(self, release: Published) -> Published:
        """Show it."""
        path = f"{self._path}/{release.id}"
        return _release(await self._api.change("PATCH", path, json={"draft": False}))

    def _check(self, address: str) -> None:
        """The token goes to GitHub only: `uploads.<domain>`, or the API's own host."""
        ours, theirs = urlsplit(self._api.base), urlsplit(address)
        hosts = (ours.netloc, ours.netloc.replace("api.", "uploads.", 1))
        if theirs.scheme != ours.scheme or theirs.netloc not in hosts:
            raise ForgeError(
                f"{self._api.name} names a strange address for files: {address[:200]}.",
                hint="Nothing was sent there.",
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


def _release(data: Any) -> Published:
    assets = [_asset(entry) for entry in answers.entries(answers.field(data, "assets", list))]
    return Published(
        id=answers.field(data, "id", int),
        tag=answers.field(data, "tag_name", str),
        draft=answers.field(data, "draft", bool),
        page=answers.field(data, "html_url", str),
        assets={asset.name: asset for asset in assets},
        uploads=answers.field(data, "upload_url", str),
    )


def _asset(data: Any) -> Asset:
    digest = data.get("digest") if isinstance(data, dict) else None
    return Asset(
        id=answers.field(data, "id", int),
        name=answers.field(data, "name", str),
        size=answers.field(data, "size", int),
        digest=digest if isinstance(digest, str) else None,
        whole=answers.field(data, "state", str) == "uploaded",
    )
