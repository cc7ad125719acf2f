"""The public certificate: a problem that a new one solves is not shown any more."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from lapwing.agent.proxy import acme
from lapwing.agent.proxy.public_certificate import PublicCertificate
from lapwing.settings import Settings
from lapwing.system.x509 import create_server

from .test_edge import public, served

DOMAIN = "app.example.com"


def test_problem_is_read_again_when_there_is_a_new_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = dataclasses.replace(Settings(tmp_path), http_port=80)
    settings.certificates.mkdir(parents=True)
    failed = {"failed": 1, "next": 0.0, "refused": {DOMAIN: "It was refused."}}
    (settings.certificates / "acme.json").write_text(json.dumps(failed))
    pair = create_server("Test", 90, [DOMAIN], [])
    monkeypatch.setattr(acme, "obtain", lambda *_: pair.key_pem + pair.certificate_pem)
    wanted = served(public())
    seen: list[str | None] = []

    async def answer(_replies: Mapping[str, str]) -> None:
        raise AssertionError("no challenge")

    async def use() -> None:
        pass

    async def renewed() -> None:
        seen.append(found.problem(wanted))
        ended.set()

    async def attempt() -> None:
        await found.tick()
        await asyncio.wait_for(ended.wait(), 60)

    ended = asyncio.Event()
    found = PublicCertificate(settings, lambda: [wanted], answer, use, renewed)
    assert "It was refused." in (found.problem(wanted) or "")
    asyncio.run(attempt())
    assert seen == [None]
