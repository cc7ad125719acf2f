"""The example, deployed by Lapwing from a repository of its own: once without a database server
and once with a real one, both in one home, so that what npm installs is installed once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.installation import Installation, installation
from tests.needs import require

EXAMPLE = Path(__file__).parents[3] / "examples" / "company-inc"
IGNORED = shutil.ignore_patterns("node_modules", "dist", "__pycache__", ".pytest_cache", ".venv")
SERVERS = ("mongod", "ferretdb")


@dataclass(frozen=True)
class Deployed:
    """A running stack: where it is, what it is called, what holds its data."""

    where: Installation
    stack: str
    provider: str
    said: str
    """What `lapwing up` printed on standard output."""

    @property
    def url(self) -> str:
        return f"https://{self.stack}.localhost:{self.where.port}"


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    require("node")
    path = os.pathsep.join(
        folder
        for folder in os.environ["PATH"].split(os.pathsep)
        if not any((Path(folder) / name).exists() for name in SERVERS)
    )
    with installation(tmp_path_factory.mktemp("e2e"), PATH=path) as where:
        yield where


@pytest.fixture(scope="session")
def embedded(home: Installation) -> Deployed:
    return _up(home, "company-inc", "embedded")


@pytest.fixture(scope="session")
def on_server(home: Installation, embedded: Deployed) -> Iterator[Deployed]:
    require("mongodb")
    other = home.beside("other", PATH=os.environ["PATH"])
    yield _up(other, "company-two", "binary")
    other.run("down")


@pytest.fixture(scope="session", params=["embedded", "on_server"])
def deployed(request: pytest.FixtureRequest) -> Deployed:
    found: Deployed = request.getfixturevalue(request.param)
    return found


def _up(where: Installation, stack: str, provider: str) -> Deployed:
    shutil.copytree(EXAMPLE, where.folder, dirs_exist_ok=True, ignore=IGNORED)
    text = (where.folder / "lapwing.yaml").read_text()
    where.write(
        {
            "lapwing.yaml": text.replace("stack: company-inc", f"stack: {stack}"),
            ".gitignore": "node_modules/\ndist/\n__pycache__/\n",
        }
    )
    return Deployed(where, stack, provider, where.run("up").stdout)
