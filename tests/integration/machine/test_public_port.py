"""`deploy` and `status` report a replica that other machines can reach without Envoy."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deployed import Deployed, until
from tests.installation import Installation, installation

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("public-port")]
STACK = """
stack: shop
services:
  app:
    build: ./app
    command: python -m http.server --bind ADDRESS $PORT
    route: /
    rollout: {analysis: false, keep_old: 0s}
"""
WARNING = "so other machines can send it requests without Envoy. Bind it to $HOST"


def write(where: Installation, address: str) -> None:
    where.write(
        {
            "lapwing.yaml": STACK.replace("ADDRESS", address),
            "app/requirements.txt": "# The standard library is enough.\n",
        }
    )


def test_public_port_is_reported_until_a_release_listens_on_loopback(tmp_path: Path) -> None:
    with installation(tmp_path) as where:
        write(where, "0.0.0.0")
        deployed = where.run("up")
        [replica] = Deployed(where, "shop").memory().generations[0].replicas
        assert f"app listens on 0.0.0.0, port {replica.port}, {WARNING}" in deployed.stderr
        assert WARNING in where.run("status").stdout
        write(where, "127.0.0.1")
        assert WARNING not in where.run("up").stderr
        until(lambda: WARNING not in where.run("status").stdout)
