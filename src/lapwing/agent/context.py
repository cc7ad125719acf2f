"""What all environments of one agent share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from lapwing.agent.publisher import Publisher
from lapwing.agent.runtime import Runtimes
from lapwing.agent.state import EnvironmentState, FileWriter
from lapwing.build.release import ReleaseStore
from lapwing.desired.repository import DesiredRepository
from lapwing.desired.secrets import SecretStore
from lapwing.settings import Settings


@dataclass(frozen=True, slots=True)
class Context:
    """The collaborators and the states that all environments share."""

    settings: Settings
    releases: ReleaseStore
    repository: DesiredRepository
    secrets: SecretStore
    publisher: Publisher
    runtimes: Runtimes
    states: Callable[[], list[EnvironmentState]]
    """Returns the state of every environment."""
    writer: FileWriter = field(default_factory=FileWriter)

    def ports(self) -> set[int]:
        """Return the ports of all replicas of all environments."""
        return {r.port for s in self.states() for g in s.with_processes for r in g.replicas}
