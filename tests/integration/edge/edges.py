"""A real Envoy with the configuration of a rendered edge, on this machine.

Only addresses are changed: ports are free ones of the loopback interface, and the names of Services
lead to what the test runs.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import sysconfig
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any

import yaml

from lapwing.render.kubernetes import edge_config, render
from lapwing.render.kubernetes.edge import size_of
from lapwing.render.kubernetes.edge_size import EdgeSize
from lapwing.render.kubernetes.objects import ClusterEnvironment
from lapwing.render.kubernetes.setting import text
from tests.unit.render.clusters import cluster_environment

ENVOY = Path(sysconfig.get_path("scripts")) / "envoy"


@dataclass(frozen=True, slots=True)
class Edge:
    """A running edge: the ports of requests, of counters, and of the request before its end."""

    port: int
    stats: int
    drain: int
    tls: bool
    """Whether clients need TLS; the certificate is signed by itself."""

    def get(self, path: str, agent: str = "test") -> tuple[int, bytes]:
        """Status and body of a request on a connection of its own."""
        status, _, body = self.ask(path, agent)
        return status, body

    def ask(
        self, path: str, agent: str = "test", port: int | None = None
    ) -> tuple[int, Message, bytes]:
        """Status, headers and body."""
        tls = self.tls and port is None
        address = f"{'https' if tls else 'http'}://127.0.0.1:{port or self.port}{path}"
        request = urllib.request.Request(address, headers={"user-agent": agent})
        try:
            trust = ssl._create_unverified_context() if tls else None
            with urllib.request.urlopen(request, timeout=30, context=trust) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()


def configuration(
    cluster: ClusterEnvironment,
    folder: Path,
    services: Mapping[str, int],
    size: EdgeSize | None = None,
) -> tuple[Path, Edge]:
    """The rendered configuration as a file for this machine. `services` are ports by service."""
    written = edge_config.configuration(cluster, size or size_of(cluster))
    tree: dict[str, Any] = yaml.safe_load(text(written, cluster.scopes))
    web, stats, drain = _free_ports(3)
    ports = Edge(web, stats, drain, edge_config.ends_tls(cluster))
    static = tree["static_resources"]
    for listener, port in zip(
        static["listeners"], (ports.port, ports.stats, ports.drain), strict=True
    ):
        listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": port}
    admin = folder / "a.sock"
    tree["admin"]["address"]["pipe"]["path"] = str(admin)
    for cluster in static["clusters"]:
        [group] = cluster["load_assignment"]["endpoints"]
        [endpoint] = group["lb_endpoints"]
        address = endpoint["endpoint"]["address"]
        if "pipe" in address:
            address["pipe"]["path"] = str(admin)
        else:
            port = {"envoy_drain": ports.drain, **services}.get(cluster["name"], 1)
            address["socket_address"] = {"address": "127.0.0.1", "port_value": port}
    file = folder / "envoy.yaml"
    file.write_text(yaml.safe_dump(tree).replace("/etc/tls/", f"{folder}/"))
    return file, ports


def _free_ports(count: int) -> list[int]:
    """Different ports that nothing listens on at the moment."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [probe.getsockname()[1] for probe in probes]


@contextlib.contextmanager
def running(
    cluster: ClusterEnvironment,
    folder: Path,
    services: Mapping[str, int],
    size: EdgeSize | None = None,
) -> Iterator[Edge]:
    """Start the edge and wait until it answers."""
    file, ports = configuration(cluster, folder, services, size)
    log = folder / "envoy.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(ENVOY), "-c", str(file), "--log-level", "warning", "--concurrency", "1",
             "--use-dynamic-base-id"],
            stdout=out, stderr=out,
        )  # fmt: skip
        try:
            while not answers(ports):
                assert process.poll() is None, log.read_text()
                time.sleep(0.05)
            yield ports
        finally:
            process.terminate()
            process.wait()


def answers(ports: Edge) -> bool:
    """Whether the edge is ready, asked as the kubelet asks."""
    try:
        return ports.get("/ready", "kube-probe/1.34") == (200, b"ready\n")
    except OSError:
        return False


class ServiceAddress:
    """The address of a Service: forwards each new connection to `to`, and leaves the others."""

    def __init__(self, to: int) -> None:
        self.to = to
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                pod = socket.create_connection(("127.0.0.1", self.to))
                for source, sink in ((client, pod), (pod, client)):
                    threading.Thread(target=_pour, args=(source, sink), daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()


def _pour(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def address_of_a_service(to: int) -> Iterator[ServiceAddress]:
    """An address that leads to a port, for as long as it is wanted."""
    found = ServiceAddress(to)
    try:
        yield found
    finally:
        found.close()


def here(script: str, folder: Path) -> str:
    """A script of a rendered pod with files of the test in the place of `/tmp`."""
    return script.replace("/tmp/", f"{folder}/")


def variables_of(template: str) -> dict[str, str]:
    """The variables of the first test in an AnalysisTemplate of company-inc."""
    files = render.files(cluster_environment("company-inc", "production"))
    for tree in yaml.safe_load_all(files["workloads.yaml"]):
        if tree["metadata"]["name"] == template:
            pod = tree["spec"]["metrics"][0]["provider"]["job"]["spec"]["template"]["spec"]
            return {v["name"]: v["value"] for v in pod["containers"][0]["env"]}
    raise AssertionError(f"there is no {template}")
