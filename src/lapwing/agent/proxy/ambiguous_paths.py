"""Routes that reject paths which an application would read as those of a more limited service.

Envoy decodes letters, digits and dots, replaces backslashes and resolves dot segments before it
selects a route. It keeps what may be data: `%2f`, `%5c`, `//` and `;parameters`. An application
behind the route `/` may read them as slashes, or compare without case (Express), and so serve
`/admin%2fusers` as a page of the service at `/admin`, past its `access`.

A route with limits is followed by one that rejects every other form of its prefix, before any
shorter prefix. A dot segment that Envoy has left is rejected first: without one, a path is below a
prefix in its decoded form if it is in its received form. So a path gets to the service of its
decoded form, or to none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import quote, unquote_to_bytes

from lapwing.agent.proxy.model import Route
from lapwing.render.envoy import Json, direct_response

_PARAMETERS = "(?:;[^/]*)?"
_SLASH = f"(?:(?:/|%2f|%5c){_PARAMETERS})"
_REST = f"{_PARAMETERS}(?:{_SLASH}.*)?"
_DOT_SEGMENT = rf".*{_SLASH}\.\.?{_REST}"
TEXT = (
    "Paths may not have escaped or repeated slashes where `access` limits the service that another "
    "server could take them for.\n"
)
"""Added to the text of status 400, which replaces that of a route."""


def with_rejections(rendered: Sequence[tuple[Route, list[Json]]]) -> list[Json]:
    """Order the rendered routes of a host by prefix, with those that reject ambiguous paths."""
    limits = {(route.clients, route.users) for route, _ in rendered}
    if len(limits) < 2:
        return [each for _, routes in rendered for each in routes]
    limited = [route.prefix for route, _ in rendered if route.clients or route.users is not None]
    ordered = [(len(route.prefix), routes) for route, routes in rendered]
    ordered += [
        (len(prefix), [_reject(_other_forms(prefix))]) for prefix in limited if prefix != "/"
    ]
    ordered.sort(key=lambda each: -each[0])
    return [_reject(_DOT_SEGMENT), *(each for _, routes in ordered for each in routes)]


def _reject(pattern: str) -> Json:
    match = {"safe_regex": {"regex": f"(?i){pattern}"}}
    return {"match": match, **direct_response(400, "")}


def _other_forms(prefix: str) -> str:
    """Return a pattern of the paths that may be read as `prefix` or one below it."""
    segments = [s for s in unquote_to_bytes(prefix).split(b"/") if s]
    return "".join(f"{_SLASH}+{''.join(map(_character, s))}{_PARAMETERS}" for s in segments) + _REST


def _character(byte: int) -> str:
    """Return a pattern of the forms of a character that Envoy does not change."""
    escaped, plain = quote(bytes([byte]), safe=""), re.escape(chr(byte))
    return plain if len(escaped) == 1 else f"(?:{plain}|{escaped})"
