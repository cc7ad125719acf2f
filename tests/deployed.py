"""A stack that runs in an installation, and what a person or a client can see of it.

What each test room does to its stack is in a class of its own, which begins with this one.
"""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Callable
from typing import Any

import httpx

from lapwing.agent import state
from lapwing.agent.state import EnvironmentState
from lapwing.desired.repository import DesiredRepository
from tests.installation import Installation
from tests.json_output import validate

PATIENCE = 60.0


def until(holds: Callable[[], object], what: str = "it", pause: float = 0.05) -> Any:
    """What `holds` gives, as soon as it is true."""
    end = time.monotonic() + PATIENCE
    while not (found := holds()):
        assert time.monotonic() < end, f"{what} did not come to pass"
        time.sleep(pause)
    return found


class Deployed:
    """The local environment of a stack named `name`. SERVICE and PATH are what is asked about where
    nothing else is named."""

    SERVICE = "api"
    PATH = "/"

    def __init__(self, where: Installation, name: str) -> None:
        self.where = where
        self.name = name
        self.environment = where.settings.environment(name, "local")
        self.target = where.target(name)

    @property
    def repository(self) -> DesiredRepository:
        """The desired state."""
        return DesiredRepository(self.where.settings.desired)

    def memory(self) -> EnvironmentState:
        """What the agent has written down."""
        found = state.load(self.environment)
        assert found is not None
        return found

    def status(self) -> dict[str, Any]:
        """The status, whether it is well or not."""
        done = self.where.call("status", "--output", "json")
        assert done.returncode in (0, 1), done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        validate("status", found)
        return found

    def service(self, name: str | None = None) -> dict[str, Any]:
        """One service of the status."""
        wanted = name or self.SERVICE
        found: dict[str, Any] = next(s for s in self.status()["services"] if s["name"] == wanted)
        return found

    def history(self) -> list[dict[str, Any]]:
        """The deployments, newest first."""
        found: list[dict[str, Any]] = self.where.json("history")
        return found

    def get(
        self,
        path: str | None = None,
        host: str | None = None,
        login: tuple[str, str] | None = None,
    ) -> httpx.Response:
        """Ask as a client does; by the stack's own host name if no other is given."""
        name = host or f"{self.name}.localhost"
        context = ssl.create_default_context(cafile=self.target.authority)
        with httpx.Client(verify=context, trust_env=False, timeout=10.0) as client:
            return client.get(
                f"https://127.0.0.1:{self.where.port}{path or self.PATH}",
                headers={"host": f"{name}:{self.where.port}"},
                extensions={"sni_hostname": name},
                auth=login,
            )
