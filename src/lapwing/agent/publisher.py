"""Publishes the routes of all environments to Envoy, in the order that loses no request.

First every cluster, then the wait until Envoy knows those that will be routed to, then the whole
route table by one rename, then Envoy's confirmation that it uses it. A generation is removed from
the clusters only after a route table without it was confirmed, because it is removed from the state
only then. Clusters and routes are derived from the states by the functions at the end.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import re
import time
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from msgspec import UNSET, UnsetType

from lapwing.agent.basic_auth import Users, no_users, users_in
from lapwing.agent.proxy import provided_certificates
from lapwing.agent.proxy.certificates import Paths
from lapwing.agent.proxy.model import (
    Cluster,
    Counters,
    Page,
    Route,
    RouteTable,
    VirtualHost,
    authority,
)
from lapwing.agent.proxy.sockets import is_address
from lapwing.agent.proxy.supervisor import Envoy
from lapwing.agent.rollout import PUBLISHED, State
from lapwing.agent.state import EnvironmentState, Generation
from lapwing.desired.secrets import SecretStore
from lapwing.errors import ProxyUnreachableError
from lapwing.plan import host_names
from lapwing.plan.model import Certificate, Document, Edge, Maintenance, preview_of
from lapwing.render.envoy import SECURE, header_changes
from lapwing.settings import DEFAULT_PORT

CONFIRMATION_TIMEOUT_S = 10.0
"""How long Envoy may take to confirm; it usually takes a few milliseconds."""
UNREACHABLE_TIMEOUT_S = 20.0
"""How long Envoy may be unreachable: one that was killed is back in less than a second."""
HEALTHY_TIMEOUT_S = 10.0
"""How long Envoy may take to find a replica healthy that the agent found healthy; it checks an
unhealthy one every second."""
RETRY_INTERVAL_S = 0.1
STRICT_TRANSPORT = {"strict-transport-security": "max-age=2592000"}
"""Browsers use https for 30 days after each response, so the domain needs a trusted certificate for
that time. Never sent for `localhost`: all other servers there would be unreachable over http."""
LOOPBACK = ("127.0.0.0/8", "::1/128")


class Publisher:
    """Publishes the environments that `states` returns, one publication at a time."""

    def __init__(
        self, envoy: Envoy, states: Callable[[], list[EnvironmentState]], secrets: SecretStore
    ) -> None:
        self.envoy = envoy
        self._states = states
        self._secrets = secrets
        self._users = users_in(secrets)
        self._lock = asyncio.Lock()
        self._counter = itertools.count(1)
        self._clusters: tuple[Cluster, ...] | None = None
        self._hosts: tuple[VirtualHost, ...] | None = None
        self._provided: tuple[dict[tuple[str, str], Certificate], frozenset[str]] | None = None

    async def publish(self) -> None:
        """Publish the present states and return when Envoy has confirmed them.

        Nothing is written if nothing changed. While Envoy restarts, this retries. Raises
        ProxyError, and may then be called again.
        """
        async with self._lock:
            until = time.monotonic() + UNREACHABLE_TIMEOUT_S
            while True:
                try:
                    await self._publish()
                    return
                except ProxyUnreachableError:
                    if time.monotonic() > until:
                        raise
                await asyncio.sleep(RETRY_INTERVAL_S)

    async def counters(self, names: Iterable[str]) -> Mapping[str, Counters]:
        """Return Envoy's counters; none while it is unreachable."""
        try:
            return await self.envoy.admin.counters(names)
        except ProxyUnreachableError:
            return {}

    async def wait_until_healthy(self, replicas: Mapping[str, Iterable[int]]) -> set[str]:
        """Wait until Envoy finds these clusters healthy; returns those that stay unhealthy.

        A replica that restarted may still count as unhealthy there.
        """
        until = time.monotonic() + HEALTHY_TIMEOUT_S
        while True:
            try:
                health = await self.envoy.admin.health()
                unhealthy = {
                    name
                    for name, ports in replicas.items()
                    if not all(health.get(name, {}).get(port, True) for port in ports)
                }
            except ProxyUnreachableError:
                unhealthy = set(replicas)
            if not unhealthy or time.monotonic() > until:
                return unhealthy
            await asyncio.sleep(RETRY_INTERVAL_S)

    async def _publish(self) -> None:
        states = self._states()
        new_clusters = tuple(c for s in states for c in clusters(s))
        bind = self.envoy.settings.bind
        own = (f"{bind}/32",) if "." in bind else (f"{bind}/128",) if ":" in bind else ()
        hosts = virtual_hosts(states, (*LOOPBACK, *own), self.envoy.settings.port, self._users)
        provided = (provided_certificates.wanted(states), provided_certificates.hosts(states))
        if provided != self._provided:
            self._provided = None
            await self._provide(*provided)
            self._provided = provided
        if new_clusters != self._clusters:
            self._clusters = None
            await self.envoy.publish_clusters(new_clusters)
            self._clusters = new_clusters
        if hosts != self._hosts:
            self._hosts = None
            routed = {r.cluster for h in hosts for r in h.routes if r.cluster is not None}
            await self.envoy.wait_for_clusters(sorted(routed), CONFIRMATION_TIMEOUT_S)
            version = f"{time.time_ns()}-{next(self._counter)}"
            await self.envoy.publish_routes(RouteTable(version, hosts))
            await self.envoy.confirmed(version, CONFIRMATION_TIMEOUT_S)
            self._hosts = hosts

    async def repair_certificates(self) -> None:
        """Write missing and damaged certificates of users again. Raises OSError or ProxyError."""
        async with self._lock:
            if self._provided is not None and self._provided[0]:
                await self._provide(*self._provided)

    async def _provide(
        self, chosen: Mapping[tuple[str, str], Certificate], hosts: frozenset[str]
    ) -> None:
        folder = Paths(self.envoy.settings.certificates).provided
        contents = provided_certificates.contents
        files = await asyncio.to_thread(contents, chosen, folder, self._secrets)
        await self.envoy.provide_certificates(files, hosts)


