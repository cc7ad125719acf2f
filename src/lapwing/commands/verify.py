"""Verify: ask a running stack from the outside whether it does what its status says.

Everything goes through Envoy's port with TLS, as a client's request would; what the agent says is
compared with that, not believed.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass

from lapwing.observed.status import Status
from lapwing.plan.model import Document
from lapwing.settings import Settings


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was asked, whether it holds, and what was seen."""

    check: str
    ok: bool
    seen: str


def verify(settings: Settings, status: Status, document: Document) -> Iterator[Finding]:
    """Run the checks one after another; each takes at most five seconds."""
    import httpx

    from lapwing.observed import agent

    alive = agent.is_running(settings.agent)
    yield Finding(
        "the agent runs", alive, "it runs" if alive else "crashed replicas are not restarted"
    )
    authority = settings.certificates / "ca.pem"
    try:
        context = ssl.create_default_context(cafile=str(authority))
    except OSError:
        yield Finding("the certificate authority is there", False, f"{authority} is missing")
        return
    for service in status.services:
        if service.kind == "job":
            continue
        active = service.active
        ready = f"{active.ready} of {active.replicas} replicas ready" if active else "not running"
        ok = active is not None and active.ready == active.replicas
        yield Finding(f"{service.name}: every replica is ready", ok, ready)
        wanted = document.services.get(service.name)
        if wanted is not None and active is not None:
            same = active.release == wanted.release
            seen = f"{active.release} runs"
            if not same:
                seen += f", {wanted.release} is wanted"
            yield Finding(f"{service.name}: what runs is what is wanted", same, seen)
    host = document.domains[0] if document.domains else "localhost"
    address = "127.0.0.1" if settings.bind in ("localhost", "0.0.0.0") else settings.bind  # noqa: S104
    with httpx.Client(verify=context, trust_env=False, timeout=5.0) as client:
        for name, wanted in sorted(document.services.items()):
            if wanted.route is None:
                continue
            path = wanted.health.path or wanted.route
            yield _ask(client, f"{name}: GET {path}", address, settings.port, host, path)


def _ask(client: object, check: str, address: str, port: int, host: str, path: str) -> Finding:
    import httpx

    assert isinstance(client, httpx.Client)
    try:
        answer = client.get(
            f"https://{address}:{port}{path}",
            headers={"host": f"{host}:{port}"},
            extensions={"sni_hostname": host},
        )
    except httpx.HTTPError as error:
        return Finding(check, False, f"{type(error).__name__}: {error}")
    took = answer.elapsed.total_seconds() * 1000
    return Finding(check, answer.status_code < 400, f"{answer.status_code} in {took:.0f} ms")
