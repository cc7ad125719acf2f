"""One control plane for all tests of a worker; each test has a namespace and a stack of its own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from lapwing.kubernetes import kubeconfig
from lapwing.kubernetes.applyset import Scope
from lapwing.kubernetes.client import ApiClient
from tests.cluster.control_plane import Cluster
from tests.cluster.node_fixtures import (  # noqa: F401
    argo,
    network,
    node,
    node_cluster,
    packages,
    registry,
    rollouts,
    shop,
)
from tests.cluster.stacks import Stack
from tests.needs import require


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The control plane, with Argo Rollouts and kwok's own kinds."""
    with Cluster(Path(require("cluster"))) as running:
        running.define("argoproj.io", "kwok.x-k8s.io")
        running.start_nodes()
        running.start_rollouts()
        yield running


@pytest.fixture
def api(cluster: Cluster) -> Iterator[ApiClient]:
    """Our client of it."""
    with ApiClient(kubeconfig.read([cluster.kubeconfig]), {}) as client:
        yield client


@pytest.fixture
def scope() -> Scope:
    """A stack that no other test has."""
    name = f"shop-{uuid.uuid4().hex[:8]}"
    return Scope(stack=name, environment="staging", namespace=name)


@pytest.fixture
def stack(api: ApiClient, cluster: Cluster, scope: Scope, tmp_path: Path) -> Stack:
    """The command, and a stack for it that no other test has."""
    return Stack(api, cluster, scope, tmp_path)
