"""A client of Envoy's admin interface: health, route version and counters, over a Unix socket.

The parsing functions take Envoy's responses.
"""

from __future__ import annotations

import math
import re
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
    "|upstream_rq_101|upstream_rq_502|upstream_rq_503|upstream_rq_504|upstream_rq_active|upstream_cx_active"
)


class Admin:
    """A client of the admin interface at `path`.

    Raises ProxyUnreachableError when Envoy does not respond, ProxyError when it rejects a request.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._client: httpx.AsyncClient | None = None

    async def get(self, target: str, method: str = "GET") -> bytes:
        """Request a page of the interface."""
        import httpx

        if self._client is None:
            transport = httpx.AsyncHTTPTransport(uds=str(self.path))
            self._client = httpx.AsyncClient(
                transport=transport, base_url="http://envoy", timeout=5.0, trust_env=False
            )
        try:
            response = await self._client.request(method, target)
        except httpx.HTTPError as error:
            raise ProxyUnreachableError(
                f"Envoy does not respond on its admin socket {self.path} ({type(error).__name__})."
            ) from error
        if response.status_code != 200:
            raise ProxyError(
                f"Envoy's admin interface responded with {response.status_code} to {target}."
            )
        return response.content

    async def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def ready(self) -> bool:
        """Return whether Envoy is ready."""
        try:
            return (await self.get("/ready")).strip() == b"LIVE"
        except ProxyError:
            return False

    async def health(self) -> dict[str, dict[int, bool]]:
        """Return the clusters that Envoy can route to, with the health of each replica's port."""
        return parse_clusters(await self.get("/clusters?format=json"))

    async def route_version(self) -> tuple[str | None, int]:
        """Return the version of the route table in use, and how many were rejected so far."""
        response = await self.get(
            f"/stats?format=json&filter=^{re.escape(_RDS)}[.](version_text|update_rejected)$"
        )
        values = parse_stats(response)
        version = values.get(f"{_RDS}.version_text")
        return (str(version) if version else None), int(values.get(f"{_RDS}.update_rejected", 0))

    async def rejected_clusters(self) -> int:
        """Return how many cluster updates Envoy has rejected so far."""
        response = await self.get("/stats?format=json&filter=^cluster_manager.cds.update_rejected$")
        return int(parse_stats(response).get("cluster_manager.cds.update_rejected", 0))

    async def completed(self, names: Iterable[str]) -> dict[str, int]:
        """Return how many requests each cluster has completed; unknown ones are left out."""
        wanted = list(names)
        if not wanted:
            return {}
        plain = parse_stats(await self._stats(wanted, _COMPLETED))
        return {n: int(plain[k]) for n in wanted if (k := f"cluster.{n}.{_COMPLETED}") in plain}

    async def _stats(self, names: Iterable[str], kinds: str, more: str = "") -> bytes:
        import urllib.parse

        any_name = "|".join(re.escape(n) for n in names)
        pattern = urllib.parse.quote(f"^cluster[.]({any_name})[.]({kinds})$")
        return await self.get(f"/stats?format=json{more}&filter={pattern}")

    async def counters(self, names: Iterable[str]) -> dict[str, Counters]:
        """Return the counters of each of these clusters; unknown ones are left out."""
        wanted = list(names)
        if not wanted:
            return {}
        plain = parse_stats(await self._stats(wanted, _COUNTED))
        timed = await self._stats(wanted, "upstream_rq_time", "&histogram_buckets=cumulative")
        histograms = parse_histograms(timed)
        return {n: c for n in wanted if (c := _counters(n, plain, histograms)) is not None}


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

    Where the response had not begun, Envoy sends 502, 503 or 504 itself, so these are subtracted;
    an application's own ones of that kind may hide as many truncated responses. So are upgraded
    connections (websockets), which end with an active request. A response that lacks a part of its
    announced length, or its last chunk, is a protocol error.
    """
    resets = value("upstream_cx_destroy_remote_with_active_rq") + value("upstream_rq_rx_reset")
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
