"""The stack of the tests of faults, with its service in containers of an engine of the tests.

The image is built by Lapwing on a base that is made of this machine's Python: no image of a
publisher can be pulled in a test.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.installation import Installation, installation
from tests.integration.faults.conftest import clients, watched
from tests.integration.faults.ship import Ship
from tests.integration.image.docker import Daemon, Docker, daemon, python_base
from tests.needs import require

__all__ = ["base", "clients", "contained", "docker", "ship", "watched"]
CRASHES = Path(__file__).with_name("test_crash.py")
FAST_CRASHES = {"test_deployment_after_a_power_failure[analysing]"}
"""The cases of `test_crash` that every run takes."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the other cases of `test_crash` as slow: they are fast only with processes."""
    for item in items:
        if item.path == CRASHES and item.name not in FAST_CRASHES:
            item.add_marker(pytest.mark.slow)


class ContainerShip(Ship):
    """The stack, whose service runs in containers. They see the marks as a volume."""

    def __init__(self, where: Installation, base: str) -> None:
        self._base = base
        super().__init__(where)
        self.marks = where.settings.volume(self.name, "local", "marks", "/marks")

    def stack(self, text: str) -> None:
        built = f"{{path: ./api, base: '{self._base}'}}"
        text = text.replace("build: ./api", f"build: {built}\n    volumes: {{marks: /marks}}")
        text = text.replace("@MARKS@", "/marks")
        super().stack(f"{text}environments: {{local: {{runtime: container}}}}\n")

    def containers(self, docker: Docker) -> list[str]:
        """The names of the containers of the stack, also of exited ones."""
        return docker("ps", "--all", "--format", "{{.Names}}").split()


@pytest.fixture(scope="module")
def contained() -> Iterator[Daemon]:
    """An engine, in whose network the tests run."""
    with daemon(require("docker")) as running:
        yield running


@pytest.fixture(scope="module")
def docker(contained: Daemon) -> Docker:
    return contained.docker


@pytest.fixture(scope="module")
def base(docker: Docker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of the base image, in a registry and in the engine."""
    with python_base(docker, tmp_path_factory.mktemp("base")) as name:
        yield name


@pytest.fixture(scope="module")
def ship(
    docker: Docker, base: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ContainerShip]:
    root: Path = tmp_path_factory.mktemp("containers")
    environ: dict[str, Any] = docker.environ
    with installation(root, **environ) as where:
        made = ContainerShip(where, base)
        made.up()
        yield made
