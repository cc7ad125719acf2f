"""How the container engine of this machine is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from lapwing.agent import engine
from lapwing.errors import EngineUnreachableError


def test_missing_engine_names_the_variable_and_the_sockets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Path, "is_socket", lambda _: False)
    with pytest.raises(EngineUnreachableError) as missing:
        engine.find_socket({"XDG_RUNTIME_DIR": "/run/me"})
    assert "DOCKER_HOST is not set" in missing.value.message
    for socket in ("/var/run/docker.sock", "/run/me/podman/podman.sock"):
        assert socket in missing.value.message
    assert "set DOCKER_HOST, run `lapwing agent stop`" in (missing.value.hint or "")
