"""Errors of an ACME authority, as its answers describe them."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from unittest.mock import Mock

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


@pytest.mark.parametrize("body", [b"[]", b'{"newNonce": []}', b'"text"', b"<html>"])
def test_answer_that_is_not_of_acme_is_named(body: bytes, tmp_path: Path) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}/directory"
            order = acme.Order(url, "ops@example.com", NAMES, tmp_path / "key")
            with pytest.raises(
                acme.CertificateError, match="sent no valid ACME response"
            ) as failed:
                acme.obtain(order, lambda _: None)
        finally:
            server.shutdown()
            thread.join()
    assert set(failed.value.refused) == set(NAMES)


def test_error_in_the_publication_of_replies_is_not_blamed_on_the_authority(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is logged with its traceback by the caller."""
    client = Mock(new_order=lambda _: Mock(authorizations=[]))
    monkeypatch.setattr(acme, "_client", lambda _: client)
    order = acme.Order(LETS_ENCRYPT, "ops@example.com", NAMES, Path("key"))

    def publish(replies: object) -> None:
        if not published:
            published.append(replies)
            raise AttributeError("a mistake of ours")

    published: list[object] = []
    with pytest.raises(AttributeError, match="a mistake of ours"):
        acme.obtain(order, publish)
