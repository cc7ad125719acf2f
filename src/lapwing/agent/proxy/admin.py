"""A client of Envoy's admin interface: health, route version and counters, over Unix sockets.

The parsing functions take Envoy's responses.
"""

from __future__ import annotations

import asyncio
import math
import re
import urllib.parse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from lapwing.agent.proxy.model import Counters
from lapwing.agent.proxy.xds import ROUTES
from lapwing.errors import ProxyError, ProxyUnreachableError

if TYPE_CHECKING:
    import httpx

_RDS = f"http.ingress.rds.{ROUTES}"
_COMPLETED = "upstream_rq_completed"
_COUNTED = (
    "upstream_rq_total|upstream_rq_completed|upstream_rq_5xx|upstream_rq_rx_reset"
    "|upstream_cx_destroy_remote_with_active_rq|upstream_cx_protocol_error|upstream_rq_timeout"
    "|upstream_rq_retry|upstream_rq_pending_failure_eject"
    "|upstream_rq_101|upstream_rq_502|upstream_rq_503|upstream_rq_504|upstream_rq_active|upstream_cx_active"
)


class Admin:
    """A client of the admin interfaces of Envoy's processes, at `paths`.

    The processes have the same configuration and share the connections, so the answers are merged:
    counters are added, and what one of them does not know or does not find healthy is not.

    Raises ProxyUnreachableError when one does not respond, ProxyError when it rejects a request.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self.paths = tuple(paths)
        self._clients: dict[Path, httpx.AsyncClient] = {}

    async def get(self, target: str, method: str = "GET") -> list[bytes]:
        """Request a page of the interface of each process."""
        if not self.paths:
            raise ProxyUnreachableError("Envoy is not running.")
        return list(await asyncio.gather(*(self._get(p, target, method) for p in self.paths)))

    async def _get(self, path: Path, target: str, method: str) -> bytes:
        import httpx

        if path not in self._clients:
            transport = httpx.AsyncHTTPTransport(uds=str(path))
            self._clients[path] = httpx.AsyncClient(
                transport=transport, base_url="http://envoy", timeout=5.0, trust_env=False
            )
        try:
            response = await self._clients[path].request(method, target)
        except httpx.HTTPError as error:
            raise ProxyUnreachableError(
                f"Envoy does not respond on its admin socket {path} ({type(error).__name__})."
            ) from error
        if response.status_code != 200:
            raise ProxyError(
                f"Envoy's admin interface responded with {response.status_code} to {target}."
            )
        return response.content

    async def close(self) -> None:
        """Close the connections."""
        while self._clients:
            await self._clients.popitem()[1].aclose()

    async def ready(self) -> bool:
        """Return whether every process is ready."""
        try:
            return {page.strip() for page in await self.get("/ready")} == {b"LIVE"}
        except ProxyError:
            return False

    async def health(self) -> dict[str, dict[int, bool]]:
        """Return the clusters that Envoy can route to, with the health of each replica's port."""
        first, *others = map(parse_clusters, await self.get("/clusters?format=json"))
        for other in others:
            known = {name: ports for name, ports in first.items() if name in other}
            first = {
                name: {port: ok and other[name].get(port, True) for port, ok in ports.items()}
                for name, ports in known.items()
            }
        return first

    async def active_requests(self) -> dict[str, dict[int, int]]:
        """Return the requests in progress by cluster and port of the replica."""
        found: dict[str, dict[int, int]] = {}
        for page in await self.get("/clusters?format=json"):
            for name, ports in parse_active_requests(page).items():
                sums = found.setdefault(name, {})
                for port, active in ports.items():
                    sums[port] = sums.get(port, 0) + active
        return found

    async def route_version(self) -> tuple[str | None, int]:
        """Return the version of the route table in use, and how many were rejected so far.

        The version is None while the processes use different ones.
        """
        found = await self._stats(f"^{re.escape(_RDS)}[.](version_text|update_rejected)$")
        versions = {str(s.get(f"{_RDS}.version_text") or "") for s in found}
        rejected = sum(int(s.get(f"{_RDS}.update_rejected", 0)) for s in found)
        return (versions.pop() or None if len(versions) == 1 else None), rejected

    async def rejected_clusters(self) -> int:
        """Return how many cluster updates Envoy has rejected so far."""
        name = "cluster_manager.cds.update_rejected"
        return sum(int(s.get(name, 0)) for s in await self._stats(f"^{re.escape(name)}$"))

    async def connections(self) -> int:
        """Return how many connections clients have open."""
        name = "http.ingress.downstream_cx_active"
        return sum(int(s.get(name, 0)) for s in await self._stats(f"^{re.escape(name)}$"))

    async def completed(self, names: Iterable[str]) -> dict[str, int]:
        """Return how many requests each cluster has completed; unknown ones are left out."""
        wanted = list(names)
        if not wanted:
            return {}
        found = await self._stats(_pattern(wanted, _COMPLETED))
        sums = {n: [s[k] for s in found if (k := f"cluster.{n}.{_COMPLETED}") in s] for n in wanted}
        return {name: sum(map(int, counts)) for name, counts in sums.items() if counts}

    async def counters(self, names: Iterable[str]) -> dict[str, Counters]:
        """Return the counters of each of these clusters; unknown ones are left out."""
        wanted = list(names)
        if not wanted:
            return {}
        plain = await self._stats(_pattern(wanted, _COUNTED))
        timed = await self.get(
            "/stats?format=json&histogram_buckets=cumulative&filter="
            + urllib.parse.quote(_pattern(wanted, "upstream_rq_time"))
        )
        processes = list(zip(plain, map(parse_histograms, timed), strict=True))
        return {
            name: merge_counters(name, counted)
            for name in wanted
            if (counted := [c for p, h in processes if (c := _counters(name, p, h)) is not None])
        }

    async def _stats(self, pattern: str) -> list[dict[str, Any]]:
        """Return the statistics of each process whose name matches a pattern."""
        target = f"/stats?format=json&filter={urllib.parse.quote(pattern)}"
        return [parse_stats(page) for page in await self.get(target)]