def clusters(state: EnvironmentState) -> list[Cluster]:
    """Return the clusters of an environment: every generation that listens on ports.

    Replicas that were split off it drain in its cluster.
    """
    parts: dict[int, list[Generation]] = {}
    for g in state.generations:
        if g.spec.kind in ("web", "static") and g.replicas:
            parts.setdefault(g.number, []).append(g)
    whole = {n: state.numbered(n) or found[0] for n, found in parts.items()}
    return [
        Cluster(
            name=state.cluster_name(g),
            ports=tuple(r.port for r in g.replicas),
            draining=tuple(r.port for part in parts[n] if part is not g for r in part.replicas),
            health_path="/" if g.spec.kind == "static" else g.spec.health.path,
            health_host=g.spec.health.host,
            health_interval=g.spec.health.interval,
            health_timeout=g.spec.health.timeout,
        )
        for n, g in whole.items()
    ]


def virtual_hosts(
    states: Iterable[EnvironmentState],
    local: tuple[str, ...] = LOOPBACK,
    port: int = DEFAULT_PORT,
    users: Users = no_users,
) -> tuple[VirtualHost, ...]:
    """Return the routes of all environments. A single one also serves plain `localhost`.

    The preview host has routes only between the start of candidates and their switch, and during
    maintenance, and only for clients on this machine (`local` networks). Replicas receive the
    environment's domain as Host: many applications refuse any other. `users` finds the users of
    basic authentication.
    """
    known = [s for s in states if _is_served(s)]
    owners = _owners(known, lambda document: document.hosts)
    previewed = _owners(known, lambda document: document.with_previews)
    hosts: list[VirtualHost] = []
    for state in known:
        name = f"{state.stack}/{state.environment}"
        domains = [d for d in _domains(state) if owners[d] == name]
        if len(known) == 1:
            extra = (d for d in ("localhost", "127.0.0.1", "[::1]") if d not in owners)
            domains += extra
        strict = _strict_transport(state)
        public = tuple(d for d in domains if strict and not _is_loopback(d))
        hosts.append(VirtualHost(name, public or tuple(domains), _routes(state, users, strict)))
        if public:
            rest = tuple(d for d in domains if d not in public)
            hosts.append(VirtualHost(f"{name}/localhost", rest, _routes(state, users)))
        preview = _preview_host(state, f"{name}/preview", local, port)
        free = tuple(d for d in preview.domains if d not in owners and previewed.get(d) == name)
        hosts.append(dataclasses.replace(preview, domains=free, is_preview=True))
        for host, target in _redirects(state).items():
            if owners[host] != name:
                continue
            to, headers = authority(target, port), header_changes(strict)
            hosts.append(VirtualHost(f"{name}/{host}", (host,), (), redirect=to, headers=headers))
    return tuple(host for host in hosts if host.domains)


def _owners(
    states: Iterable[EnvironmentState], names: Callable[[Document], tuple[str, ...]]
) -> dict[str, str]:
    """Return the environment that each name belongs to: first those that are in use.

    Envoy rejects the whole route table if two virtual hosts have the same domain, so it has none,
    whatever the documents contain.
    """
    found: dict[str, str] = {}
    for is_used in (True, False):
        for state in states:
            for document in _documents(state):
                if (document is state.routed_document) is is_used:
                    for host in names(document):
                        found.setdefault(host, f"{state.stack}/{state.environment}")
    return found


def _preview_host(
    state: EnvironmentState, name: str, local: tuple[str, ...], port: int
) -> VirtualHost:
    known = _domains(state)
    record = state.rollout
    is_shown = record and (record.state is State.HOLDING or _candidates(state))
    document = record.document if record and is_shown else None
    if document is None and _maintenance(state):
        document = state.document
    if document is None:
        return VirtualHost(name, tuple(map(preview_of, known)), (), local)
    shown = document.domains[:1]
    domains = tuple(map(preview_of, dict.fromkeys((*shown, *known))))
    host = authority(shown[0], port) if shown else None
    return VirtualHost(name, domains, _routes(state, preview=True), local, host)


