"""Errors of an ACME authority, as its answers describe them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from acme import messages

from lapwing.agent.proxy import acme

LETS_ENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"
NAMES = ("app.example.com", "shop.example.org", "www.example.com")
PREFIX = "urn:ietf:params:acme:error:"


def problem(kind: str, detail: str, name: str | None = None, *subproblems: Any) -> dict[str, Any]:
    """A problem document (RFC 7807) as an authority sends it."""
    document: dict[str, Any] = {"type": PREFIX + kind, "detail": detail}
    if name:
        document["identifier"] = {"type": "dns", "value": name}
    return document | ({"subproblems": subproblems} if subproblems else {})


@pytest.mark.parametrize(
    ("document", "refused"),
    [
        (problem("rateLimited", "too many new orders (300) from this account"), set(NAMES)),
        (
            problem(
                "rateLimited",
                'too many certificates (50) already issued for "example.com" in the last 168h0m0s, '
                "retry after 2026-12-02 08:00:00 UTC: see https://letsencrypt.org/docs/rate-limits/",
            ),
            {"app.example.com", "www.example.com"},
        ),
        (
            problem(
                "malformed", "2 of 3 failed", None,
                problem("caa", "CAA record forbids it", "shop.example.org"),
                problem("dns", "NXDOMAIN looking up A", "www.example.com"),
            ),
            {"shop.example.org", "www.example.com"},
        ),
        (problem("serverInternal", "Down for maintenance."), set(NAMES)),
    ],
)  # fmt: skip
def test_refused_order_names_domains_with_reason_and_next_step(
    document: dict[str, Any], refused: set[str]
) -> None:
    order = acme.Order(LETS_ENCRYPT, "ops@example.com", NAMES, Path("key"))
    error = acme._refusal(order, messages.Error.from_json(document))
    assert set(error.refused) == refused
    for reason in error.refused.values():
        assert reason.startswith("The ACME authority acme-v02.api.letsencrypt.org refused a ")
        assert ".." not in reason
        assert PREFIX not in reason
    is_limited = document["type"].endswith("rateLimited")
    assert error.retry_after == (acme.RATE_LIMIT_S if is_limited else 0)
    if is_limited:
        wait = "Wait for the next attempt. An existing certificate stays in use."
        assert all(reason.endswith(wait) for reason in error.refused.values())
