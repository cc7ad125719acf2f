"""Forges, where a release is shown and its files are stored: GitHub, Gitea, Forgejo.

A release is created as a draft, gets its files, and is published last: so an incomplete one is
never visible, and a forge whose releases cannot be changed once published (GitHub's immutable
releases) accepts the files, too. Gitea's API is modelled on GitHub's; a subclass defines how drafts
are listed, how files are uploaded and deleted, and how a file is described.
"""

from __future__ import annotations

import asyncio
import dataclasses
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from lapwing.errors import ForgeError
from lapwing.release.forge_api import ForgeApi, entries, field
from lapwing.release.remote import ForgeKind, RemoteRepository
from lapwing.settings import Settings

GITHUB_PAGE_SIZE = 100
GITHUB_MAX_PAGES = 5
"""Pages of releases that are searched for a draft; drafts are among the newest."""
GITEA_PAGE_SIZE = 50
"""Gitea's own upper limit by default."""
GITEA_MAX_PAGES = 10
GITEA_EMPTY = "repo is empty"
"""The message of a 422 for a repository whose first push Gitea has not processed yet
(routers/api/v1/repo/release.go)."""


@dataclass(frozen=True, slots=True)
class Asset:
    """A file of a release on a forge.

    `size` is in bytes; `digest` (`sha256:...`) where the forge reports it; `complete` is false for
    an interrupted upload.
    """

    id: int
    name: str
    size: int
    digest: str | None = None
    complete: bool = True


@dataclass(frozen=True, slots=True)
class ForgeRelease:
    """A release as a forge has it. `page` is its address for people.

    `duplicates` are files with the name of another one, which two jobs uploaded at once.
    """

    id: int
    tag: str
    draft: bool
    page: str
    assets: Mapping[str, Asset] = dataclasses.field(default_factory=dict)
    duplicates: tuple[Asset, ...] = ()
    upload_url: str | None = None


@dataclass(frozen=True, slots=True)
class ReleaseFile:
    """A file to upload."""

    name: str
    content: bytes = dataclasses.field(repr=False)
    media_type: str = "application/octet-stream"


class Forge(ABC):
    """The releases of `owner/name`. Every method raises ForgeError or ForgeLoginError."""

    def __init__(self, api: ForgeApi, owner: str, name: str) -> None:
        self._api = api
        self._repository = f"/repos/{owner}/{name}"
        self._path = f"{self._repository}/releases"

    @property
    def name(self) -> str:
        """The repository on the forge, for people."""
        return self._api.name

    @abstractmethod
    async def check_access(self, tag: str, commit: str) -> None:
        """Send a request that needs the permission to create releases, and changes nothing."""

    @abstractmethod
    async def merged_branches(self, commit: str) -> list[str]:
        """Return the branches of the merged pull requests that a commit belongs to."""

    async def find(self, tag: str) -> ForgeRelease | None:
        """Return the release of a tag, published or a draft; None if there is none."""
        found = await self._api.get(f"{self._path}/tags/{quote(tag, safe='')}", allow_missing=True)
        if found is not None:
            return self._release(found)
        async for entry in self._list():
            if field(entry, "tag_name", str) == tag and field(entry, "draft", bool):
                return self._release(entry)
        return None

    async def create(
        self, tag: str, commit: str, notes: str, *, newest: bool, prerelease: bool
    ) -> ForgeRelease:
        """Create a draft for an existing tag. Raises OutcomeUnknown if it may have been created."""
        return await self._create(tag, commit, notes, draft=True, prerelease=prerelease)

    async def _create(
        self, tag: str, commit: str, notes: str, *, draft: bool, prerelease: bool
    ) -> ForgeRelease:
        content = {
            "tag_name": tag,
            "target_commitish": commit,
            "name": tag,
            "body": notes,
            "draft": draft,
            "prerelease": prerelease,
        }
        return self._release(await self._api.change("POST", self._path, json=content))

    async def publish(self, release: ForgeRelease, *, newest: bool) -> ForgeRelease:
        """Publish a draft. Raises OutcomeUnknown if it may have been published."""
        path = f"{self._path}/{release.id}"
        content = {"draft": False} | self._latest(newest)
        return self._release(await self._api.change("PATCH", path, json=content))

    def _latest(self, newest: bool) -> dict[str, str]:
        """Return the fields that decide whether a release is the forge's latest one."""
        return {}

    @abstractmethod
    async def upload(self, release: ForgeRelease, file: ReleaseFile) -> Asset:
        """Upload a file. Raises OutcomeUnknown if it may have been stored."""

    @abstractmethod
    async def delete(self, release: ForgeRelease, asset: Asset) -> None:
        """Delete a file that an interrupted or a concurrent upload left."""

    @abstractmethod
    def _list(self) -> AsyncIterator[Any]:
        """List the newest releases, drafts included, as the API returns them."""

    def _release(self, data: Any) -> ForgeRelease:
        found = [self._asset(entry) for entry in entries(field(data, "assets", list))]
        # Of two files with one name the complete one stays, else the older one, for every job.
        found.sort(key=lambda asset: (not asset.complete, asset.id))
        assets: dict[str, Asset] = {}
        duplicates = tuple(a for a in found if assets.setdefault(a.name, a) is not a)
        return ForgeRelease(
            id=field(data, "id", int),
            tag=field(data, "tag_name", str),
            draft=field(data, "draft", bool),
            page=field(data, "html_url", str),
            assets=assets,
            duplicates=duplicates,
        )

    def _asset(self, data: Any) -> Asset:
        return Asset(field(data, "id", int), field(data, "name", str), field(data, "size", int))


