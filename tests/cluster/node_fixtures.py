"""A real node for the tests of a module, in a network in which the whole module runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lapwing.render.kubernetes.analysis import CURL
from lapwing.render.kubernetes.edge import ENVOY
from tests.cluster import node_images, node_objects
from tests.cluster.control_plane import Cluster
from tests.cluster.node import ADDRESS, Node, node_network
from tests.cluster.node_shop import Shop
from tests.needs import require
from tests.offline import downloaded
from tests.registries import Server, docker_registry


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What builds use instead of a package index: the network of the node has none."""
    return downloaded(tmp_path_factory.mktemp("packages"))


@pytest.fixture(scope="module")
def network(packages: dict[str, str]) -> Iterator[None]:
    """The network in which everything of this module runs."""
    with node_network():
        yield


@pytest.fixture(scope="module")
def registry(network: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The registry of the node, with the images that it needs."""
    parts = Path(require("node-parts"))
    folder = tmp_path_factory.mktemp("images")
    with docker_registry(require("registry"), tmp_path_factory.mktemp("registry")) as server:
        node_images.push_system(server, parts, folder)
        node_images.push_stack(server, folder, ENVOY, CURL)
        yield server


@pytest.fixture(scope="module")
def node_cluster(registry: Server) -> Iterator[Cluster]:
    """A control plane for the node."""
    with Cluster(Path(require("node-parts")), ADDRESS) as running:
        yield running


@pytest.fixture(scope="module")
def node(node_cluster: Cluster, registry: Server) -> Iterator[Node]:
    """The node, with names of Services."""
    with Node(node_cluster, registry.host) as running:
        node_objects.install_dns(node_cluster)
        yield running


@pytest.fixture
def shop(tmp_path: Path, node: Node, registry: Server, packages: dict[str, str]) -> Iterator[Shop]:
    made = Shop(tmp_path, node, registry, packages)
    made.settings_of()
    yield made
    made.call("down", "-e", "node", "--volumes", "--yes")


@pytest.fixture(scope="module")
def argo(node_cluster: Cluster) -> None:
    """The controller of Argo Rollouts."""
    node_cluster.define("argoproj.io")
    node_cluster.start_rollouts()


@pytest.fixture
def rollouts(argo: None, shop: Shop) -> Shop:
    """The stack with blue-green services."""
    shop.settings_of(", rollouts: true")
    return shop
