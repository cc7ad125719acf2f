"""Caddy: a whole new configuration is posted to its admin API.

By default a reload closes websockets; `stream_close_delay` lets them go on for a time, and is
measured as a peer of its own. Source: caddyserver.com, "API" (/load) and "reverse_proxy".
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import httpx

from benchmarks.proxies.recipe import Prepared, Recipe, Setting, free_port


def _to(port: int, delay: int) -> list[dict[str, Any]]:
    handler: dict[str, Any] = {
        "handler": "reverse_proxy",
        "upstreams": [{"dial": f"127.0.0.1:{port}"}],
    }
    if delay:
        handler["stream_close_delay"] = delay * 10**9
    return [handler]


def _configuration(setting: Setting, admin: int, version: str, delay: int) -> dict[str, Any]:
    """The configuration with a version active; `delay` in seconds."""
    files = {"certificate": str(setting.certificate), "key": str(setting.key)}
    server = {
        "listen": [f"127.0.0.1:{setting.port}"],
        "automatic_https": {"disable": True},
        "tls_connection_policies": [{"fallback_sni": "localhost"}],  # wrk names an address
        "routes": [
            {"match": [{"path": ["/fast"]}], "handle": _to(setting.ports["fast"], delay)},
            {"handle": _to(setting.ports[version], delay)},
        ],
    }
    return {
        "admin": {"listen": f"127.0.0.1:{admin}"},
        "logging": {"logs": {"default": {"level": "ERROR"}}},
        "apps": {
            "http": {"servers": {"clients": server}},
            "tls": {"certificates": {"load_files": [files]}},
        },
    }


def prepare(program: str, setting: Setting, delay: int = 0) -> Prepared:
    """`delay` is how many seconds a websocket may go on after a reload."""
    admin = free_port()
    path = setting.folder / "caddy.json"
    path.write_text(json.dumps(_configuration(setting, admin, "a", delay)))

    def change(version: str, _pid: int) -> None:
        answer = httpx.post(
            f"http://127.0.0.1:{admin}/load",
            json=_configuration(setting, admin, version, delay),
            timeout=60.0,
            trust_env=False,
        )
        answer.raise_for_status()

    return Prepared([program, "run", "--config", str(path)], change)


CADDY = Recipe("Caddy", "caddy", "load through its admin API", ["version"], prepare)
CADDY_PATIENT = Recipe(
    "Caddy, stream_close_delay",
    "caddy",
    "the same with a delay of 10 min",
    ["version"],
    partial(prepare, delay=600),
)
