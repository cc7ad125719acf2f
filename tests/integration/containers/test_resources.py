"""Resources in containers: a process and a container use one; it is killed, replaced, stopped."""

from __future__ import annotations

import json
import os
import signal
import stat
from collections.abc import Iterator
from typing import Any

import pytest

from lapwing.desired.secrets import SecretStore
from lapwing.observed import agent as observed
from tests import database_images
from tests.deployed import Deployed, until
from tests.installation import Installation, installation
from tests.integration.image.docker import Docker

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("containers")]
APP = """\
import http.server, os, socket
from urllib.parse import urlsplit

def ask(*commands):
    url = urlsplit(os.environ["CACHE_URL"])
    with socket.create_connection((url.hostname, url.port), timeout=5) as stream:
        lines = stream.makefile("rb")
        for command in (("AUTH", url.password), *commands):
            stream.sendall(" ".join(command).encode() + b"\\r\\n")
            answer = lines.readline()
            assert answer[:1] in b"+:", answer
    return answer[1:].strip()

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        answer = b"ok" if self.path.endswith("health") else ask(("INCR", "visits"))
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
    def log_message(self, *arguments): pass

host = os.environ.get("HOST", "0.0.0.0")
http.server.ThreadingHTTPServer((host, int(os.environ["PORT"])), Handler).serve_forever()
"""
STACK = """\
stack: shop
services:
  api:
    build: ./api
    command: python app.py
    route: /
    health: {path: /health}
    needs: [cache]
    rollout: {analysis: false, keep_old: 0s, stop_grace: 1s}
  inside:
    build: {path: ./api, base: '@BASE@'}
    runtime: container
    command: python app.py
    route: /inside
    health: {path: /inside/health}
    needs: [cache]
    rollout: {analysis: false, keep_old: 0s, stop_grace: 1s}
resources:
  cache: {kind: redis, resources: {memory: @MEMORY@}}
"""
MIB = 2**20


class Shop(Deployed):
    """The stack. The process counts visits at `/`, the container at `/inside`."""

    def __init__(self, where: Installation, base: str) -> None:
        super().__init__(where, "shop")
        self.base = base

    def write(self, memory: str, more: str = "") -> None:
        stack = STACK.replace("redis,", f"redis, {more}," if more else "redis,")
        stack = stack.replace("@BASE@", self.base).replace("@MEMORY@", memory)
        files = {"api/app.py": APP, "api/requirements.txt": "# Nothing.\n", "lapwing.yaml": stack}
        self.where.write(files)

    def visits(self, path: str = "/") -> int:
        response = self.get(path)
        return int(response.text or 0) if response.status_code == 200 else 0

    def visit_again(self, before: int) -> int:
        """The number of a visit, once the database responds; it is greater than before."""
        return until(lambda: number if (number := self.visits()) > before else 0, "a visit")


@pytest.fixture(scope="module")
def shop(docker: Docker, base: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    root = tmp_path_factory.mktemp("resources")
    database_images.redis(root).load(docker, "redis:7")
    with installation(root, **docker.environ) as where:
        made = Shop(where, base)
        made.write("64Mi")
        where.run("up")
        yield made


def server_of(docker: Docker) -> dict[str, Any]:
    """The container of the database."""
    [name] = docker("ps", "--filter", "name=lapwing-shop-local-cache", "-q").split()
    [found] = json.loads(docker("inspect", name))
    inspected: dict[str, Any] = found
    return inspected


def test_process_and_container_use_a_resource_in_a_container(shop: Shop, docker: Docker) -> None:
    first = shop.visits("/")
    assert shop.visits("/inside") == first + 1
    [resource] = shop.where.json("status")["resources"]
    assert (resource["provider"], resource["running"]) == ("container", True)


def test_container_of_a_resource_is_limited_and_shows_no_password(
    shop: Shop, docker: Docker
) -> None:
    found = server_of(docker)
    host = found["HostConfig"]
    assert (host["ReadonlyRootfs"], host["CapDrop"], host["Memory"]) == (True, ["ALL"], 64 * MIB)
    assert [p["HostIp"] for p in found["NetworkSettings"]["Ports"]["6379/tcp"]] == ["127.0.0.1"]
    store = SecretStore(shop.where.settings.secrets)
    name = "resource.cache.password"
    password = store.get("shop", "local", name, store.current("shop", "local")[name])
    assert password not in json.dumps(found)
    file = shop.where.home / "data/shop/local/cache/secrets/redis.conf"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert f"maxmemory {48 * MIB}" in file.read_text()


def test_killed_database_starts_again_with_its_data(shop: Shop, docker: Docker) -> None:
    before = shop.visits()
    os.kill(server_of(docker)["State"]["Pid"], signal.SIGKILL)
    shop.visit_again(before)


def test_restarted_agent_adopts_the_container(shop: Shop, docker: Docker) -> None:
    before = server_of(docker)["Id"]
    agent = observed.read(shop.where.home / "agent")
    assert agent is not None
    os.kill(agent.pid, signal.SIGKILL)
    shop.where.run("agent", "start")
    shop.visit_again(0)
    assert server_of(docker)["Id"] == before


def test_change_of_memory_replaces_the_container_and_keeps_data(shop: Shop, docker: Docker) -> None:
    before = shop.visits()
    shop.write("96Mi")
    shop.where.run("deploy")
    shop.visit_again(before)
    found = server_of(docker)
    assert found["HostConfig"]["Memory"] == 96 * MIB


def test_database_is_restored_from_a_backup(shop: Shop) -> None:
    backed_up = shop.visits()
    shop.where.run("backup")
    assert "redis:7 starts with 1 keys" in shop.where.run("backup", "verify").stdout
    shop.visits()
    shop.where.run("restore", "cache", "--yes")
    assert shop.visit_again(0) == backed_up + 1


def test_image_that_does_not_start_is_rolled_back(shop: Shop, docker: Docker) -> None:
    before = shop.visits()
    docker("tag", shop.base, "redis:broken")
    shop.write("96Mi", 'image: "redis:broken"')
    done = shop.where.run("deploy", status=1)
    assert "server of cache" in done.stderr or "redis:broken" in done.stderr
    shop.visit_again(before)
    shop.write("96Mi")


def test_data_and_image_are_kept_after_down(shop: Shop, docker: Docker) -> None:
    """Also if its tag names another image by then."""
    before, image = shop.visits(), server_of(docker)["Image"]
    shop.where.run("down")
    until(lambda: not docker("ps", "--all", "-q"), "the end of the containers")
    until(lambda: "lapwing" not in docker("network", "ls"), "the end of the network")
    docker("tag", "redis:7", "redis:before")
    docker("tag", shop.base, "redis:7")
    shop.where.run("up")
    shop.visit_again(before)
    assert server_of(docker)["Image"] == image
