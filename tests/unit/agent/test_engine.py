"""How the container engine of this machine is found."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import socket
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from lapwing.agent import engine
from lapwing.errors import EngineError, EngineUnreachableError

UNPRIVILEGED = 65534


def test_missing_engine_names_the_variable_and_the_sockets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Path, "is_socket", lambda _: False)
    with pytest.raises(EngineUnreachableError) as missing:
        engine.find_socket({"XDG_RUNTIME_DIR": "/run/me"})
    assert "DOCKER_HOST is not set" in missing.value.message
    for path in ("/var/run/docker.sock", "/run/me/podman/podman.sock"):
        assert path in missing.value.message
    assert "set DOCKER_HOST, run `lapwing agent stop`" in (missing.value.hint or "")


@pytest.fixture
def sockets() -> Iterator[tuple[Path, Path]]:
    """A socket, and one in a folder, that only root may use."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "root").mkdir(mode=0o700)
        paths = (folder / "docker.sock", folder / "root/docker.sock")
        listening = [socket.socket(socket.AF_UNIX) for _ in paths]
        for path, each in zip(paths, listening, strict=True):
            each.bind(str(path))
            path.chmod(0o600)
            each.listen()
        yield paths
        for each in listening:
            each.close()


def refused(path: Path) -> str:
    """The error of an engine that another user may not reach; imports need the user of the test."""

    async def ask(path: Path) -> None:
        async with engine.Engine(path) as asked:
            await asked.platform()

    for user, at in ((os.getuid(), path.with_name("none")), (UNPRIVILEGED, path)):
        os.setresuid(user, user, user)
        try:
            asyncio.run(ask(at))
        except EngineError as error:
            found = error.message
    return found


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_socket_without_permission_is_named(sockets: tuple[Path, Path]) -> None:
    for path in sockets:  # A child for each: it stays another user.
        with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as children:
            message = children.submit(refused, path).result()
        assert message == f"Permission denied for the socket of the container engine: {path}."
