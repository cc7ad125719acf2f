"""The client of registries, for commands: references in, repositories and copies out.

There is one `RegistryClient` for each command. It holds the connections and the logins, and one
`Registry` for each host, so that a token is shared by all requests.
"""

from __future__ import annotations

from collections.abc import Sequence

from lapwing.errors import UsageError
from lapwing.registry.copy import CopyOptions, CopyResult, copy_image
from lapwing.registry.credentials import Credentials
from lapwing.registry.push import BlobPusher, Progress
from lapwing.registry.registry import Registry
from lapwing.registry.repository import Repository
from lapwing.registry.transport import Transport
from lapwing.settings import Settings
from lapwing.stack.image import Reference
from lapwing.system.retry import RetryPolicy


class RegistryClient:
    """Registries, as an async context. `plain_http` allows HTTP without TLS to every registry."""

    def __init__(
        self, settings: Settings, *, plain_http: bool = False, retry: RetryPolicy | None = None
    ) -> None:
        self._transport = Transport(settings.environ)
        self._credentials = Credentials(settings)
        self._plain_http = plain_http
        self._retry = retry
        self._registries: dict[str, Registry] = {}

    async def __aenter__(self) -> RegistryClient:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._transport.close()

    def repository(
        self, reference: Reference, *, write: bool = False, mount_from: str | None = None
    ) -> Repository:
        """Return the repository of a reference.

        `mount_from` is another one there to mount blobs from.
        """
        host = reference.api
        if host not in self._registries:
            self._registries[host] = Registry(
                host,
                self._transport,
                self._credentials,
                plain_http=self._plain_http,
                retry=self._retry,
            )
        registry = self._registries[host]
        return Repository(registry, reference.repository, write=write, mount_from=mount_from)

    async def digest(self, reference: Reference) -> str | None:
        """Return the digest at a reference; None if there is no such tag or repository."""
        repository = self.repository(reference)
        stated = await repository.digest(reference.wanted)
        return stated if stated != "" else (await repository.manifest(reference.wanted)).digest

    async def check_push(self, destination: Reference) -> None:
        """Check that a repository can be written. Raises RegistryError if not."""
        await BlobPusher(self.repository(destination, write=True)).check_access()

    async def copy(
        self,
        source: Reference,
        destination: Reference,
        tags: Sequence[str],
        options: CopyOptions,
        progress: Progress,
    ) -> CopyResult:
        """Copy an image; it gets the destination's tag and `tags`, or else the source's tag.

        Raises RegistryError; UsageError if there is no tag for it.
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
        mount_from = source.repository if same else None
        return await copy_image(
            self.repository(source),
            self.repository(destination, write=True, mount_from=mount_from),
            source.wanted,
            every,
            options,
            progress,
            expected=destination.digest,
        )
