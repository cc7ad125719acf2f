"""Envoy of one LAPWING_HOME: start or adopt it, publish its configuration files.

Envoy outlives the agent: a restarted agent adopts the instance that it finds (`instances.py`). The
last published configuration is in files, so a process that was killed comes back with its routes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from lapwing.agent import logs, processes, watching
from lapwing.agent.processes import Identity, RestartDelay
from lapwing.agent.proxy import bootstrap, instances, metrics, sockets, xds
from lapwing.agent.proxy.admin import Admin
from lapwing.agent.proxy.configuration import ConfigurationFiles
from lapwing.agent.proxy.instances import Instance
from lapwing.agent.proxy.model import Cluster, RouteTable
from lapwing.agent.proxy.served_certificates import ServedCertificates
from lapwing.errors import LapwingError, ProxyError
from lapwing.render.envoy import Json
from lapwing.settings import Settings

log = logging.getLogger(__name__)

POLL_INTERVAL_S = 0.05


class Envoy:
    """The Envoy of one LAPWING_HOME.

    `died` is called, in the event loop, whenever a process exits without having been stopped; it is
    then already being restarted.
    """

    def __init__(self, settings: Settings, died: Callable[[str], None] | None = None) -> None:
        self.settings = settings
        self.folder = settings.envoy
        self.admin = Admin(())
        self._output = settings.logs / "envoy.log"
        self._died = died or (lambda _how: None)
        self._files = ConfigurationFiles(self.folder)
        self.certificates = ServedCertificates(settings, self._files)
        self._instance: Instance | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._retiring: asyncio.Task[None] | None = None
        self._known: dict[str, Cluster] = {}
        self._rejected = 0
        self._rejected_routes = 0
        self._claim: contextlib.ExitStack | None = None

    # The processes

    @property
    def identity(self) -> Identity | None:
        """The supervisor of Envoy's processes; None while there is none."""
        return self._instance.identity if self._instance else None

    async def start(self) -> None:
        """Adopt the running Envoy, or start one and wait until it is ready.

        Raises PortTakenError or ProxyError.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        await self.certificates.prepare()
        found = await instances.find(self.folder, self._config())
        if found is not None:
            await asyncio.to_thread(self._claim_port)
            await self._use(found)
        else:
            if not self._files.exists("cds.json"):
                await self._files.write("cds.json", xds.clusters((), self.folder, "0"))
            if not self._files.exists("rds.json"):
                await self._files.write("rds.json", xds.routes(RouteTable("0", ())))
            await self._launch()
        self._watcher = asyncio.create_task(self._keep_running())

    async def stop(self) -> None:
        """Stop Envoy: no new connections, then, after the requests in progress, the processes."""
        self._unwatch()
        self._release_port()
        await instances.stop(self._instance, self.folder, self.settings.home)
        self._instance = None

    async def leave(self) -> None:
        """Disconnect from Envoy without stopping it: the agent exits, traffic continues."""
        self._unwatch()
        self._release_port()
        await self.admin.close()

    def _claim_port(self) -> None:
        if self._claim is None:
            addresses = bootstrap.addresses_for(self.settings.bind)
            self._claim = sockets.claim_port(addresses, self.settings.port, self.settings.home)

    def _check_ports(self) -> None:
        for address in bootstrap.addresses_for(self.settings.bind):
            for port in filter(None, (self.settings.port, self.settings.http_port)):
                sockets.check_port(address, port, self.settings.home)
        for port in self.settings.metrics_ports():
            sockets.check_port(metrics.ADDRESS, port, self.settings.home, "LAPWING_METRICS_PORT")

    def _release_port(self) -> None:
        if self._claim is not None:
            self._claim.close()
            self._claim = None

    def _unwatch(self) -> None:
        for task in (self._watcher, self._retiring):
            if task is not None:
                task.cancel()

    async def _keep_running(self) -> None:
        """Start another instance when the supervisor exits. Its processes serve until then."""
        delay = RestartDelay(first=0.05, longest=10.0)
        while True:
            if (instance := self._instance) is not None:
                began = time.monotonic()
                pairs = zip(instance.admin.paths, self._access_logs(), strict=True)
                watchers = [asyncio.create_task(self._watch(*pair)) for pair in pairs]
                try:
                    how = await watching.watch(instance.identity, self._output)
                finally:
                    for watcher in watchers:
                        watcher.cancel()
                self._instance = None
                self._died(f"The supervisor of Envoy {how}; restarting Envoy.")
                delay.record_run(time.monotonic() - began)
            try:
                await self._launch()
            except (LapwingError, OSError) as error:
                self._died(str(error))
                await delay.wait()

    async def _watch(self, path: Path, access_log: Path) -> None:
        """Report each exit of the process with an admin socket, and keep its access log written."""
        while True:
            pid = await asyncio.to_thread(sockets.listener_pid, path)
            since = processes.started(pid) if pid is not None else None
            if pid is None or since is None:
                await asyncio.sleep(POLL_INTERVAL_S)
                continue
            async with watching.log_kept(pid, access_log, (instances.ACCESS_LOG,)):
                await processes.exited(Identity(pid, since))
            self._died(f"Envoy (process {pid}) exited; its supervisor restarts it.")

    async def _launch(self) -> None:
        """Start an instance beside those that are running, and use it when it is ready."""
        port, home = self.settings.port, self.settings.home
        await asyncio.to_thread(self._claim_port)  # First, as it names the agent of another home.
        try:
            await asyncio.to_thread(self._check_ports)
        except ProxyError:
            self._release_port()
            raise
        self.settings.logs.mkdir(parents=True, exist_ok=True)
        await self._files.write_missing()
        folder = instances.folder_for(self.folder, self._config())
        try:
            await self._write_bootstraps(folder)
            launched = await instances.launch(folder, home, self._output, self._access_logs())
        except (LapwingError, OSError) as error:
            await instances.remove(folder)
            if isinstance(error, ProxyError) and "Address already in use" in (error.detail or ""):
                raise await asyncio.to_thread(sockets.port_taken, port, home) from error
            raise
        await self._use(launched)
        self._rejected = 0

    async def _write_bootstraps(self, folder: Path) -> None:
        await asyncio.to_thread(folder.mkdir, parents=True)
        limit = bootstrap.connection_limit()
        paths = zip(instances.config_files(folder), instances.admin_sockets(folder), strict=True)
        for number, (file, admin) in enumerate(paths):
            name = str(file.relative_to(self.folder))
            await self._files.write_once(name, self._config(admin, limit, number))

    async def _use(self, instance: Instance) -> None:
        """Use an instance that is ready, and retire all others in the background."""
        await self.admin.close()
        self._instance, self.admin = instance, instance.admin
        if self._retiring is not None:
            self._retiring.cancel()
        retiring = instances.retire_others(instance, self.folder, self.settings.home)
        self._retiring = asyncio.create_task(retiring)

    def _config(
        self,
        admin: Path = Path("admin.sock"),
        max_connections: int = bootstrap.MAX_CONNECTIONS,
        number: int = 0,
    ) -> Json:
        """Return the bootstrap of a process, or with the defaults what all processes share."""
        metrics_ports = self.settings.metrics_ports()
        ingress = bootstrap.Ingress(
            bootstrap.addresses_for(self.settings.bind),
            self.settings.port,
            self.settings.trusted_proxies,
            self.settings.underscore_headers,
            max_connections,
            self.settings.body_timeout,
            bootstrap.heap_size() // instances.PROCESSES,
            self.settings.http_port,
            self.certificates.places,
            metrics_ports[number] if metrics_ports else None,
            self.settings.proxy_protocol,
        )
        return bootstrap.bootstrap(self.folder, admin, ingress)

    def _access_logs(self) -> list[Path]:
        return [self.settings.logs / f"access-{n}.log" for n in range(instances.PROCESSES)]

    # The configuration

    async def publish_clusters(self, clusters: Sequence[Cluster]) -> None:
        """Publish the whole set of clusters, with their endpoints."""
        version = str(time.time_ns())
        for cluster in clusters:
            if self._known.get(cluster.name) != cluster:
                file = xds.endpoints_file(cluster.name)
                await self._files.write(file, xds.endpoints(cluster, version))
        self._rejected = await self.admin.rejected_clusters()
        await self._files.write("cds.json", xds.clusters(tuple(clusters), self.folder, version))
        for name in set(self._known) - {c.name for c in clusters}:
            self._files.remove(xds.endpoints_file(name))
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
        hosts = (d for host in table.hosts for d in host.domains if not sockets.is_address(d))
        await self.certificates.serve(hosts)
        _, self._rejected_routes = await self.admin.route_version()
        await self._files.write("rds.json", xds.routes(table))

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

    async def repair(self) -> None:
        """Repair the local certificate; replace an Envoy whose folder was removed.

        It watches files in the removed folder, so it would get no configuration any more. Raises
        OSError or ProxyError.
        """
        current = self._instance
        if current and not current.folder.exists() and processes.alive(current.identity):
            log.warning("%s was removed; restarting Envoy.", current.folder)
            self._replace_instance()
        await self.certificates.repair()

    def _replace_instance(self) -> None:
        """Let another instance be started; the processes of this one serve until it is ready."""
        current = self._instance
        if current is not None and processes.alive(current.identity):
            os.kill(current.identity.pid, signal.SIGKILL)

    async def provide_certificates(
        self, contents: Mapping[Path, bytes], hosts: frozenset[str]
    ) -> None:
        """Let Envoy use the certificates of users for `hosts`: files of keys and chains.

        If the configuration needs more entries, another Envoy takes over the ports. Raises
        OSError or ProxyError.
        """
        if await self.certificates.provide(contents, hosts):
            self._replace_instance()

    def _last_output(self) -> str:
        return logs.tail(self._output, 5)
