"""The edge of a cluster, as far as it goes without one: a real Envoy with the configuration that is
rendered, and the real script that judges its counters."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import http.server
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

from lapwing.render.kubernetes import edge_config
from lapwing.render.kubernetes.analysis import WATCH
from lapwing.render.kubernetes.edge import size_of
from tests.integration.edge.edges import (
    ENVOY,
    Edge,
    address_of_a_service,
    configuration,
    here,
    running,
    variables_of,
)
from tests.unit.render.clusters import cases, cluster_environment

RECEIVED: list[tuple[str, Message]] = []


class Service(http.server.BaseHTTPRequestHandler):
    """Answers with its name, and fails where it is asked to."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        name: str = self.server.name  # type: ignore[attr-defined]
        RECEIVED.append((self.path, self.headers))
        if "killed" in self.path and sum(path == self.path for path, _ in RECEIVED) == 1:
            self.close_connection = True
            return
        self.send_response(500 if "fail" in self.path else 503 if "away" in self.path else 200)
        self.send_header("content-length", str(len(name)))
        self.end_headers()
        self.wfile.write(name.encode())

    do_HEAD = do_POST = do_GET

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def services() -> Iterator[dict[str, int]]:
    servers = []
    for name in ("api", "web"):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service)
        server.daemon_threads = True
        server.name = name  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
    yield {s.name: s.server_address[1] for s in servers}  # type: ignore[attr-defined]
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def company(tmp_path: Path, services: dict[str, int]) -> Iterator[Edge]:
    with running(cluster_environment("company-inc", "production"), tmp_path, services) as found:
        yield found


