"""The check of `lapwing doctor` that an agent supervises what should be running."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from lapwing.agent import state
from lapwing.agent.proxy.sockets import check_port
from lapwing.agent.state import EnvironmentState
from lapwing.commands import doctor
from lapwing.errors import PortTakenError
from lapwing.plan.model import Document
from lapwing.settings import Settings
from tests.unit.agent.samples import document, service


@pytest.mark.parametrize(
    ("deployed", "server", "ok", "seen"),
    [
        (None, False, True, "a deployment starts it"),
        (document(), False, True, "a deployment starts it"),
        (document(api=service("api-1")), False, False, "Run `lapwing agent start`."),
        (document(api=service("api-1")), True, False, "Run `systemctl start lapwing`."),
    ],
    ids=["never-deployed", "stopped", "running", "running-on-a-server"],
)
def test_missing_agent_fails_if_something_should_be_running(
    deployed: Document | None, server: bool, ok: bool, seen: str, tmp_path: Path
) -> None:
    settings = Settings(home=tmp_path, server=server)
    if deployed is not None:
        memory = EnvironmentState(stack="shop", environment="local", document=deployed)
        state.save(settings.environment("shop", "local"), memory)
    found = doctor._agent(settings, alive=False)
    assert (found.check, found.ok) == ("agent", ok)
    assert found.seen.startswith("not running")
    assert seen in found.seen


def test_port_of_another_program_is_not_that_of_this_home(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(PortTakenError, match=f"Port {port} is already in use"):
            check_port("127.0.0.1", port, tmp_path)
    assert check_port("127.0.0.1", port, tmp_path) is False
