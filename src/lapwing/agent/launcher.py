"""How the processes of one environment are started: arguments, variables, folder, log.

Gathers what a `Launch` is made from: the release, the secrets, the URLs of resources, and the mark
by which the process is known as ours. What a launch looks like is decided in `launch.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lapwing.agent import caddy, launch, logs, processes, smoke
from lapwing.agent.launch import Launch, Place
from lapwing.agent.resources import server
from lapwing.agent.state import EnvironmentState, Generation, Replica
from lapwing.plan.model import Document, Service
from lapwing.stack import resource_reference as reference

if TYPE_CHECKING:
    from lapwing.agent.environment import Runtime


class Launcher:
    """Makes the launches of one environment. `folder` is where the agent keeps what it knows of
    it."""

    def __init__(self, state: EnvironmentState, runtime: Runtime, folder: Path) -> None:
        self._state = state
        self._runtime = runtime
        self._folder = folder

    def preview(self, document: Document) -> smoke.Preview:
        """Where the candidates of a rollout to a document can be reached."""
        settings = self._runtime.settings
        address = "127.0.0.1" if settings.bind in ("localhost", "0.0.0.0") else settings.bind  # noqa: S104
        return smoke.Preview(
            address=address,
            port=settings.port,
            host=f"preview.{document.domains[0]}",
            authority=settings.certificates / "ca.pem",
        )

    def log_of(self, generation: Generation, replica: Replica) -> Path:
        """The log of a replica."""
        return self.logs(generation.service) / f"{generation.label}.{replica.index}.log"

    def server_log(self, resource: str) -> Path:
        """The log of a resource's server."""
        return server.log_of(self._runtime.settings, self.place(resource, "resource"))

    def logs(self, service: str) -> Path:
        """The folder of a service's logs."""
        settings = self._runtime.settings
        return logs.folder(settings.logs, self._state.stack, self._state.environment, service)

    def replica(self, generation: Generation, replica: Replica) -> Launch:
        """How to start a replica."""
        place = self.place(generation.service, generation.label, replica.index)
        flight = self._state.rollout
        coming = flight.document if flight is not None else None
        return self.launch(generation.spec, place, coming, replica.port)

    def launch(
        self, spec: Service, place: Place, coming: Document | None, port: int | None = None
    ) -> Launch:
        """How to start a process of a service. `coming` is the document of a rollout in flight.

        Raises ReleaseMissingError, SecretError or ResourceError.
        """
        store = self._runtime.store
        release = store.get(place.stack, place.service, spec.release)
        app = store.folder(place.stack, place.service, spec.release) / "app"
        owner = {processes.MARK: f"{self._runtime.settings.home}|{place}"}
        if spec.kind == "static":
            assert port is not None
            settings = self._folder / "static" / f"{place.label}.{place.index}.json"
            arguments = caddy.prepare(app, port, spa=spec.spa, settings=settings)
            return Launch(arguments, caddy.environ(self._folder) | owner, app)
        given = self._given(spec, place, coming)
        parts = self._with_parts(spec, coming, given)
        variables = launch.environ(spec, release, place, given | parts, port)
        return Launch(launch.command(spec), variables | owner, app)

    def _given(self, spec: Service, place: Place, coming: Document | None) -> dict[str, str]:
        """Secrets and resource URLs of a service, by variable."""
        secrets = self._runtime.secrets
        given = {
            name: secrets.get(place.stack, place.environment, name, version)
            for name, version in spec.secrets.items()
        }
        documents = [d for d in (coming, self._state.document) if d]
        for need in spec.needs:
            resource = next((d.resources[need] for d in documents if need in d.resources), None)
            if resource is not None:
                given[resource.variable] = server.url(
                    self.place(need, "resource"),
                    resource,
                    self._state.resources.get(need),
                    self._runtime.settings,
                )
        return given

    def _with_parts(
        self, spec: Service, coming: Document | None, given: dict[str, str]
    ) -> dict[str, str]:
        """Those variables of a service that name parts of its resources, with what they are."""
        documents = [d for d in (coming, self._state.document) if d]
        resources = {n: r for d in reversed(documents) for n, r in d.resources.items()}

        def part(need: str, wanted: str) -> str:
            resource = resources[need]
            return reference.part_of(given[resource.variable], resource.kind, wanted)

        found = {}
        for variable, text in spec.env.items():
            known = [(n, p) for n, p in reference.references(text) if n in resources]
            if known:
                found[variable] = reference.expand(text, part)
        return found

    def place(self, service: str, label: str, index: int = 0) -> Place:
        """Where a process of this environment belongs."""
        return Place(self._state.stack, self._state.environment, service, label, index)
