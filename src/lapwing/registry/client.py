"""The client of registries, for commands: references in, repositories and copies out.

There is one `RegistryClient` for each command. It holds the connections and the logins, and one
`Registry` for each host, so that a token is shared by all requests.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lapwing.errors import RegistryError, UsageError
from lapwing.registry.copy import CopyOptions, CopyResult, copy_image
from lapwing.registry.credentials import Credentials
from lapwing.registry.layout import Layout, create_layout, open_layout
from lapwing.registry.layout_reference import LayoutReference
from lapwing.registry.push import BlobPusher, Progress
from lapwing.registry.registry import HostOptions, Registry
from lapwing.registry.repository import Repository
from lapwing.registry.transport import Transport
from lapwing.settings import Settings
from lapwing.stack.image import Reference
from lapwing.system.retry import RetryPolicy


class RegistryClient:
    """Registries, as an async context.

    `plain_http` allows HTTP to every registry that does not use TLS, except Docker Hub, but no
    login over it. `hosts` has the options of registries, by host and port.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        plain_http: bool = False,
        hosts: Mapping[str, HostOptions] | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        self._environ = settings.environ
        self._transports: dict[Path | None, Transport] = {}
        self._hosts = hosts or {}
        self._credentials = Credentials(settings)
        self._plain_http = plain_http
        self._retry = retry
        self._registries: dict[str, Registry] = {}

    async def __aenter__(self) -> RegistryClient:
        return self

    async def __aexit__(self, *error: object) -> None:
        for transport in self._transports.values():
            await transport.close()

    def repository(
        self,
        reference: Reference,
        *,
        write: bool = False,
        delete: bool = False,
        mount_from: str | None = None,
    ) -> Repository:
        """Return the repository of a reference.

        `mount_from` is another one there to mount blobs from.
        """
        host = reference.api
        if host not in self._registries:
            options = self._hosts.get(host, HostOptions())
            authority = options.authority
            if authority not in self._transports:
                self._transports[authority] = Transport(self._environ, authority)
            self._registries[host] = Registry(
                host,
                self._transports[authority],
                self._credentials,
                allow_plain=self._plain_http,
                options=options,
                retry=self._retry,
            )
        registry = self._registries[host]
        return Repository(
            registry, reference.repository, write=write, delete=delete, mount_from=mount_from
        )

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
        source: Reference | LayoutReference,
        destination: Reference | LayoutReference,
        tags: Sequence[str],
        options: CopyOptions,
        progress: Progress,
    ) -> CopyResult:
        """Copy an image; it gets the destination's tag and `tags`, or else the source's tag.

        Raises RegistryError; UsageError if there is no tag for it.
        """
        every = list(dict.fromkeys([*((destination.tag,) if destination.tag else ()), *tags]))
        if not every and not destination.digest:
            if source.tag is None and isinstance(destination, Reference):
                raise UsageError(
                    f"{source} has no tag, so the copy needs one.",
                    hint="Give the destination a tag, or add --tag.",
                )
            every = [source.tag] if source.tag else []
        with _naming(destination), contextlib.ExitStack() as stack:
            if isinstance(source, LayoutReference):
                origin: Repository | Layout = stack.enter_context(open_layout(source))
            else:
                origin = self.repository(source)
            if isinstance(destination, LayoutReference):
                name = source.name if isinstance(source, Reference) else ""
                target: Repository | Layout = stack.enter_context(create_layout(destination, name))
            else:
                target = self._target(destination, source)
            return await copy_image(
                origin,
                target,
                source.wanted,
                every,
                options,
                progress,
                expected=destination.digest,
            )

    def _target(self, target: Reference, source: Reference | LayoutReference) -> Repository:
        """Return the repository to push to, with the right to mount blobs of the source."""
        mount_from = None
        if isinstance(source, Reference) and source.api == target.api:
            mount_from = source.repository if source.repository != target.repository else None
        return self.repository(target, write=True, mount_from=mount_from)


@contextlib.contextmanager
def _naming(destination: Reference | LayoutReference) -> Iterator[None]:
    """Turn a failure of a local file into an error that names the layout."""
    try:
        yield
    except OSError as error:
        raise RegistryError(
            f"{destination} cannot be written: {error.strerror or error}.",
            hint="Check the folder, its permissions and the free space of the disk.",
        ) from error
