"""Two real registries for each worker, and a client with short retry delays."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lapwing.registry.client import RegistryClient
from lapwing.registry.copy import CopyOptions, CopyResult
from lapwing.settings import Settings
from lapwing.stack import image
from lapwing.system.retry import RetryPolicy
from tests.faulty import Login, Proxy, proxy
from tests.needs import require
from tests.registries import Server, docker_registry, oci_registry

SOON = RetryPolicy(attempts=4, first_delay=0.01, max_delay=0.05)


class Quiet:
    """Progress that counts bytes."""

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}
        self.through: dict[str, int] = {}
        self.ended: dict[str, str] = {}

    def begin(self, name: str, size: int) -> None:
        self.sizes[name] = size

    def advance(self, name: str, more: int) -> None:
        self.through[name] = self.through.get(name, 0) + more

    def end(self, name: str, outcome: str) -> None:
        self.ended[name] = outcome


@dataclass
class Copier:
    """Copies in this process; `progress` is that of the last copy."""

    settings: Settings
    progress: Quiet

    async def __call__(
        self, source: str, destination: str, *tags: str, retry: RetryPolicy = SOON, **wanted: Any
    ) -> CopyResult:
        self.progress = Quiet()
        async with RegistryClient(self.settings, retry=retry) as client:
            return await client.copy(
                image.parse(source),
                image.parse(destination, default_tag=None),
                tags,
                CopyOptions(**wanted),
                self.progress,
            )


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("source")
    with docker_registry(require("registry"), folder) as server:
        yield server


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("target")
    with docker_registry(require("registry"), folder) as server:
        yield server


@pytest.fixture
def oci(tmp_path: Path) -> Iterator[Server]:
    """A registry with the referrers API."""
    with oci_registry(require("oci-registry"), tmp_path / "oci") as server:
        yield server


@pytest.fixture
def name() -> str:
    """A separate repository for each test."""
    return f"team/{uuid.uuid4().hex[:12]}"


@pytest.fixture
def layers() -> list[bytes]:
    return [os.urandom(300_000), os.urandom(50_000), os.urandom(10)]


@pytest.fixture
def docker_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "docker"
    folder.mkdir()
    return folder


@pytest.fixture
def copy(tmp_path: Path, docker_folder: Path) -> Copier:
    environ = {
        "HOME": str(tmp_path),
        "PATH": os.environ["PATH"],
        "DOCKER_CONFIG": str(docker_folder),
    }
    return Copier(Settings(home=tmp_path / "home", environ=environ), Quiet())


@pytest.fixture
def behind(request: pytest.FixtureRequest) -> Callable[..., Proxy]:
    """Makes a faulty proxy in front of a server, with or without a login."""

    def make(server: Server, login: Login | None = None) -> Proxy:
        context = proxy(server.host, login)
        made = context.__enter__()
        request.addfinalizer(lambda: context.__exit__(None, None, None))
        return made

    return make
