"""One repository of a registry: its manifests and tags.

What is read is verified before it is returned: a manifest by its digest, a list by its limits.
Source of the paths and headers: the OCI distribution specification 1.1.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from lapwing.errors import ImageMissingError, IntegrityError, RegistryError
from lapwing.registry.manifest import ACCEPT, Descriptor, Manifest, parse_manifest
from lapwing.registry.registry import Registry, Request
from lapwing.registry.response import FullResponse, Response
from lapwing.registry.tokens import Scopes
from lapwing.stack.image import is_tag

MAX_PAGES = 1000
"""Pages of one list at most."""


class Repository:
    """A repository by its registry and name.

    `write` requests tokens that allow pushing, `delete` those that allow deleting; `mount_from`
    names another repository there that blobs are mounted from.
    """

    def __init__(
        self,
        registry: Registry,
        name: str,
        *,
        write: bool = False,
        delete: bool = False,
        mount_from: str | None = None,
    ) -> None:
        self.registry = registry
        self.name = name
        actions = "pull,push" if write else "pull"
        actions += ",delete" if delete else ""
        self._scopes = _scopes((f"repository:{name}:{actions}",), mount_from)

    def __str__(self) -> str:
        return f"{self.registry.host}/{self.name}"

    def path(self, rest: str) -> str:
        """Return the path of an endpoint of this repository."""
        return f"/v2/{self.name}/{rest}"

    async def request(
        self, request: Request, *ok: int, mount_from: str | None = None
    ) -> FullResponse:
        """Make a request with this repository's scopes, with retries.

        `mount_from` is another repository to mount a blob from.
        """
        scopes = _scopes(self._scopes, mount_from)
        return await self.registry.request(request, scopes=scopes, ok=ok or (200,))

    def exchange(self, request: Request, *ok: int) -> AbstractAsyncContextManager[Response]:
        """Make one exchange with this repository's scopes."""
        return self.registry.exchange(request, scopes=self._scopes, ok=ok or (200,))

    async def digest(self, reference: str) -> str | None:
        """Return the digest of the manifest at a tag or digest, without reading it.

        None if it is missing, an empty text if the registry does not give it.
        """
        path = self.path(f"manifests/{reference}")
        response = await self.request(Request("HEAD", path, {"Accept": ACCEPT}), 200, 404)
        if response.status == 404:
            return None
        return response.headers.get("docker-content-digest", "")

    async def has_blob(self, blob: Descriptor) -> bool:
        """Return whether it has a blob, with the right size if the registry reports one."""
        request = Request("HEAD", self.path(f"blobs/{blob.digest}"))
        response = await self.request(request, 200, 404)
        length = response.headers.get("content-length")
        return response.status == 200 and (length is None or length == str(blob.size))

    async def manifest(self, reference: str, size: int | None = None) -> Manifest:
        """Return the manifest at a tag or digest; `size` is its size in bytes in an index.

        Raises ImageMissingError if there is none, IntegrityError if it is another.
        """
        where = f"{self}{'@' if ':' in reference else ':'}{reference}"
        path = self.path(f"manifests/{reference}")
        try:
            response = await self.request(Request("GET", path, {"Accept": ACCEPT}))
        except ImageMissingError as error:
            raise ImageMissingError(
                f"{where} does not exist.", hint=f"`lapwing image list {self}` lists the tags."
            ) from error
        if size is not None and len(response.body) != size:
            raise IntegrityError(
                f"The manifest of {where} has {len(response.body)} bytes; its index says {size}.",
                hint="The registry's content differs from what was pushed. Nothing was tagged.",
            )
        stated = response.headers.get("docker-content-digest")
        expected = reference if ":" in reference else stated
        content_type = response.headers.get("content-type", "")
        return parse_manifest(response.body, content_type, where, expected or None)

    async def put_manifest(self, pushed: Manifest, reference: str) -> None:
        """Push a manifest to a tag or digest.

        Raises IntegrityError if the registry reports another digest.
        """
        headers = {"Content-Type": pushed.media_type}
        path = self.path(f"manifests/{reference}")
        response = await self.request(Request("PUT", path, headers, pushed.raw), 201)
        stated = response.headers.get("docker-content-digest")
        if stated and stated.partition(":")[0] == pushed.digest.partition(":")[0]:
            self.check_stored(stated, pushed.digest, "manifest")

    async def ensure_manifest(self, manifest: Manifest, reference: str) -> bool:
        """Push a manifest unless the tag or digest names it; return whether it was pushed."""
        if await self.digest(reference) == manifest.digest:
            return False
        await self.put_manifest(manifest, reference)
        return True

    def check_stored(self, stated: str, digest: str, kind: str) -> None:
        """Raise IntegrityError if the registry reports that it stored another digest."""
        if stated != digest:
            raise IntegrityError(
                f"{self} stored the {kind} {digest} as {stated}.",
                hint="A proxy changed it in transit, or the registry is faulty.",
            )

    async def tags(self) -> AsyncIterator[str]:
        """List the tags in the registry's order, without invalid ones.

        Raises ImageMissingError if there is no repository.
        """
        seen: set[str] = set()
        async for page in self._tag_pages():
            found = page["tags"]
            for tag in found if isinstance(found, list) else []:
                if isinstance(tag, str) and is_tag(tag) and tag not in seen:
                    seen.add(tag)
                    yield tag

    async def upload_times(self) -> dict[str, float]:
        """Return when each manifest was pushed, in Unix time; untagged ones are included.

        Only Google's registries list them (`manifest` beside `tags`); elsewhere it is empty.
        """
        found: dict[str, float] = {}
        async for page in self._tag_pages():
            listed = page.get("manifest")
            if not isinstance(listed, dict):
                break
            try:
                found |= {d: int(facts["timeUploadedMs"]) / 1000 for d, facts in listed.items()}
            except (ValueError, KeyError, TypeError) as error:
                raise RegistryError(f"{self} sent an invalid list of manifests.") from error
        return found

    async def delete(self, reference: str) -> bool:
        """Delete a tag, or by digest a manifest with its tags; return whether it was there.

        Raises RegistryError, also if the registry does not allow it. Blobs are left to the
        registry.
        """
        path = self.path(f"manifests/{reference}")
        by_tag = (400,) if ":" not in reference else ()
        response = await self.request(Request("DELETE", path), 200, 202, 204, 404, 405, *by_tag)
        if by_tag and response.status in (400, 405):
            raise RegistryError(
                f"{self.registry.host} does not delete single tags ({response.status}), or no "
                "images at all.",
                hint=f"`lapwing image delete {self}@DIGEST` deletes the image with all its tags.",
            )
        if response.status == 405:
            raise RegistryError(
                f"{self.registry.host} does not allow images to be deleted (405).",
                hint="For docker-registry, set REGISTRY_STORAGE_DELETE_ENABLED=true. Other "
                "registries have a setting for it, or clean-up rules of their own.",
            )
        return response.status != 404

    async def pages(self, request: Request, *ok: int) -> AsyncIterator[FullResponse]:
        """Yield the responses with the pages of a list. Raises RegistryError if it has no end."""
        visited = set()
        for _ in range(MAX_PAGES):
            visited.add(request.url)
            response = await self.request(request, *ok)
            yield response
            query = _next_page(response.headers.get("link", ""))
            if query is None:
                return
            request = request._replace(url=f"{request.url.partition('?')[0]}?{query}")
            if request.url in visited:
                break
        raise RegistryError(f"The list at {self.registry.host}{request.url} has no end.")

    async def _tag_pages(self) -> AsyncIterator[dict[str, Any]]:
        async for response in self.pages(Request("GET", self.path("tags/list?n=1000"))):
            try:
                found = json.loads(response.body)
                found["tags"]
            except (ValueError, KeyError, TypeError) as error:
                raise RegistryError(f"{self} sent an invalid list of tags.") from error
            yield found


def _scopes(scopes: Scopes, mount_from: str | None) -> Scopes:
    more = f"repository:{mount_from}:pull"
    return scopes if mount_from is None or more in scopes else (*scopes, more)


def _next_page(link: str) -> str | None:
    """Return the query of the next page in a Link header (RFC 8288).

    Only the query is used: the next page is always one of the same list.
    """
    target, _, parameters = link.partition(">")
    if 'rel="next"' not in parameters.replace("rel=next", 'rel="next"'):
        return None
    query = parse_qsl(urlsplit(target.strip().removeprefix("<")).query)
    return "&".join(f"{quote(k)}={quote(v)}" for k, v in query)
