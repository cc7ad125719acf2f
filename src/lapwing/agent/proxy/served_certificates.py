"""The certificates that Envoy serves, and which one it serves for a host name.

    sds.json                     the local certificate, for every name without another one
    the file of "public"         that of the public authority; where there is none, the local one
    the files of xds.PROVIDED    those of users, each in the place that it got first

Envoy prefers a certificate with the exact name to one with a wildcard. So the local certificate
does not have the names that a user's certificate covers, and the public one is not used for them.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from lapwing.agent.proxy import certificates, provided_certificates, xds
from lapwing.agent.proxy.configuration import ConfigurationFiles
from lapwing.errors import ProxyError
from lapwing.settings import Settings
from lapwing.system.files import write_atomic
from lapwing.system.x509 import names_of

CHALLENGE_TIMEOUT_S = 20.0
CHALLENGE_PROBES = 24
"""Requests that are all answered only if both processes know a challenge (but for one in 2**23)."""


class ServedCertificates:
    """The certificates of the Envoy of one LAPWING_HOME."""

    def __init__(self, settings: Settings, files: ConfigurationFiles) -> None:
        self._settings = settings
        self._files = files
        self._paths = certificates.Paths(settings.certificates)
        self._domains: tuple[str, ...] = ()
        self._covered: frozenset[str] = frozenset()
        self._provided: list[Path | None] = []

    @property
    def places(self) -> int:
        """The number of users' certificates that Envoy's bootstrap has a place for."""
        return len(self._provided)

    async def prepare(self) -> None:
        """Write the files before Envoy is adopted or launched. Raises OSError or ProxyError."""
        await self.renew()
        self._provided = [*await asyncio.to_thread(self._read_provided)]
        await self.use()
        if self._settings.http_port is not None:
            await self._write_replies({})

    async def serve(self, hosts: Iterable[str]) -> None:
        """Issue the local certificate for these host names. Raises OSError or ProxyError."""
        domains = tuple(sorted(set(hosts) - self._covered))
        if domains != self._domains:
            await self._write_local(domains)
            self._domains = domains

    async def renew(self) -> None:
        """Renew the local certificate if it expires soon. Raises OSError or ProxyError."""
        await self._write_local(self._domains)

    async def repair(self) -> None:
        """Create a damaged local certificate again. Raises OSError or ProxyError."""
        if not await asyncio.to_thread(certificates.is_intact, self._settings.certificates):
            await self.renew()

    async def provide(self, contents: Mapping[Path, bytes], hosts: frozenset[str]) -> bool:
        """Use the certificates of users, files of keys and chains, and no others; for `hosts`.

        Each keeps its entry in Envoy's configuration, so that a change of one affects no other.
        Returns whether there are more entries than before, which requires another Envoy.
        """
        self._covered = hosts
        before = self._provided
        self._provided = [path if path in contents else None for path in before]
        for path in contents:
            if path not in self._provided:
                if None not in self._provided:
                    self._provided.append(None)
                self._provided[self._provided.index(None)] = path
        del self._provided[len(xds.PROVIDED) :]
        is_changed = self._provided != before
        for path, data in contents.items():
            if not path.exists() or path.read_bytes() != data:
                await self._files.writer.run(write_atomic, path, data)
                is_changed = True
        if is_changed:
            await self.use()
        for path in set(filter(None, before)) - set(contents):
            path.unlink(missing_ok=True)
        return len(self._provided) > len(before)

    async def use(self) -> None:
        """Let Envoy load the public certificate and those of users. Raises ProxyError."""
        paths, has_port = self._paths, self._settings.http_port is not None
        pair = certificates.load_pair(paths.public, paths.public) if has_port else None
        has_public = pair is not None and not set(names_of(pair.certificate)) <= self._covered
        public = paths.public if has_public else paths.server
        files = {n: f or public for n, f in zip(xds.PROVIDED, self._provided, strict=False)}
        version = str(time.time_ns())
        for name, file in {**files, **({"public": public} if has_port else {})}.items():
            content = xds.certificate(file, version, name)
            await self._files.write(xds.certificate_file(name), content, sync=False)

    async def answer_challenges(self, replies: Mapping[str, str]) -> None:
        """Answer ACME challenges, by token; return when every process of Envoy does.

        Raises ProxyError.
        """
        await self._write_replies(replies)
        paths = [xds.CHALLENGE_PATH + token for token in replies]
        until = time.monotonic() + CHALLENGE_TIMEOUT_S
        while paths and not await asyncio.to_thread(self._is_answered, paths[0]):
            if time.monotonic() > until:
                raise ProxyError("Envoy does not answer an ACME challenge.")
            await asyncio.sleep(0.1)

    async def _write_replies(self, replies: Mapping[str, str]) -> None:
        if (plain := self._settings.http_port) is not None:
            routes = xds.plain_http(replies, plain, self._settings.port, str(time.time_ns()))
            await self._files.write("http.json", routes)

    async def _write_local(self, domains: Iterable[str]) -> None:
        folder = self._settings.certificates
        created = await self._files.writer.run(certificates.ensure, folder, domains, self._covered)
        if created or not self._files.exists("sds.json"):
            content = xds.certificate(self._paths.server, str(time.time_ns()))
            await self._files.write("sds.json", content)
            await self.use()

    def _read_provided(self) -> list[Path]:
        """Read which certificates of users Envoy has used."""
        found: list[Path] = []
        for name in xds.PROVIDED:
            file = self._files.folder / xds.certificate_file(name)
            try:
                [secret] = json.loads(file.read_bytes())["resources"]
                path = Path(secret["tls_certificate"]["private_key"]["filename"])
            except (OSError, ValueError, KeyError, TypeError):
                continue
            if path.parent == self._paths.provided and provided_certificates.is_usable(path):
                found.append(path)
        return found

    def _is_answered(self, path: str) -> bool:
        """Return whether a path is found in many connections, which the processes share."""
        address, port = self._settings.own_address(), self._settings.http_port
        for _ in range(CHALLENGE_PROBES):
            connection = http.client.HTTPConnection(address, port, timeout=5)
            try:
                connection.request("GET", path)
                if connection.getresponse().status != 200:
                    return False
            except OSError:
                return False
            finally:
                connection.close()
        return True
