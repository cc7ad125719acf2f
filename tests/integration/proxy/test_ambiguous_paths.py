"""Paths that an application may read as those of a more limited service, with the real Envoy."""

from __future__ import annotations

import asyncio
import itertools
import json
import posixpath
import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from lapwing.agent.proxy.ambiguous_paths import TEXT
from lapwing.agent.proxy.model import Route, RouteTable, VirtualHost
from lapwing.agent.proxy.supervisor import Envoy
from tests.integration.proxy.test_headers import envoy, request

CLUSTER = "a/local/api/blue-1"
ELSEWHERE = ("192.0.2.0/24",)
LIMITED = ("/admin", "/api/keys", "/a@b", "/" + "long-name/" * 40 + "x")
ROUTES = (
    *(Route(prefix, CLUSTER, clients=ELSEWHERE) for prefix in sorted(LIMITED, key=len)[::-1]),
    *(Route(prefix, CLUSTER) for prefix in ("/admin/pub", "/API", "/api", "/pub", "/")),
)
ANSWERS = {
    403: (
        "/admin", "/admin/users", "/x/../admin", "/%61dmin", "/./admin", "/%2e%2e/admin",
        "/admin/%2e", "/x/..\\admin", "/admin//users", "/admin/..%252f", "/a@b/c", LIMITED[-1],
    ),
    400: (
        "/admin%2fusers", "/admin%2Fusers", "/admin%5cusers", "/admin%5Cusers", "//admin",
        "///admin/x", "/\\admin", "/%2fadmin", "/%5Cadmin", "/.%2fadmin", "/%2e%2Fadmin",
        "/x/..%2fadmin", "/x%2f..%2fadmin", "/x%2F%2e%2E/admin", "/x/%2e%2e%5cadmin/users",
        "/pub/..%2fadmin", "/pub%2f..", "/x/%2e%2e;/admin", "/admin;a=b/users", "/admin;",
        "/;a/admin", "/ADMIN/users", "/%41dmin", "/api%2fkeys/1", "/api//keys", "/api/;a/keys",
        "/api/keys%2f1", "/API/keys", "/a%40b", "/A@b%2fc", "/admin%2fpub", "/" + LIMITED[-1],
    ),
    200: (
        "/", "/administrator", "/x/admin", "/x//admin", "/fetch/https://a.example//b", "/pub//x",
        "/x%2fadmin", "/admin%252fusers", "/x/..a", "/.well-known/x", "/x;a/b", "/admin/pub",
        "/admin/pub/x%2fy", "/api", "/API/key", "/api%2fkey",
        "/?a=/..%2fadmin", "/admin%20", "/x/...%2fadmin",
    ),
}  # fmt: skip


@pytest.fixture
async def proxy(tmp_path: Path) -> AsyncIterator[Envoy]:
    async with envoy(tmp_path) as running:
        same = tuple(Route(p, CLUSTER, clients=("127.0.0.0/8",)) for p in ("/admin", "/"))
        hosts = (
            VirtualHost("a", ("a.localhost",), ROUTES),
            VirtualHost("b", ("same.localhost",), same),
        )
        await running.publish_routes(RouteTable("2", hosts))
        await running.confirmed("2", 10)
        yield running


async def answers(proxy: Envoy, host: str, paths: list[str]) -> list[tuple[str, int, str]]:
    """Request paths at once, because Envoy closes a connection 1 s after a local reply."""
    found = await asyncio.gather(
        *(request(proxy, f"GET {path} HTTP/1.1", f"Host: {host}.localhost") for path in paths)
    )
    return [(path, *reply) for path, reply in zip(paths, found, strict=True)]


async def test_other_forms_of_the_path_of_a_limited_service_are_rejected(proxy: Envoy) -> None:
    expected = {path: status for status, paths in ANSWERS.items() for path in paths}
    found = await answers(proxy, "a", list(expected))
    assert {path: status for path, status, _ in found} == expected
    assert all(TEXT in body for _, status, body in found if status == 400)


def read(path: str) -> str:
    """Read a path as an application may: decoded, with merged slashes, in lower case."""
    text = re.sub(r";[^/]*", "", unquote(path).replace("\\", "/"))
    return posixpath.normpath(re.sub("/+", "/", text)).lower()


async def test_no_form_of_a_path_gets_to_a_less_limited_service(proxy: Envoy) -> None:
    slashes = ("/", "//", "%2f", "%5C", "/\\", "/.%2F", "/;a/", "/pub/..%2f")
    paths = [
        f"{'' if first[0] == '/' else '/'}{first}{name}{second}keys"
        for first, name, second in itertools.product(slashes, ("api", "%61pi", "Api"), slashes)
    ]
    found = await answers(proxy, "a", [p for p in paths if read(p) == "/api/keys"])
    assert {status for _, status, _ in found} == {400, 403}


async def test_paths_are_not_rejected_where_all_services_have_the_same_limits(proxy: Envoy) -> None:
    for path, status, body in await answers(
        proxy, "same", ["//admin", "/admin%2fx", "/x/..%2fadmin", "/ADMIN"]
    ):
        assert (status, json.loads(body)["path"]) == (200, path)