class GitHub(Forge):
    """Releases on GitHub.

    Source: GitHub's REST API documentation, "Releases" and "Release assets" (version 2022-11-28): a
    draft is found in the list only, files are sent to `upload_url`, and an interrupted upload
    leaves a file in state `starter`, which has to be deleted before its name is free again.
    """

    async def check_access(self, tag: str, commit: str) -> None:
        """Generate notes, which needs the permission to write contents and stores nothing."""
        content = {"tag_name": tag, "target_commitish": commit}
        await self._api.change("POST", f"{self._path}/generate-notes", json=content)

    async def merged_branches(self, commit: str) -> list[str]:
        """Return the branches of the merged pull requests that a commit belongs to."""
        path = f"{self._repository}/commits/{commit}/pulls?per_page={GITHUB_PAGE_SIZE}"
        found = entries(await self._api.get(path))
        return [head_branch(entry) for entry in found if entry.get("merged_at")]

    def _latest(self, newest: bool) -> dict[str, str]:
        return {"make_latest": "true" if newest else "false"}

    async def _list(self) -> AsyncIterator[Any]:
        for page in range(1, GITHUB_MAX_PAGES + 1):
            path = f"{self._path}?per_page={GITHUB_PAGE_SIZE}&page={page}"
            listed = entries(await self._api.get(path))
            for entry in listed:
                yield entry
            if len(listed) < GITHUB_PAGE_SIZE:
                return

    async def upload(self, release: ForgeRelease, file: ReleaseFile) -> Asset:
        """Upload a file to the release's own address for uploads."""
        address = (release.upload_url or "").partition("{")[0]
        # The token goes to GitHub only: `uploads.<domain>`, or the API's own host.
        ours, theirs = urlsplit(self._api.base), urlsplit(address)
        hosts = (ours.netloc, ours.netloc.replace("api.", "uploads.", 1))
        if theirs.scheme != ours.scheme or theirs.netloc not in hosts:
            raise ForgeError(
                f"{self._api.name} names an upload address on another host: {address[:200]}.",
                hint="Nothing was sent there.",
            )
        url = f"{address}?name={quote(file.name)}"
        headers = {"Content-Type": file.media_type}
        return self._asset(
            await self._api.change("POST", url, content=file.content, headers=headers)
        )

    async def delete(self, release: ForgeRelease, asset: Asset) -> None:
        """Delete a file; another job may have done so."""
        await self._api.delete(f"{self._path}/assets/{asset.id}")

    def _release(self, data: Any) -> ForgeRelease:
        upload_url = field(data, "upload_url", str)
        return dataclasses.replace(super()._release(data), upload_url=upload_url)

    def _asset(self, data: Any) -> Asset:
        digest = data.get("digest") if isinstance(data, dict) else None
        return dataclasses.replace(
            super()._asset(data),
            digest=digest if isinstance(digest, str) else None,
            complete=field(data, "state", str) == "uploaded",
        )