def domain_conflict(
    states: Iterable[EnvironmentState], own: EnvironmentState, document: Document
) -> tuple[str, str] | None:
    """Return a host name of a document that another environment uses, and that environment.

    Names of previews count, too.
    """
    served = (state for state in states if state is not own and _is_served(state))
    others = ((f"{s.stack}/{s.environment}", each) for s in served for each in _documents(s))
    return host_names.find_conflict(document.with_previews, others)


def _is_served(state: EnvironmentState) -> bool:
    """Return whether an environment has routes: also a stopped one, with its maintenance page.

    After a first deployment that failed, it has no host names while its candidates drain.
    """
    return bool(_domains(state) and (state.generations or _maintenance(state)))


def _domains(state: EnvironmentState) -> tuple[str, ...]:
    """Return the host names of an environment.

    During a rollout also the new ones, so that its preview host can be tested and they are served
    from the switch on.
    """
    return tuple(dict.fromkeys(d for document in _documents(state) for d in document.domains))


def _redirects(state: EnvironmentState) -> dict[str, str]:
    """Return the host names that are redirected, during a rollout also the new ones.

    One that is also served is not redirected before the rollout ends.
    """
    edges = [document.edge for document in _documents(state) if document.edge]
    served = _domains(state)
    found = {h: to for edge in reversed(edges) for h, to in edge.redirects.items()}
    return {h: to for h, to in found.items() if h not in served}


def _documents(state: EnvironmentState) -> list[Document]:
    """Return the document that requests are routed by, then the other one of a rollout.

    That of a rollout has host names from its first candidates to its end.
    """
    record, routed = state.rollout, state.routed_document
    others = (state.document, record.document) if record and record.state in PUBLISHED else ()
    return [d for d in (routed, *(o for o in others if o is not routed)) if d is not None]


def _maintenance(state: EnvironmentState) -> Maintenance | UnsetType:
    """Return the maintenance in progress: that of a restore is in the running document only."""
    return next((document.maintenance for document in _documents(state)), UNSET)


def _candidates(state: EnvironmentState) -> dict[str, Generation]:
    """Return the generations, by service, that the rollout in progress has not switched to yet."""
    numbers = state.rollout.candidates.values() if state.rollout else ()
    found = [state.numbered(number) for number in numbers]
    return {g.service: g for g in found if g is not None and g.role in ("candidate", "warm")}


def _edge(state: EnvironmentState, *, preview: bool = False) -> Edge:
    """Return the settings that apply to the requests of clients, or to those of a preview."""
    document = next(iter(_documents(state)), None)
    if preview and state.rollout:
        document = state.rollout.document
    return (document.edge if document else None) or Edge()


def _strict_transport(state: EnvironmentState) -> dict[str, str]:
    """Return the header that makes browsers use https only, if the certificate is trusted."""
    has_acme = any(document.acme for document in _documents(state)[:1])
    return STRICT_TRANSPORT if has_acme or _edge(state).certificate else {}


def _is_loopback(domain: str) -> bool:
    """Return whether a host name is a loopback name, which other local servers use, too."""
    return domain == "localhost" or domain.endswith(".localhost") or is_address(domain)


def _routes(
    state: EnvironmentState,
    users: Users = no_users,
    strict: Mapping[str, str] = MappingProxyType({}),
    *,
    preview: bool = False,
) -> tuple[Route, ...]:
    """Return the routes of the services; `strict` are headers for https."""
    routes = []
    common = _edge(state, preview=preview).headers
    shown = state.rollout.document if preview and state.rollout else None
    if not preview and (maintenance := _maintenance(state)):
        page = Page(maintenance.page, maintenance.retry_after)
        headers = header_changes({**SECURE, **strict}, common)
        return (Route("/", None, headers=headers, page=page),)
    for service in sorted({g.service for g in state.generations}):
        chosen = state.of(service, "active")
        if preview:
            chosen = _candidates(state).get(service, chosen)
        if chosen is None or (shown is not None and service not in shown.services):
            continue
        spec = shown.services[service] if shown is not None else chosen.spec
        if spec.route is None:
            continue
        prefix = re.sub(r"(?<=.)/$", "", spec.route)
        cluster = state.cluster_name(chosen)
        headers = header_changes({**SECURE, **strict}, common, spec.headers or {})
        if not strict:
            headers = tuple(h for h in headers if h.name not in STRICT_TRANSPORT)
        access = None if preview else spec.access or _edge(state).access
        route = Route(prefix, cluster, spec.timeout, spec.max_body, headers)
        if access:
            login = users(state, access.basic_auth) if access.basic_auth else None
            route = dataclasses.replace(route, clients=access.allow, users=login)
        routes.append(route)
    return tuple(sorted(routes, key=lambda r: (-len(r.prefix), r.prefix)))
