"""Which shippers of logs run."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

from msgspec.structs import replace

from lapwing.agent.log_shipping import Shippers
from lapwing.desired.secrets import SecretStore
from lapwing.plan.model import LogShipping
from lapwing.settings import Settings
from tests.deployed import until
from tests.unit.agent.samples import document

KEY = ("shop", "preview_fix")


def test_shipper_of_a_removed_environment_is_stopped(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    folder = settings.environment(*KEY)
    folder.mkdir(parents=True)
    shippers = Shippers(settings, SecretStore(settings.secrets), lambda _key, _problem: None)
    described = replace(document(), logs=LogShipping(to="http://127.0.0.1:9/v1/logs"))
    shippers.tick({KEY: described})
    until(lambda: list(folder.iterdir()), "the state of the shipper")
    shippers.end(KEY, timeout=30)
    folder.rename(tmp_path / "removed")
    shippers.tick({})
    assert not folder.exists()
    assert not [t for t in threading.enumerate() if t.name == "logs of preview_fix"]


def test_shipper_that_outlives_its_environment_writes_nothing(tmp_path: Path) -> None:
    """The collector accepts the connection, and answers only after the folder was removed."""
    settings = Settings(home=tmp_path)
    folder = settings.environment(*KEY)
    folder.mkdir(parents=True)
    written = settings.logs / "run" / KEY[0] / KEY[1] / "api" / "blue-1.log"
    written.parent.mkdir(parents=True)
    written.write_text("a line\n")
    shippers = Shippers(settings, SecretStore(settings.secrets), lambda _key, _problem: None)
    with socket.create_server(("127.0.0.1", 0)) as collector:
        address = f"http://127.0.0.1:{collector.getsockname()[1]}/v1/logs"
        shippers.tick({KEY: replace(document(), logs=LogShipping(to=address))})
        collector.settimeout(60)
        connection, _ = collector.accept()
        shippers.end(KEY, timeout=0)
        folder.rename(tmp_path / "removed")
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        until(
            lambda: not [t for t in threading.enumerate() if t.name == "logs of preview_fix"],
            "the end of the shipper",
        )
    assert not folder.exists()
