"""Probes of real servers where they are installed, else of bytes from their documentation."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from lapwing.kubernetes import protocols
from lapwing.kubernetes.protocols import ProtocolError
from lapwing.kubernetes.verify import needed_secrets
from tests.installation import free_port
from tests.needs import require


class Tcp:
    """A stream to a port of this machine."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def read(self) -> bytes:
        return await self._reader.read(7)  # Answers come in pieces.

    async def write(self, data: bytes) -> None:
        self._writer.write(data)

    async def close(self) -> None:
        self._writer.close()


@asynccontextmanager
async def stream(port: int) -> AsyncIterator[Tcp]:
    made = Tcp(*await asyncio.open_connection("127.0.0.1", port))
    try:
        yield made
    finally:
        await made.close()


@asynccontextmanager
async def saying(*answers: bytes) -> AsyncIterator[Tcp]:
    """A server that says the first thing at once, and each other one when it is asked."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            writer.write(answer)
            if not await reader.read(65536):
                break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with stream(server.sockets[0].getsockname()[1]) as made:
        yield made
    server.close()


async def until_it_answers(port: int) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            async with stream(port):
                return
        except OSError:
            assert time.monotonic() < until
            await asyncio.sleep(0.05)


async def test_redis_probe_reports_usage_and_rejects_a_wrong_password(tmp_path: Path) -> None:
    port = free_port()
    server = subprocess.Popen(
        [require("redis"), "--port", str(port), "--requirepass", "s3cret", "--dir", str(tmp_path)],
        stdout=subprocess.DEVNULL,
    )
    try:
        await until_it_answers(port)
        async with stream(port) as made:
            unused = await protocols.redis(made, "s3cret")
        assert not unused.used
        assert unused.version[0].isdigit()
        async with stream(port) as user:
            for words in (("AUTH", "s3cret"), ("SET", "a", "1"), ("GET", "a"), ("GET", "b")):
                await user.write(b" ".join(w.encode() for w in words) + b"\r\n")
            while True:
                async with stream(port) as made:
                    used = await protocols.redis(made, "s3cret")
                if used.misses and used.clients == 1:  # Earlier questions of ours have gone.
                    break
            assert (used.keys, used.hits, used.misses) == (1, 1, 1)
        for wrong in ("wrong", None):
            async with stream(port) as made:
                with pytest.raises(ProtocolError, match="password of its Secret") as caught:
                    await protocols.redis(made, wrong)
                assert "wrong" not in str(caught.value)
    finally:
        server.terminate()
        server.wait()


async def test_mongodb_probe_reports_a_writable_server(tmp_path: Path) -> None:
    program, port = require("mongodb"), free_port()
    from lapwing.agent.resources import kinds

    arguments = kinds.of("mongodb", program).arguments(program, tmp_path, port)
    server = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        await until_it_answers(port)
        async with stream(port) as made:
            assert await protocols.mongodb(made) is True
    finally:
        server.terminate()
        server.wait()


GREETING = b"\x0a8.4.8\0" + b"\x08\0\0\0" + b"a" * 8 + b"\0\xff\xff\xff\x02\0"
REFUSAL = b"\xff\x10\x04Too many connections"


def packet(body: bytes) -> bytes:
    return len(body).to_bytes(3, "little") + b"\0" + body


async def test_mysql_probe_returns_the_version_or_the_error() -> None:
    async with saying(packet(GREETING)) as made:
        assert await protocols.mysql(made) == "8.4.8"
    async with saying(packet(REFUSAL)) as made:
        with pytest.raises(ProtocolError, match="Too many connections"):
            await protocols.mysql(made)


async def test_postgres_probe_needs_no_login() -> None:
    async with saying(b"", b"N") as made:
        await protocols.postgres(made)


@pytest.mark.parametrize(
    "question",
    [
        lambda s: protocols.redis(s, None),
        protocols.mysql,
        protocols.mongodb,
        protocols.postgres,
        lambda s: protocols.http(s, "localhost", "/"),
    ],
)
@pytest.mark.parametrize(
    "answer", [b"220 mail.example ESMTP\r\n" * 20, b"\xff\xff\xff\x7f" * 20, b""]
)
async def test_other_protocols_raise_without_waiting(
    question: Callable[[Any], Awaitable[Any]], answer: bytes
) -> None:
    async with saying(answer) as made, asyncio.timeout(60):
        with pytest.raises(ProtocolError):
            await _hang_up_after(made, question)


async def _hang_up_after(made: Tcp, question: Callable[[Any], Awaitable[Any]]) -> None:
    """A server that has said all it has to say hangs up in the end."""
    made._writer.write_eof()
    original, made.write = made.write, _ignore  # type: ignore[method-assign,assignment]
    assert original is not None
    await question(made)


async def _ignore(_data: bytes) -> None:
    """The other side is not read any more."""


async def test_http_probe_sends_forwarded_proto() -> None:
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with stream(server.sockets[0].getsockname()[1]) as made:
        assert await protocols.http(made, "shop.example", "/api/healthz") == 204
    server.close()
    assert seen[0].startswith(b"GET /api/healthz HTTP/1.1\r\n")
    assert b"host: shop.example\r\n" in seen[0].lower()
    assert b"x-forwarded-proto: https\r\n" in seen[0].lower()


def test_needed_secrets_are_found_with_their_keys() -> None:
    def variable(name: str, key: str, **more: Any) -> dict[str, Any]:
        reference = {"name": name, "key": key, **more}
        return {"name": "X", "valueFrom": {"secretKeyRef": reference}}

    spec = {
        "initContainers": [{"env": [variable("shop-db", "root-password")]}],
        "containers": [
            {"env": [variable("shop-db", "password"), variable("spare", "x", optional=True)]},
            {"env": [{"name": "PLAIN", "value": "1"}]},
        ],
        "volumes": [{"secret": {"secretName": "shop-edge-tls"}}, {"emptyDir": {}}],
    }
    found = needed_secrets([{"spec": {"template": {"spec": spec}}}])
    assert found == {"shop-db": {"password", "root-password"}, "shop-edge-tls": set()}