class Gitea(Forge):
    """Releases on Gitea and Forgejo.

    Source: the API's own description, `/swagger.v1.json` of a Gitea 1.26. A pushed tag is no
    release yet: its release responds 404. A draft is found by its tag or in the list, as the
    version has it.

    Gitea processes a pushed tag some moments after the push, and then publishes a draft of that tag
    (services/repository/push.go, pushUpdateAddTags). So a release may be visible before all of its
    files are there; it is completed the same way. For the same reason a repository counts as empty
    for some moments after its first push, and accepts no release yet.

    The latest release of a repository is the one that was created last; a draft is created when it
    is sent, and a release of a pushed tag at the time of its tag (services/release/release.go,
    createTag). So a version that is not the newest is no draft, and its tag is older than that of
    the newest; pre-releases never count. A file of one name can be uploaded twice.
    """

    async def check_access(self, tag: str, commit: str) -> None:
        """Change a release that does not exist: without the permission the status is 403."""
        await self._api.change("PATCH", f"{self._path}/0", json={}, allow_missing=True)

    async def merged_branches(self, commit: str) -> list[str]:
        """Return the branch of the pull request whose merge a commit is."""
        path = f"{self._repository}/commits/{commit}/pull"
        found = await self._api.get(path, allow_missing=True)
        return [head_branch(found)] if found is not None else []

    async def _list(self) -> AsyncIterator[Any]:
        for page in range(1, GITEA_MAX_PAGES + 1):
            path = f"{self._path}?draft=true&limit={GITEA_PAGE_SIZE}&page={page}"
            listed = entries(await self._api.get(path))
            for entry in listed:
                yield entry
            if not listed:
                return

    async def create(
        self, tag: str, commit: str, notes: str, *, newest: bool, prerelease: bool
    ) -> ForgeRelease:
        """Create a draft, as soon as Gitea has processed the push."""
        failed = 0
        while True:
            try:
                draft = newest or prerelease
                return await self._create(tag, commit, notes, draft=draft, prerelease=prerelease)
            except ForgeError as error:
                failed += 1
                if error.detail != GITEA_EMPTY or failed >= self._api.retry.attempts:
                    raise
            await asyncio.sleep(self._api.retry.delay(failed))

    async def upload(self, release: ForgeRelease, file: ReleaseFile) -> Asset:
        """Upload a file."""
        form = {"attachment": (file.name, file.content, file.media_type)}
        path = f"{self._path}/{release.id}/assets"
        params = {"name": file.name}
        return self._asset(await self._api.change("POST", path, params=params, files=form))

    async def delete(self, release: ForgeRelease, asset: Asset) -> None:
        """Delete a file; another job may have done so."""
        await self._api.delete(f"{self._path}/{release.id}/assets/{asset.id}")


def head_branch(pull_request: Any) -> str:
    """Return the branch of a pull request. Raises ForgeError."""
    return field(field(pull_request, "head", dict), "ref", str)


@asynccontextmanager
async def open_forge(
    settings: Settings, repository: RemoteRepository, kind: ForgeKind
) -> AsyncIterator[Forge]:
    """Connect to the forge of a repository."""
    token = settings.forge_token(kind)
    if kind == "github":
        base = _github_api(repository.web)
        # Source: GitHub's documentation, "API versions".
        headers = {
            "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": "2022-11-28",
        } | ({"Authorization": f"Bearer {token}"} if token else {})
    else:
        base = f"{repository.web}/api/v1"
        headers = {"Authorization": f"token {token}"} if token else {}
    api = ForgeApi(base, str(repository), token, headers, settings.environ)
    try:
        forge = GitHub if kind == "github" else Gitea
        yield forge(api, repository.owner, repository.name)
    finally:
        await api.close()


def _github_api(web: str) -> str:
    """Return the address of a GitHub's API.

    Source: GitHub's documentation of Enterprise Server (`/api/v3`) and of data residency
    (`api.NAME.ghe.com`).
    """
    host = urlsplit(web).netloc
    if host == "github.com" or host.endswith(".ghe.com"):
        return f"https://api.{host}"
    return f"{web}/api/v3"
