"""What the command line and the release ask for: references in, repositories and acts out.

A `Client` lives as long as one command. It holds the connections and the logins, and one
`Registry` for each host, so that a token that was got is used by all.
"""

from __future__ import annotations

from collections.abc import Sequence

from lapwing.errors import UsageError
from lapwing.registry.copy import Copied, Progress, Wanted, copy
from lapwing.registry.credentials import Credentials
from lapwing.registry.registry import Patience, Registry
from lapwing.registry.repository import Repository
from lapwing.registry.transport import Transport
from lapwing.settings import Settings
from lapwing.stack.image import Reference


class Client:
    """Registries, as an async context. `plain_http` allows HTTP without TLS to every registry."""

    def __init__(
        self, settings: Settings, *, plain_http: bool = False, patience: Patience | None = None
    ) -> None:
        self._transport = Transport(settings.environ)
        self._credentials = Credentials(settings)
        self._plain_http = plain_http
        self._patience = patience
        self._registries: dict[str, Registry] = {}

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._transport.close()

    def repository(
        self, reference: Reference, *, write: bool = False, also: str | None = None
    ) -> Repository:
        """The repository of a reference; `also` is another one there to mount blobs from."""
        host = reference.api
        if host not in self._registries:
            self._registries[host] = Registry(
                host,
                self._transport,
                self._credentials,
                plain_http=self._plain_http,
                patience=self._patience,
            )
        return Repository(self._registries[host], reference.repository, write=write, also=also)

    async def digest(self, reference: Reference) -> str | None:
        """The digest of what a reference names; None if there is no such tag or repository."""
        repository = self.repository(reference)
        told = await repository.digest(reference.wanted)
        return told if told != "" else (await repository.manifest(reference.wanted)).digest

    async def copy(
        self,
        source: Reference,
        destination: Reference,
        tags: Sequence[str],
        wanted: Wanted,
        progress: Progress,
    ) -> Copied:
        """Copy an image; it gets the destination's tag and `tags`, or else the source's tag.

        Raises RegistryError; UsageError if there is nothing to name it by.
        """
        every = list(dict.fromkeys([*((destination.tag,) if destination.tag else ()), *tags]))
        if not every and not destination.digest:
            if source.tag is None:
                raise UsageError(
                    f"{source} has no tag, so the copy needs one.",
                    hint="Give the destination a tag, or add --tag.",
                )
            every = [source.tag]
        same = source.api == destination.api and source.repository != destination.repository
        return await copy(
            self.repository(source),
            self.repository(destination, write=True, also=source.repository if same else None),
            source.wanted,
            every,
            wanted,
            progress,
            expected=destination.digest,
        )
