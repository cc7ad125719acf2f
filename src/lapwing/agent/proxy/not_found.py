"""Responses with status 404 that Envoy sends itself, for host names and paths without a service.

Visitors read them, so they name no stack, service or command.
"""

from __future__ import annotations

from lapwing.agent.proxy.model import VirtualHost
from lapwing.render.envoy import Json, direct_response

UNKNOWN_HOST = "404 Not Found: there is no site with this host name here. Check the address.\n"
UNKNOWN_PATH = "404 Not Found: this site has no page at this address.\n"
NO_PREVIEW = "404 Not Found: no deployment is in progress or paused.\n"
"""For clients on this machine only, as all of the preview host."""


def other_hosts() -> Json:
    """Render the virtual host for every other host name."""
    return {"name": "not-found", "domains": ["*"], "routes": [_route(UNKNOWN_HOST)]}


def other_paths(host: VirtualHost) -> list[Json]:
    """Render the last route of a virtual host: for paths that no other route has."""
    if not host.routes and host.is_preview:
        return [_route(NO_PREVIEW)]
    return [] if any(r.prefix == "/" for r in host.routes) else [_route(UNKNOWN_PATH)]


def _route(text: str) -> Json:
    return {"match": {"prefix": "/"}, **direct_response(404, text)}
