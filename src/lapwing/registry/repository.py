"""One repository of a registry: its manifests, tags and referrers.

What is read is verified before it is given on: a manifest by its digest, a list by its bounds.
Source of the paths and headers: the OCI distribution specification 1.1.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from urllib.parse import parse_qsl, quote, urlsplit

from lapwing.errors import ImageMissingError, IntegrityError, RegistryError
from lapwing.registry import manifest
from lapwing.registry.manifest import Descriptor, Manifest
from lapwing.registry.registry import Registry
from lapwing.registry.tokens import Scopes
from lapwing.stack.image import is_tag

MOST_PAGES = 1000
"""Pages of a list at most; a registry that goes on is not believed."""


class Repository:
    """A repository by its registry and name. `write` asks for tokens that allow pushing; `also`
    names another repository there that blobs are mounted from."""

    def __init__(
        self, registry: Registry, name: str, *, write: bool = False, also: str | None = None
    ) -> None:
        self.registry = registry
        self.name = name
        actions = "pull,push" if write else "pull"
        mounts = (f"repository:{also}:pull",) if also else ()
        self.scopes: Scopes = (f"repository:{name}:{actions}", *mounts)

    def __str__(self) -> str:
        return f"{self.registry.host}/{self.name}"

    def path(self, rest: str) -> str:
        """The path of a part of this repository's interface."""
        return f"/v2/{self.name}/{rest}"

    async def digest(self, wanted: str) -> str | None:
        """The digest of the manifest at a tag or digest, without reading it; None if there is
        none, an empty text if the registry does not say."""
        answer = await self.registry.ask(
            "HEAD",
            self.path(f"manifests/{wanted}"),
            scopes=self.scopes,
            headers={"Accept": manifest.ACCEPT},
            good=(200, 404),
        )
        if answer.status == 404:
            return None
        return answer.headers.get("docker-content-digest", "")

    async def manifest(self, wanted: str, size: int | None = None) -> Manifest:
        """The manifest at a tag or digest; `size` is what an index says of its bytes.

        Raises ImageMissingError if there is none, IntegrityError if it is another.
        """
        where = f"{self}{'@' if ':' in wanted else ':'}{wanted}"
        try:
            answer = await self.registry.ask(
                "GET",
                self.path(f"manifests/{wanted}"),
                scopes=self.scopes,
                headers={"Accept": manifest.ACCEPT},
            )
        except ImageMissingError as error:
            raise ImageMissingError(
                f"There is no {where}.", hint="`lapwing image list` shows the tags that there are."
            ) from error
        if size is not None and len(answer.body) != size:
            raise IntegrityError(
                f"The manifest of {where} has {len(answer.body)} bytes, and its index says {size}.",
                hint="The registry holds something else than was pushed. Nothing was tagged.",
            )
        told = answer.headers.get("docker-content-digest")
        expected = wanted if ":" in wanted else told
        return manifest.read(
            answer.body, answer.headers.get("content-type", ""), where, expected or None
        )

    async def put(self, pushed: Manifest, wanted: str) -> bool:
        """Push a manifest to a tag or digest; whether the registry took its subject into account.

        Raises IntegrityError if the registry says that it took something else.
        """
        answer = await self.registry.ask(
            "PUT",
            self.path(f"manifests/{wanted}"),
            scopes=self.scopes,
            headers={"Content-Type": pushed.media_type},
            body=pushed.raw,
            good=(201,),
        )
        told = answer.headers.get("docker-content-digest")
        if told and told.partition(":")[0] == pushed.digest.partition(":")[0]:
            same(told, pushed.digest, self, "the manifest")
        return "oci-subject" in answer.headers

    async def tags(self) -> AsyncIterator[str]:
        """The tags, in the registry's order; what cannot be one is left out.

        Raises ImageMissingError if there is no repository.
        """
        seen: set[str] = set()
        async for page in self._pages(self.path("tags/list?n=1000"), "tags"):
            for tag in page:
                if isinstance(tag, str) and is_tag(tag) and tag not in seen:
                    seen.add(tag)
                    yield tag

    async def referrers(self, digest: str) -> list[Descriptor]:
        """What refers to a manifest (signatures, SBOMs): by the referrers interface, or by the
        tag that stands in for it where a registry has none."""
        answer = await self.registry.ask(
            "GET",
            self.path(f"referrers/{digest}"),
            scopes=self.scopes,
            headers={"Accept": manifest.OCI_INDEX},
            good=(200, 400, 404, 405),
        )
        kind = answer.headers.get("content-type", "").partition(";")[0]
        if answer.status == 200 and kind == manifest.OCI_INDEX:
            where = f"the referrers of {self}@{digest}"
            found = manifest.read(answer.body, kind, where)
            if "link" in answer.headers:
                raise RegistryError(f"{where} fill more than one page, which cannot be read.")
            return list(found.children)
        standing_in = await self.stand_in(digest)
        return list(standing_in.children) if standing_in else []

    async def stand_in(self, digest: str) -> Manifest | None:
        """The index of referrers under the tag that the specification names for a digest."""
        tag = stand_in_tag(digest)
        if await self.digest(tag) is None:
            return None
        found = await self.manifest(tag)
        return found if found.is_index else None

    async def _pages(self, path: str, key: str) -> AsyncIterator[list[object]]:
        visited = set()
        for _ in range(MOST_PAGES):
            visited.add(path)
            answer = await self.registry.ask("GET", path, scopes=self.scopes)
            yield _list(answer.body, key, self)
            following = _next(answer.headers.get("link", ""))
            if following is None:
                return
            path = f"{self.path('tags/list')}?{following}"
            if path in visited:
                break
        raise RegistryError(f"{self} lists its {key} without end.")


def stand_in_tag(digest: str) -> str:
    """`sha256-...`: the tag that holds the referrers of a digest. Source: distribution
    specification, "Referrers Tag Schema"."""
    algorithm, _, encoded = digest.partition(":")
    return f"{algorithm[:32]}-{encoded[:64]}"


def same(told: str, digest: str, where: Repository, what: str) -> None:
    """Raise IntegrityError if a registry says that it took something with another digest."""
    if told != digest:
        raise IntegrityError(
            f"{where} says that {what} it took is {told}, not {digest}.",
            hint="Something changed it on the way, or the registry is at fault.",
        )


def _list(body: bytes, key: str, where: Repository) -> list[object]:
    try:
        found = json.loads(body)[key]
    except (ValueError, KeyError, TypeError) as error:
        raise RegistryError(f"{where} answers something that is not a list of {key}.") from error
    return found if isinstance(found, list) else []


def _next(link: str) -> str | None:
    """The query of the next page in a Link header (RFC 8288). Only the query is taken: the next
    page is always one of the same list."""
    target, _, parameters = link.partition(">")
    if 'rel="next"' not in parameters.replace("rel=next", 'rel="next"'):
        return None
    query = parse_qsl(urlsplit(target.strip().removeprefix("<")).query)
    return "&".join(f"{quote(k)}={quote(v)}" for k, v in query)
