"""What Envoy is told wherever it stands: on one machine, and before the slots of a cluster. Pure.

Source for every field: Envoy's v3 API reference, release 1.40.
"""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
TYPE = "type.googleapis.com/envoy"
STREAM_IDLE = "3600s"
"""How long a stream may be silent. Envoy's own default, 5 minutes, would cut quiet websockets."""
RETRIES: Json = {
    "retry_on": "connect-failure,refused-stream,reset-before-request",
    "num_retries": 4,
}
"""A request is sent again only where nobody can have begun to work on it."""
LIMITS: Json = {
    "thresholds": [
        {
            "max_connections": 16384,
            "max_pending_requests": 16384,
            "max_requests": 16384,
            "max_retries": 1024,
        }
    ]
}
"""Circuit breakers. The defaults (1,024) would answer 503 under a load that replicas can bear."""


def matching(prefix: str) -> Json:
    """The match of a route: its path, and what is below it; `/api` is no prefix of `/apiary`."""
    return {"prefix": "/"} if prefix == "/" else {"path_separated_prefix": prefix}


def duration(seconds: float) -> str:
    """Seconds as Envoy reads them: decimal, never with an exponent, to the nanosecond. Source:
    protobuf, JSON mapping of google.protobuf.Duration."""
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


def patience(timeout: float | None) -> str:
    """The longest a request may take; None is no limit."""
    return "0s" if timeout is None else duration(timeout)
