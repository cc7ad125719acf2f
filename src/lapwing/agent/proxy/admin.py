"""Envoy's admin interface: what it knows, what it routes by, what it has counted.

Talks over the Unix socket. The parsing functions are pure and take what Envoy answered.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from lapwing.agent.proxy.model import Counters
from lapwing.agent.proxy.xds import ROUTES
from lapwing.errors import ProxyAwayError, ProxyError

if TYPE_CHECKING:
    import httpx

_RDS = f"http.ingress.rds.{ROUTES}"
_ANSWERED = "upstream_rq_completed"
_COUNTED = (
    "upstream_rq_total|upstream_rq_completed|upstream_rq_5xx|upstream_rq_rx_reset"
    "|upstream_rq_active|upstream_cx_active"
)


class Admin:
    """A client of the admin interface at `path`. Raises ProxyAwayError when Envoy does not answer,
    ProxyError when it refuses."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._client: httpx.AsyncClient | None = None

    async def get(self, target: str, method: str = "GET") -> bytes:
        """Ask for a page of the interface."""
        import httpx

        if self._client is None:
            transport = httpx.AsyncHTTPTransport(uds=str(self.path))
            self._client = httpx.AsyncClient(
                transport=transport, base_url="http://envoy", timeout=5.0, trust_env=False
            )
        try:
            answer = await self._client.request(method, target)
        except httpx.HTTPError as error:
            raise ProxyAwayError(
                f"Envoy does not answer on its admin socket ({type(error).__name__})."
            ) from error
        if answer.status_code != 200:
            raise ProxyError(f"Envoy's admin interface answered {answer.status_code} to {target}.")
        return answer.content

    async def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def ready(self) -> bool:
        """Whether Envoy serves."""
        try:
            return (await self.get("/ready")).strip() == b"LIVE"
        except ProxyError:
            return False

    async def health(self) -> dict[str, dict[int, bool]]:
        """The clusters that Envoy can route to, and whether each replica's port gets traffic."""
        return parse_clusters(await self.get("/clusters?format=json"))

    async def route_version(self) -> tuple[str | None, int]:
        """The version of the route table in use, and how many were rejected so far."""
        answer = await self.get(
            f"/stats?format=json&filter=^{re.escape(_RDS)}[.](version_text|update_rejected)$"
        )
        values = parse_stats(answer)
        version = values.get(f"{_RDS}.version_text")
        return (str(version) if version else None), int(values.get(f"{_RDS}.update_rejected", 0))

    async def rejected_clusters(self) -> int:
        """How many cluster updates Envoy has rejected so far."""
        answer = await self.get("/stats?format=json&filter=^cluster_manager.cds.update_rejected$")
        return int(parse_stats(answer).get("cluster_manager.cds.update_rejected", 0))

    async def answered(self, names: Iterable[str]) -> dict[str, int]:
        """How many requests each of these clusters has answered; one it does not know is left
        out."""
        wanted = list(names)
        if not wanted:
            return {}
        plain = parse_stats(await self._stats(wanted, _ANSWERED))
        return {n: int(plain[k]) for n in wanted if (k := f"cluster.{n}.{_ANSWERED}") in plain}

    async def _stats(self, names: Iterable[str], kinds: str, more: str = "") -> bytes:
        import urllib.parse

        anyone = "|".join(re.escape(n) for n in names)
        pattern = urllib.parse.quote(f"^cluster[.]({anyone})[.]({kinds})$")
        return await self.get(f"/stats?format=json{more}&filter={pattern}")

    async def counters(self, names: Iterable[str]) -> dict[str, Counters]:
        """What was counted for each of these clusters; one it does not know is left out."""
        wanted = list(names)
        if not wanted:
            return {}
        plain = parse_stats(await self._stats(wanted, _COUNTED))
        timed = await self._stats(wanted, "upstream_rq_time", "&histogram_buckets=cumulative")
        histograms = parse_histograms(timed)
        return {n: c for n in wanted if (c := _counters(n, plain, histograms)) is not None}


def parse_clusters(answer: bytes) -> dict[str, dict[int, bool]]:
    """Cluster name to port to health, from `/clusters?format=json`."""
    found: dict[str, dict[int, bool]] = {}
    for cluster in msgspec.json.decode(answer).get("cluster_statuses", []):
        ports: dict[int, bool] = {}
        for host in cluster.get("host_statuses", []):
            address = host["address"].get("socket_address")
            status = host.get("health_status", {})
            failed = status.get("failed_active_health_check") or status.get("failed_outlier_check")
            if address is not None:
                ports[address["port_value"]] = not failed
        found[cluster["name"]] = ports
    return found


def parse_stats(answer: bytes) -> dict[str, Any]:
    """Name to value, from `/stats?format=json`."""
    entries = msgspec.json.decode(answer).get("stats", [])
    return {e["name"]: e["value"] for e in entries if "name" in e}


def parse_histograms(answer: bytes) -> dict[str, tuple[tuple[float, int], ...]]:
    """Histogram name to (upper bound in seconds, requests at or below it), ascending, from
    `/stats?format=json&histogram_buckets=cumulative`; the last bound is infinity."""
    found: dict[str, tuple[tuple[float, int], ...]] = {}
    for entry in msgspec.json.decode(answer).get("stats", []):
        for histogram in entry.get("histograms", []):
            buckets = histogram.get("buckets", [])
            bounds = [(_seconds(b["upper_bound"]), int(b["cumulative"])) for b in buckets]
            found[histogram["name"]] = tuple(sorted(bounds))
    return found


def _seconds(milliseconds: float | str) -> float:
    value = float(milliseconds)
    return value / 1000 if math.isfinite(value) else math.inf


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
        errors=value("upstream_rq_5xx"),
        active_requests=value("upstream_rq_active"),
        active_connections=value("upstream_cx_active"),
        latency=histograms.get(prefix + "upstream_rq_time", ()),
    )
