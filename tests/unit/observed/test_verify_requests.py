"""The requests of `lapwing verify` to a machine, to a real server with TLS."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from lapwing.agent.proxy import certificates
from lapwing.commands.verify import verify_machine
from lapwing.observed.status import Status
from lapwing.plan.model import Health
from lapwing.settings import Settings
from tests.unit.agent.samples import document, service


class Api(BaseHTTPRequestHandler):
    """Respond with the status in the last part of the path."""

    def do_GET(self) -> None:
        """Respond without a body."""
        self.send_response(int(self.path.rpartition("/")[2]))
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    folder = Settings(home=tmp_path).certificates
    certificates.ensure(folder, ("shop.localhost",))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.Paths(folder).server)
    with HTTPServer(("127.0.0.1", 0), Api) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield Settings(home=tmp_path, port=server.server_port)
        server.shutdown()
        thread.join()


def test_statuses_that_a_deployment_accepts_are_accepted(settings: Settings) -> None:
    """A generated stack of an API has no `health`, and no page at its route."""
    services = {
        "absent": service(route="/404"),
        "broken": service(route="/503"),
        "files": service(kind="static", route="/files/404"),
        "unhealthy": service(route="/api", health=Health(path="/health/404")),
        "healthy": service(route="/other", health=Health(path="/health/204")),
    }
    status = Status(stack="shop", environment="local", url="")
    results = verify_machine(settings, status, document(**services))
    found = {r.check.partition(":")[0]: r.ok for r in results if "GET /" in r.check}
    assert found == {
        "absent": True,
        "broken": False,
        "files": False,
        "unhealthy": False,
        "healthy": True,
    }
