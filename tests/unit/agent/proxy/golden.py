"""The cases of tests/golden/proxy, and the files that follow from one."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from lapwing.agent.proxy import xds
from lapwing.agent.proxy.bootstrap import Ingress, bootstrap
from lapwing.agent.proxy.model import Cluster, RouteTable, VirtualHost
from lapwing.render.envoy import Json

CASES = Path(__file__).parents[3] / "golden/proxy"
FOLDER = Path("/lapwing/envoy")
VERSION = "7"


@dataclass(frozen=True)
class Given:
    """What the agent tells the proxy."""

    clusters: tuple[Cluster, ...]
    hosts: tuple[VirtualHost, ...]
    addresses: list[str]
    port: int
    trusted_proxies: list[str] = field(default_factory=list)
    underscore_headers: str = "reject"


def given(case: str) -> Given:
    """The input of a case."""
    return msgspec.json.decode((CASES / case / "given.json").read_bytes(), type=Given)


def files(told: Given, folder: Path) -> dict[str, Json]:
    """Every file of Envoy, by its name without the folder of endpoints."""
    found = {
        "bootstrap.json": bootstrap(
            folder,
            folder / "admin.sock",
            Ingress(
                told.addresses,
                told.port,
                tuple(told.trusted_proxies),
                told.underscore_headers,
            ),
        ),
        "cds.json": xds.clusters(told.clusters, folder, VERSION),
        "rds.json": xds.routes(RouteTable(VERSION, told.hosts)),
        "sds.json": xds.certificate(folder / "server.pem", VERSION),
    }
    for cluster in told.clusters:
        name = "eds-" + cluster.name.replace("/", "-") + ".json"
        found[name] = xds.endpoints(cluster, VERSION)
    return found


def shown(content: Json) -> str:
    """A file as text for people."""
    return json.dumps(content, indent=2) + "\n"