@pytest.mark.parametrize(("case", "environment"), cases())
def test_envoy_accepts_the_configuration(case: str, environment: str, tmp_path: Path) -> None:
    made = cluster_environment(case, environment)
    file, _ = configuration(made, tmp_path, {})
    if edge_config.ends_tls(made):
        _certificate(tmp_path)
    said = subprocess.run(
        [ENVOY, "--mode", "validate", "-c", file], capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stderr


def _certificate(folder: Path) -> None:
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    files = ["-keyout", folder / "tls.key", "-out", folder / "tls.crt"]
    asked = ["openssl", "req", "-x509", "-nodes", *key, "-subj", "/CN=localhost", *files]
    subprocess.run(asked, check=True, capture_output=True)


def test_longest_route_wins_and_matches_whole_segments(company: Edge) -> None:
    assert company.get("/api/customers") == (200, b"api")
    assert company.get("/api") == (200, b"api")
    assert company.get("/apiary") == (200, b"web")
    assert company.get("/") == (200, b"web")


def test_service_receives_host_path_and_headers_of_load_balancer(company: Edge) -> None:
    """The load balancer of the cloud sets X-Forwarded-For and -Proto, and nothing else."""
    client = http.client.HTTPConnection("127.0.0.1", company.port)
    headers = {
        "Host": "shop.example:8443",
        "X-Forwarded-For": "203.0.113.9, 192.0.2.1",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Port": "1",
    }
    client.request("GET", "/api/a//b", headers=headers)
    assert client.getresponse().read() == b"api"
    path, received = RECEIVED[-1]
    assert path == "/api/a//b"
    assert received["host"] == received["x-forwarded-host"] == "shop.example:8443"
    assert received["x-forwarded-proto"] == "https"
    assert received["x-forwarded-for"].startswith("203.0.113.9,")
    assert received["x-forwarded-port"] is None


def test_edge_answers_ready_only_to_health_checkers(company: Edge) -> None:
    assert company.get("/ready") == (200, b"web")
    assert company.get("/ready", "GoogleHC/1.0") == (200, b"ready\n")


def test_connection_above_the_limit_is_closed_and_counters_are_still_served(
    tmp_path: Path, services: dict[str, int]
) -> None:
    made = cluster_environment("company-inc", "production")
    size = dataclasses.replace(size_of(made), max_connections=2)
    with running(made, tmp_path, services, size) as edge, contextlib.ExitStack() as kept:
        for _ in range(2):
            client = kept.enter_context(
                contextlib.closing(http.client.HTTPConnection("127.0.0.1", edge.port))
            )
            _until(lambda client=client: _answers(client))
        assert not _answers(http.client.HTTPConnection("127.0.0.1", edge.port))
        status, _, counters = edge.ask("/stats/prometheus", port=edge.stats)
    assert status == 200
    assert b"downstream_global_cx_overflow" in counters


def _answers(client: http.client.HTTPConnection) -> bool:
    try:
        client.request("GET", "/")
        return client.getresponse().read() == b"web"
    except (ConnectionError, http.client.HTTPException):
        client.close()
        return False


def _until(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.parametrize(("method", "status"), [("GET", 200), ("HEAD", 200), ("POST", 503)])
def test_safe_request_is_sent_again_when_its_pod_was_killed(
    company: Edge, method: str, status: int
) -> None:
    """A POST may have been processed: its client has to decide."""
    client = http.client.HTTPConnection("127.0.0.1", company.port)
    client.request(method, f"/killed/{method}/{company.port}")
    assert client.getresponse().status == status


def test_service_without_pods_answers_503_with_retry_after(
    tmp_path: Path, services: dict[str, int]
) -> None:
    """In an upgrade with an outage a Service has no pod, and nodes refuse connections to it.

    The retries end before clients may retry, and a 503 of the application is not retried."""
    for retries in (edge_config.RETRY_LONGER, edge_config.RETRY_SAFE):
        count, longest = retries["num_retries"], _seconds(retries["retry_back_off"]["max_interval"])
        connecting = (count + 1) * _seconds(edge_config.CONNECT_TIMEOUT)
        assert connecting + count * longest < edge_config.RETRY_AFTER_S
    only = {"web": services["web"]}
    with running(
        cluster_environment("company-inc", "production"), tmp_path, only
    ) as edge_without_api:
        status, headers, body = edge_without_api.ask("/api/customers")
        assert (status, headers["retry-after"]) == (503, str(edge_config.RETRY_AFTER_S))
        assert b"not available" in body
        status, headers, body = edge_without_api.ask("/away")
        assert (status, headers["retry-after"], body) == (503, None, b"web")
        assert edge_without_api.get("/") == (200, b"web")
        assert _retries(edge_without_api) == {
            "api": edge_config.RETRY_SAFE["num_retries"],
            "web": 0,
        }


def test_service_with_a_short_timeout_and_no_pods_answers_503_with_retry_after(
    tmp_path: Path,
) -> None:
    """Its timeout ends before the retries. A pod that does not respond in time is another error."""
    made = cluster_environment("company-inc", "production")
    services = made.loaded.stack.services
    for name, service in services.items():
        services[name] = service.model_copy(update={"timeout": 0.5})
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        running(made, tmp_path, {"web": silent.getsockname()[1]}) as edge,
    ):
        status, headers, body = edge.ask("/api/customers")
        assert (status, headers["retry-after"]) == (503, str(edge_config.RETRY_AFTER_S))
        assert b"not available" in body
        status, headers, _ = edge.ask("/")
        assert (status, headers["retry-after"]) == (504, None)


def _seconds(duration: str) -> float:
    return float(duration.removesuffix("s"))


def _retries(edge: Edge) -> dict[str, int]:
    """The retried requests by service, from Envoy's counters."""
    _, _, counters = edge.ask("/stats/prometheus", port=edge.stats)
    found = re.findall(
        r'^envoy_cluster_upstream_rq_retry{envoy_cluster_name="(api|web)"} (\d+)$',
        counters.decode(), re.MULTILINE,
    )  # fmt: skip
    return {name: int(count) for name, count in found}


@pytest.mark.parametrize(
    ("paths", "limits", "status", "says"),
    [
        (["/api/x"] * 40, {"MOST_ERRORS": "0.01", "MOST_P95": "10000"}, 0, "40 requests, 0.0 %"),
        (["/api/x"] * 30 + ["/api/fail"] * 10, {"MOST_ERRORS": "0.01"}, 1, "Too many errors."),
        (["/api/x"] * 30 + ["/api/fail"] * 10, {"MOST_ERRORS": "0.5"}, 0, "25.0 % errors"),
        (["/api/x"] * 40, {"MOST_P95": "0"}, 1, "Too slow."),
        (["/api/fail"] * 5, {"MOST_ERRORS": "0.01"}, 0, "too few"),
        (["/fail"] * 40, {"MOST_ERRORS": "0.01"}, 0, "too few"),
    ],
)
def test_analysis_reads_counters_of_edge(
    paths: list[str],
    limits: dict[str, str],
    status: int,
    says: str,
    company: Edge,
    tmp_path: Path,
) -> None:
    """The window is over when the test has sent its requests: `sleep` waits for a file."""
    company.get("/api/fail")  # What was before the window does not count.
    window = subprocess.Popen(
        ["sh", "-c", here(WATCH, tmp_path)],
        env=_environ(company, tmp_path, limits),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    while not (tmp_path / "window-is-open").exists():
        assert window.poll() is None, window.communicate()[0]
    for path in paths:
        company.get(path)
    (tmp_path / "window-is-over").touch()
    said, _ = window.communicate()
    assert says in said
    assert window.returncode == status, said


class Slot(http.server.ThreadingHTTPServer):
    """The replicas of a slot."""

    daemon_threads = True

    def __init__(self, name: bytes) -> None:
        super().__init__(("127.0.0.1", 0), SlotRequest, bind_and_activate=False)
        self.server_bind()
        self.name, self.asked, self.released = name, threading.Event(), threading.Event()
        self.port: int = self.server_address[1]


@contextlib.contextmanager
def _slot(name: bytes) -> Iterator[Slot]:
    with Slot(name) as slot, _listening(slot):
        yield slot


@contextlib.contextmanager
def _listening(slot: Slot) -> Iterator[None]:
    slot.server_activate()
    threading.Thread(target=slot.serve_forever, daemon=True).start()
    yield
    slot.shutdown()


class SlotRequest(http.server.BaseHTTPRequestHandler):
    """Answers with the name of its slot; `/api/slow` only when the test lets it."""

    protocol_version = "HTTP/1.1"
    server: Slot

    def do_GET(self) -> None:
        if "slow" in self.path:
            self.server.asked.set()
            self.server.released.wait()
        body = self.server.name
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def test_flip_moves_busy_client_without_failed_request(tmp_path: Path) -> None:
    """A Service is what kube-proxy makes of it: a new connection goes to the slot of the moment,
    and one that is there stays. Without a limit to its life, a busy one would never change over."""
    with (
        _slot(b"blue") as blue,
        _slot(b"green") as green,
        address_of_a_service(blue.port) as service,
        running(
            cluster_environment("company-inc", "production"), tmp_path, {"api": service.port}
        ) as found,
    ):
        slow: list[tuple[int, bytes]] = []
        waiting = threading.Thread(target=lambda: slow.append(found.get("/api/slow")))
        waiting.start()
        blue.asked.wait()
        client = http.client.HTTPConnection("127.0.0.1", found.port)
        in_a_row = 0
        while in_a_row < 200:
            client.request("GET", "/api/customers")
            answer = client.getresponse()
            body = answer.read()
            assert answer.status == 200
            if service.to != green.port:
                assert body == b"blue"
                service.to = green.port
            in_a_row = in_a_row + 1 if body == b"green" else 0
        blue.released.set()
        waiting.join()
        assert slow == [(200, b"blue")]


def test_drain_is_answered_once_the_last_request_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meanwhile the edge serves, is ready, and closes connections after their response."""
    monkeypatch.setattr(edge_config, "PRE_STOP_S", 1)
    company = cluster_environment("company-inc", "production")
    with _slot(b"blue") as slot, running(company, tmp_path, {"api": slot.port}) as edge:
        done: list[bytes] = []
        slow = threading.Thread(target=lambda: done.append(edge.get("/api/slow")[1]))
        slow.start()
        slot.asked.wait()
        drain = threading.Thread(target=lambda: done.append(edge.ask("/drain", port=edge.drain)[2]))
        drain.start()
        client = http.client.HTTPConnection("127.0.0.1", edge.port)
        is_closed = False
        while not is_closed:
            client.request("GET", "/api/customers")
            response = client.getresponse()
            assert response.read() == b"blue"
            is_closed = response.will_close
        drain.join(3)
        assert edge.get("/ready", "kube-probe/1.34") == (200, b"ready\n")
        assert drain.is_alive()
        slot.released.set()
        slow.join()
        drain.join()
        assert done == [b"blue", b"drained\n"]


def test_analysis_fails_if_an_edge_pod_does_not_answer(company: Edge, tmp_path: Path) -> None:
    environ = {**_environ(company, tmp_path, {}), "PORT": "1"}
    (tmp_path / "window-is-over").touch()
    said = subprocess.run(
        ["sh", "-c", here(WATCH, tmp_path)], env=environ, capture_output=True, check=False
    )
    assert said.returncode != 0


def test_analysis_leaves_out_an_edge_pod_that_ended(company: Edge, tmp_path: Path) -> None:
    environ = _environ(company, tmp_path, {"MOST_ERRORS": "0.01"})
    pods = "".join(f"Name: edge\\nAddress: 127.0.0.{n}\\n" for n in (2, 1))
    (tmp_path / "programs" / "nslookup").write_text(f"#!/bin/sh\nprintf '{pods}'\n")
    (tmp_path / "window-is-over").touch()
    said = subprocess.run(
        ["sh", "-c", here(WATCH, tmp_path)], env=environ, capture_output=True, check=False
    )
    assert (said.returncode, said.stdout.splitlines()[-1:]) == (
        0, [b"0 requests in the window are too few for an analysis"],
    )  # fmt: skip


def test_analysis_waits_until_its_pod_may_resolve_names(company: Edge, tmp_path: Path) -> None:
    environ = _environ(company, tmp_path, {})
    resolver, marker = tmp_path / "programs" / "nslookup", tmp_path / "asked"
    first = f"[ -e {marker} ] || {{ touch {marker}; exit 1; }}"
    resolver.write_text(resolver.read_text().replace("\n", f"\n{first}\n", 1))
    (tmp_path / "window-is-over").touch()
    said = subprocess.run(
        ["sh", "-c", here(WATCH, tmp_path)], env=environ, capture_output=True, check=False
    )
    assert (marker.exists(), said.returncode) == (True, 0), said


def _environ(company: Edge, folder: Path, limits: dict[str, str]) -> dict[str, str]:
    """The variables of the pod, and a PATH where the cluster's DNS knows the edge."""
    programs = folder / "programs"
    programs.mkdir(exist_ok=True)
    answer = "Server: 10.0.0.10\\nAddress: 10.0.0.10:53\\n\\nName: edge\\nAddress: 127.0.0.1\\n"
    (programs / "nslookup").write_text(f"#!/bin/sh\nprintf '{answer}'\n")
    real = shutil.which("sleep")
    wait = f"touch {folder}/window-is-open; until test -e {folder}/window-is-over; do :; done"
    (programs / "sleep").write_text(
        f"#!/bin/sh\nif [ $1 = 10 ]; then {wait}; else exec {real} $1; fi\n"
    )
    for program in programs.iterdir():
        program.chmod(0o755)
    given = variables_of("company-inc-api-analysis")
    assert limits.keys() <= given.keys()
    given["WINDOW"] = "10"
    return {
        **given, "MOST_ERRORS": "", "MOST_P95": "", **limits,
        "PORT": str(company.stats), "PATH": f"{programs}:{os.environ['PATH']}",
    }  # fmt: skip
