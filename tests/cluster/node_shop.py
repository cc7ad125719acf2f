"""A stack of two services on a real node: its files, and the traffic to it."""

from __future__ import annotations

from pathlib import Path

from lapwing.load.worker import Traffic
from tests.cluster import node_images
from tests.cluster.node import Node
from tests.cluster.node_stack import NodeStack
from tests.integration.switching.service import run
from tests.registries import Server

STACK = """
stack: shop
services:
  api:
    build: {{path: ./api, base: "{registry}/{python}"}}
    command: python app.py
    route: /api
    health: /api/healthz
    replicas: {replicas}
    needs: [{needs}]
    rollout:
      smoke:
        - {{get: /api/version, expect: 200, contains: v}}
        - {{run: python -c "open('VERSION')"}}
      analysis: {{window: 5s, max_error_rate: 1%}}
      keep_old: 30s
  web: {{build: ./web, static: ., route: /, rollout: {{analysis: false, keep_old: 30s}}}}
resources: {{{resources}}}
environments:
  node: {{target: kubernetes, domain: shop.example, registry: "{registry}/shop"{more}}}
{environments}"""
TRAFFIC = (
    Traffic(kind="new", path="/api/version", workers=2, interval=0.05),
    Traffic(kind="keep-alive", path="/api/version", workers=2, interval=0.05),
    Traffic(kind="body", path="/api/echo", body='{"number": "{unique}"}', interval=0.1),
    Traffic(kind="slow", path="/api/slow?seconds=2"),
    Traffic(kind="page", path="/", interval=0.2, version=r"version (\w+)"),
    Traffic(kind="websocket", path="/api/ws", seconds=2, interval=0.2),
)

KEPT = Traffic(kind="websocket", path="/api/ws", seconds=25, interval=0.2)
"""Shorter than the time for which the old slot is kept, so that no switch interrupts it."""


class Shop(NodeStack):
    """A stack of two services, deployed to the node."""

    def __init__(self, root: Path, node: Node, registry: Server, environ: dict[str, str]) -> None:
        super().__init__(root, node, registry, environ, "shop")

    def settings_of(
        self, more: str = "", replicas: str = "2", cache: str = "", environments: str = ""
    ) -> None:
        """Write the stack file: more keys of the environment, a Redis resource, environments."""
        text = STACK.format(
            registry=self.registry.host,
            python=node_images.PYTHON,
            more=more,
            replicas=replicas,
            environments=environments,
            needs="cache" if cache else "",
            resources=f"cache: {cache}" if cache else "",
        )
        (self.folder / "lapwing.yaml").write_text(text)

    def release(self, version: str) -> None:
        """Commit a version of both services."""
        run.source(self.folder / "api", version, prefix="/api")
        page = f'version {version} <script src="/assets/app-{version:x<8}.js"></script>'
        self.write({"web/index.html": page, f"web/assets/app-{version:x<8}.js": "//"})
