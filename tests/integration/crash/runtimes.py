"""What runs the services of a ship, processes or containers: how it is written in the stack file,
what of it is running, and how it is killed. Nothing else of a crash test depends on the runtime.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from lapwing.agent import process_tree, termination
from lapwing.agent.container_request import HOME_LABEL, OWNER_LABEL, name_of
from lapwing.agent.processes import Identity
from tests.integration.image.docker import Daemon


class Processes:
    """Services are processes of this machine. `environ` is for the commands of lapwing."""

    def __init__(self) -> None:
        self.environ: dict[str, str] = {}

    def stack(self, text: str) -> str:
        """Return the stack file with this runtime."""
        return text

    def owners(self, home: Path) -> list[str]:
        """Return the owner of each replica that is running, whether it was recorded or not."""
        return [owner for _, owner in process_tree.owned(home)]

    def kill(self, home: Path, owner: str) -> None:
        """kill -9 what runs of an owner."""
        for identity, found in list(process_tree.owned(home)):
            if found == owner:
                _kill(identity)

    def cut_power(self, home: Path) -> None:
        """End everything of a home at once."""
        for identity, _ in list(process_tree.owned(home)):
            _kill(identity)


class Containers(Processes):
    """Services are containers of an engine, which ends with them when power fails. Their processes
    have the mark of their owner, as those of any replica. `base` is an image with Python.
    """

    def __init__(self, engine: Daemon, base: str) -> None:
        super().__init__()
        self.environ = engine.docker.environ
        self._engine = engine
        self._base = base

    def stack(self, text: str) -> str:
        built = text.replace("build: ./api", f"build: {{path: ./api, base: '{self._base}'}}")
        return f"{built}environments: {{local: {{runtime: container}}}}\n"

    def owners(self, home: Path) -> list[str]:
        """Return the owners of containers, also of exited ones, then of other processes."""
        label = f"label={HOME_LABEL}={home}"
        fields = f'{{{{.Label "{OWNER_LABEL}"}}}}'
        found = self._engine.docker("ps", "--all", "--filter", label, "--format", fields).split()
        return found + [owner for owner in super().owners(home) if owner not in found]

    def kill(self, home: Path, owner: str) -> None:
        self._engine.docker("kill", name_of(f"{home}|{owner}"))

    def cut_power(self, home: Path) -> None:
        super().cut_power(home)
        self._engine.stop()
        self._engine.start()


def _kill(identity: Identity) -> None:
    asyncio.run(termination.kill(identity))
