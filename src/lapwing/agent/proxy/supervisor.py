"""Envoy of one LAPWING_HOME: start or adopt it, publish its configuration files.

Envoy outlives the agent: a restarted agent adopts the instance that it finds (`instances.py`). The
last published configuration is in files, so a process that was killed comes back with its routes.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import logging
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from lapwing.agent import logs, processes
from lapwing.agent.processes import Identity, RestartDelay
from lapwing.agent.proxy import (
    bootstrap,
    certificates,
    instances,
    provided_certificates,
    sockets,
    xds,
)
from lapwing.agent.proxy.admin import Admin
from lapwing.agent.proxy.instances import Instance
from lapwing.agent.proxy.model import Cluster, RouteTable
from lapwing.agent.state import FileWriter
from lapwing.errors import LapwingError, ProxyError
from lapwing.render.envoy import Json
from lapwing.settings import Settings
from lapwing.system.files import write_atomic
from lapwing.system.x509 import names_of

log = logging.getLogger(__name__)

POLL_INTERVAL_S = 0.05
CHALLENGE_TIMEOUT_S = 20.0
CHALLENGE_PROBES = 24
"""Requests that are all answered only if both processes know a challenge (but for one in 2**23)."""


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
        self._writer = FileWriter()
        self._instance: Instance | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._retiring: asyncio.Task[None] | None = None
        self._domains: tuple[str, ...] = ()
        self._known: dict[str, Cluster] = {}
        self._contents: dict[str, Json] = {}
        self._rejected = 0
        self._rejected_routes = 0
        self._claim: contextlib.ExitStack | None = None
        self._covered: frozenset[str] = frozenset()
        self._provided: list[Path | None] = []

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
        await self._write_certificate(self._domains)
        self._provided = [*await asyncio.to_thread(self._read_provided)]
        await self.use_certificates()
        if self.settings.http_port is not None:
            await self._write("http.json", xds.plain_http({}, str(time.time_ns())))
        found = await instances.find(self.folder, self._config())
        if found is not None:
            await asyncio.to_thread(self._claim_port)
            await self._use(found)
        else:
            if not (self.folder / "cds.json").exists():
                await self._write("cds.json", xds.clusters((), self.folder, "0"))
            if not (self.folder / "rds.json").exists():
                await self._write("rds.json", xds.routes(RouteTable("0", ())))
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
                watchers = [asyncio.create_task(self._watch(p)) for p in instance.admin.paths]
                try:
                    how = await processes.watch(instance.identity, self._output)
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

    async def _watch(self, path: Path) -> None:
        """Report each exit of the process with an admin socket."""
        while True:
            pid = await asyncio.to_thread(sockets.listener_pid, path)
            since = processes.started(pid) if pid is not None else None
            if pid is None or since is None:
                await asyncio.sleep(POLL_INTERVAL_S)
                continue
            await processes.ended(Identity(pid, since))
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
        for name, content in list(self._contents.items()):
            if not (self.folder / name).exists():
                await self._write(name, content)
        folder = instances.folder_for(self.folder, self._config())
        try:
            await self._write_bootstraps(folder)
            await asyncio.to_thread(logs.rotate, self._output)
            launched = await instances.launch(folder, home, self._output)
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
        for (file, admin), access_log in zip(paths, self._access_logs(), strict=True):
            config = self._config(admin, access_log, limit)
            name = str(file.relative_to(self.folder))
            await self._write(name, config)
            del self._contents[name]  # Only files that all instances share are written again.

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
        access_log: Path = Path("access.log"),
        max_connections: int = bootstrap.MAX_CONNECTIONS,
    ) -> Json:
        """Return the bootstrap of a process, or with the defaults what all processes share."""
        ingress = bootstrap.Ingress(
            bootstrap.addresses_for(self.settings.bind),
            self.settings.port,
            access_log,
            self.settings.trusted_proxies,
            self.settings.underscore_headers,
            max_connections,
            self.settings.body_timeout,
            bootstrap.heap_size() // instances.PROCESSES,
            self.settings.http_port,
            len(self._provided),
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
            sorted(
                {d for h in table.hosts for d in h.domains if not sockets.is_address(d)}
                - self._covered
            )
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
        for path in self._access_logs():
            if logs.exceeds_limit(path):
                path.replace(path.with_name(f"{path.name}.1"))
                await self.admin.get("/reopen_logs", method="POST")

    async def renew_certificate(self) -> None:
        """Renew the certificate if it expires soon. Raises OSError or ProxyError."""
        await self._write_certificate(self._domains)

    async def repair(self) -> None:
        """Create a damaged certificate again, and replace an Envoy whose folder was removed.

        It watches files in the removed folder, so it would get no configuration any more. Raises
        OSError or ProxyError.
        """
        current = self._instance
        if current and not current.folder.exists() and processes.alive(current.identity):
            log.warning("%s was removed; restarting Envoy.", current.folder)
            self._replace_instance()
        if not await asyncio.to_thread(certificates.is_intact, self.settings.certificates):
            await self._write_certificate(self._domains)

    def _replace_instance(self) -> None:
        """Let another instance be started; the processes of this one serve until it is ready."""
        current = self._instance
        if current is not None and processes.alive(current.identity):
            os.kill(current.identity.pid, signal.SIGKILL)

    async def answer_challenges(self, replies: Mapping[str, str]) -> None:
        """Answer ACME challenges, by token; return when every process of Envoy does.

        Raises ProxyError.
        """
        await self._write("http.json", xds.plain_http(replies, str(time.time_ns())))
        paths = [xds.CHALLENGE_PATH + token for token in replies]
        until = time.monotonic() + CHALLENGE_TIMEOUT_S
        while paths and not await asyncio.to_thread(self._answers, paths[0]):
            if time.monotonic() > until:
                raise ProxyError("Envoy does not answer an ACME challenge.")
            await asyncio.sleep(0.1)

    def _answers(self, path: str) -> bool:
        """Return whether a path is found in many connections, which the processes share."""
        address, port = self.settings.own_address(), self.settings.http_port
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

    async def provide_certificates(
        self, contents: Mapping[Path, bytes], hosts: frozenset[str]
    ) -> None:
        """Let Envoy use the certificates of users: files of keys and chains, and no others.

        Each keeps its place in Envoy's configuration, so that no other changes with it. For one
        more place, another Envoy is started, which takes over the ports. No other certificate may
        name their `hosts`: Envoy prefers an exact name to a wildcard.
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
                await self._writer.run(write_atomic, path, data)
                is_changed = True
        if is_changed:
            await self.use_certificates()
        for path in set(filter(None, before)) - set(contents):
            path.unlink(missing_ok=True)
        if len(self._provided) > len(before):
            self._replace_instance()

    async def use_certificates(self) -> None:
        """Let Envoy load the public certificate and those of users.

        Where there is none, it is the local one.
        """
        paths = certificates.Paths(self.settings.certificates)
        has_port = self.settings.http_port is not None
        pair = certificates.load_pair(paths.public, paths.public) if has_port else None
        has_public = pair is not None and not set(names_of(pair.certificate)) <= self._covered
        public = paths.public if has_public else paths.server
        files = {n: f or public for n, f in zip(xds.PROVIDED, self._provided, strict=False)}
        version = str(time.time_ns())
        for name, file in {**files, **({"public": public} if has_port else {})}.items():
            content = xds.certificate(file, version, name)
            await self._write(xds.certificate_file(name), content, sync=False)

    def _read_provided(self) -> list[Path]:
        """Read which certificates of users Envoy has used."""
        found: list[Path] = []
        for name in xds.PROVIDED:
            try:
                [secret] = json.loads((self.folder / xds.certificate_file(name)).read_bytes())[
                    "resources"
                ]
                path = Path(secret["tls_certificate"]["private_key"]["filename"])
            except (OSError, ValueError, KeyError, TypeError):
                path = Path()
            is_own = path.parent == certificates.Paths(self.settings.certificates).provided
            if is_own and provided_certificates.is_usable(path):
                found.append(path)
        return found

    # Files

    async def _write_certificate(self, domains: Iterable[str]) -> None:
        folder = self.settings.certificates
        created = await self._writer.run(certificates.ensure, folder, domains, self._covered)
        if created or not (self.folder / "sds.json").exists():
            paths = certificates.Paths(folder)
            await self._write("sds.json", xds.certificate(paths.server, str(time.time_ns())))
            await self.use_certificates()

    async def _write(self, name: str, content: Json, *, sync: bool = True) -> None:
        """Replace a file; without `sync`, one that is written again before Envoy is launched."""
        try:
            data = msgspec.json.encode(content)
            await self._writer.run(write_atomic, self.folder / name, data, sync=sync)
            self._contents[name] = content
        except OSError as error:
            raise ProxyError(
                f"Envoy's configuration {self.folder / name} cannot be written: {error.strerror}.",
                hint=f"Check the free space: `df {self.folder}`.",
            ) from error

    def _last_output(self) -> str:
        return logs.tail(self._output, 5)