def _pattern(clusters: Iterable[str], kinds: str) -> str:
    """Return a pattern for the names of these statistics of these clusters."""
    any_name = "|".join(re.escape(name) for name in clusters)
    return f"^cluster[.]({any_name})[.]({kinds})$"


def merge_counters(name: str, parts: Iterable[Counters]) -> Counters:
    """Add the counters of one cluster in several processes."""
    total, latency = Counters(name), dict[float, int]()
    for part in parts:
        for bound, count in part.latency:
            latency[bound] = latency.get(bound, 0) + count
        total = Counters(
            name,
            total.requests + part.requests,
            total.errors + part.errors,
            total.active_requests + part.active_requests,
            total.active_connections + part.active_connections,
            tuple(sorted(latency.items())),
        )
    return total


def parse_clusters(response: bytes) -> dict[str, dict[int, bool]]:
    """Return the health of each port by cluster name, from `/clusters?format=json`."""
    found: dict[str, dict[int, bool]] = {}
    for cluster in msgspec.json.decode(response).get("cluster_statuses", []):
        ports: dict[int, bool] = {}
        for host in cluster.get("host_statuses", []):
            address = host["address"].get("socket_address")
            status = host.get("health_status", {})
            failed = status.get("failed_active_health_check") or status.get("failed_outlier_check")
            if address is not None:
                ports[address["port_value"]] = not failed
        found[cluster["name"]] = ports
    return found


def parse_active_requests(response: bytes) -> dict[str, dict[int, int]]:
    """Return the requests in progress by cluster and port, from `/clusters?format=json`."""
    found: dict[str, dict[int, int]] = {}
    for cluster in msgspec.json.decode(response).get("cluster_statuses", []):
        ports = found.setdefault(cluster["name"], {})
        for host in cluster.get("host_statuses", []):
            address = host["address"].get("socket_address")
            values = {s["name"]: int(s.get("value", 0)) for s in host.get("stats", [])}
            if address is not None:
                ports[address["port_value"]] = values.get("rq_active", 0)
    return found


def parse_stats(response: bytes) -> dict[str, Any]:
    """Return the value of each statistic, from `/stats?format=json`."""
    entries = msgspec.json.decode(response).get("stats", [])
    return {e["name"]: e["value"] for e in entries if "name" in e}


def parse_histograms(response: bytes) -> dict[str, tuple[tuple[float, int], ...]]:
    """Return each histogram as (upper bound in seconds, requests at or below it), ascending.

    The input is `/stats?format=json&histogram_buckets=cumulative`; the last bound is infinity.
    """
    found: dict[str, tuple[tuple[float, int], ...]] = {}
    for entry in msgspec.json.decode(response).get("stats", []):
        for histogram in entry.get("histograms", []):
            buckets = histogram.get("buckets", [])
            bounds = [(_seconds(b["upper_bound"]), int(b["cumulative"])) for b in buckets]
            found[histogram["name"]] = tuple(sorted(bounds))
    return found


def _seconds(milliseconds: float | str) -> float:
    value = float(milliseconds)
    return value / 1000 if math.isfinite(value) else math.inf


def _truncated(value: Callable[[str], int]) -> int:
    """Return how many responses were cut off after their headers: Envoy counts them as successes.

    Where the response had not begun, the request is retried, or Envoy sends 502, 503 or 504 itself,
    so these are subtracted (those after a failed connection, which is no reset, are added before);
    an application's own ones of that kind may hide as many truncated responses. So are upgraded
    connections (websockets), which end with an active request. A response that lacks a part of its
    announced length, or its last chunk, is a protocol error.
    """
    resets = value("upstream_cx_destroy_remote_with_active_rq") + value("upstream_rq_rx_reset")
    resets += value("upstream_rq_pending_failure_eject") - value("upstream_rq_retry")
    others = value("upstream_rq_101") + value("upstream_rq_502") + value("upstream_rq_503")
    protocol_errors = value("upstream_cx_protocol_error") - value("upstream_rq_502")
    timeouts = value("upstream_rq_timeout") - value("upstream_rq_504")
    return max(resets - others, protocol_errors, 0) + max(timeouts, 0)


def _counters(
    name: str,
    plain: dict[str, Any],
    histograms: dict[str, tuple[tuple[float, int], ...]],
) -> Counters | None:
    prefix = f"cluster.{name}."

    def value(key: str) -> int:
        return int(plain.get(prefix + key, 0))

    if prefix + "upstream_cx_active" not in plain:
        return None
    return Counters(
        cluster=name,
        requests=value("upstream_rq_completed"),
        errors=value("upstream_rq_5xx") + _truncated(value),
        active_requests=value("upstream_rq_active"),
        active_connections=value("upstream_cx_active"),
        latency=histograms.get(prefix + "upstream_rq_time", ()),
    )
