"""How processes are started: arguments, environment, working directory.

The environment is built from nothing: what the release needs, the stack file's `env`, secrets, the
URLs of resources, and Lapwing's own variables (PORT and the identity of the replica). The agent's
own environment is not inherited. Servers that read a bind address from the environment get the
loopback address, because only Envoy listens for clients.

`Launcher` gathers the inputs; `environ` and `command` are pure.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath

from lapwing.agent import caddy, logs, one_off, volumes
from lapwing.agent.container_request import network_name
from lapwing.agent.processes import MARK, ContainerOptions, Launch, Owner
from lapwing.agent.resources import launches
from lapwing.agent.state import EnvironmentState, Generation, Replica
from lapwing.build.image.config import exec_form, listening
from lapwing.build.release import INITIAL, Release, ReleaseStore
from lapwing.desired.secrets import SecretStore
from lapwing.plan.model import Document, Resource, Service
from lapwing.settings import Settings
from lapwing.stack import resource_reference as reference
from lapwing.system.files import remove_tree
from lapwing.system.shell import with_exec

JOB_LABEL = "job"
"""The label of the processes of jobs, which belong to no generation."""
_BACKUP_VARIABLES = (
    *("PATH", "LANG", "HOME", "PYTHONPATH"),
    *("DOCKER_HOST", "CONTAINER_HOST", "XDG_RUNTIME_DIR"),
)
"""The variables of the agent that a backup gets, in addition to `AWS_*`."""


class Launcher:
    """Builds the launches of one environment. `folder` is the agent's folder of it."""

    def __init__(
        self,
        state: EnvironmentState,
        settings: Settings,
        store: ReleaseStore,
        secrets: SecretStore,
        folder: Path,
    ) -> None:
        self._state = state
        self._settings = settings
        self._store = store
        self._secrets = secrets
        self._folder = folder

    def owner(self, service: str, label: str, index: int = 0) -> Owner:
        """Return the owner of a process of this environment."""
        return Owner(self._state.stack, self._state.environment, service, label, index)

    def mark(self, owner: Owner) -> str:
        """Return the value of the mark of a process and of all that it starts."""
        return f"{self._settings.home}|{owner}"

    def mark_of(self, generation: Generation, replica: Replica) -> str:
        """Return the mark of a replica."""
        return self.mark(self.owner(generation.service, generation.label, replica.index))

    def log_folder(self, service: str) -> Path:
        """Return the folder of a service's logs."""
        owner = self.owner(service, "")
        return logs.folder(self._settings.logs, owner.stack, owner.environment, service)

    def log_of(self, generation: Generation, replica: Replica) -> Path:
        """Return the log of a replica."""
        return self.log_folder(generation.service) / f"{generation.label}.{replica.index}.log"

    def job_log(self, job: str, run: str) -> Path:
        """Return the log of a run of a job; `run` is the start time if scheduled, else a commit."""
        return self.log_folder(job) / f"{JOB_LABEL}-{run}.log"

    def server_log(self, resource: str) -> Path:
        """Return the log of a resource's server."""
        return launches.log_of(self._settings, self.owner(resource, "resource"))

    async def replica(self, generation: Generation, replica: Replica) -> Launch:
        """Build the launch of a replica. Raises as `launch` does."""
        owner = self.owner(generation.service, generation.label, replica.index)
        rollout = self._state.rollout
        incoming = rollout.document if rollout is not None else None
        return await self.launch(generation.spec, owner, incoming, replica.port)

    async def launch(
        self,
        spec: Service,
        owner: Owner,
        incoming: Document | None,
        port: int | None = None,
        *,
        host_network: bool = False,
    ) -> Launch:
        """Build the launch of a process of a service.

        `incoming` is the document of a rollout in progress. A container may use the network of the
        machine (`host_network`). Secrets are decrypted and files written in a thread.

        Raises ReleaseMissingError, SecretError or ResourceError.
        """
        return await asyncio.to_thread(self._launch, spec, owner, incoming, port, host_network)

    def backup(self, owner: Owner) -> Launch:
        """Build the launch of a backup of this environment, with the agent's settings."""
        arguments = (sys.executable, "-m", "lapwing.agent.backups", owner.stack, owner.environment)
        variables = {"LAPWING_HOME": str(self._settings.home), MARK: self.mark(owner)}
        kept = {
            k: v for k, v in os.environ.items() if k in _BACKUP_VARIABLES or k.startswith("AWS_")
        }
        return Launch(arguments, kept | variables, self._settings.home)

    def record_active(self) -> None:
        """Record which static releases are active: their hashed files outlive a switch."""
        recent = self._folder / "recent"
        known = [p.name for p in recent.iterdir()] if recent.is_dir() else []
        active: dict[str, Path | None] = dict.fromkeys(known)
        for generation in self._state.generations:
            spec = generation.spec
            if spec.kind == "static" and generation.role == "active":
                release = self._store.folder(self._state.stack, generation.service, spec.release)
                active[generation.service] = release / "app"
        for service, files in active.items():
            caddy.record_active(recent / service, files, time.time())

    def _launch(
        self,
        spec: Service,
        owner: Owner,
        incoming: Document | None,
        port: int | None,
        host_network: bool,
    ) -> Launch:
        if spec.container is not None:
            resources = self._resources(incoming)
            given = self._given(spec, owner, resources, on_machine=host_network)
            needed = [resources[n] for n in spec.needs if n in resources]
            network = None
            if any(resource.provider == "container" for resource in needed):
                network = network_name(self._settings, owner.stack, owner.environment)
            return self._container(
                spec, owner, given, port, host_network=host_network, network=network
            )
        release = self._store.get(owner.stack, owner.service, spec.release)
        app = self._store.folder(owner.stack, owner.service, spec.release) / "app"
        mark = {MARK: self.mark(owner)}
        if spec.kind == "static":
            assert port is not None
            config = self._folder / "static" / f"{owner.label}.{owner.index}.json"
            arguments = caddy.prepare(
                app,
                port,
                spa=spec.spa,
                settings=config,
                route=spec.route or "/",
                recent=self._folder / "recent" / owner.service,
            )
            return Launch(arguments, caddy.environ(self._folder) | mark, app)
        given = self._given(spec, owner, self._resources(incoming), on_machine=True)
        live = {(g.service, g.label) for g in self._state.with_processes}
        home = prepare_home(
            self._folder / "homes", owner, None if one_off.is_one_off(str(owner)) else live
        )
        places = self._volumes(spec, owner, app.parent)
        variables = environ(spec, release, owner, home, places | given, port)
        return Launch(command(spec), variables | mark, app)

    def _resources(self, incoming: Document | None) -> dict[str, Resource]:
        documents = [d for d in (self._state.document, incoming) if d]
        return {n: r for d in documents for n, r in d.resources.items()}

    def _given(
        self, spec: Service, owner: Owner, resources: Mapping[str, Resource], *, on_machine: bool
    ) -> dict[str, str]:
        """Return the secrets, the URLs of resources, and the variables with parts of them.

        A URL is for processes in the network of the machine (`on_machine`), or for containers.
        """
        given = {
            name: self._secrets.get(owner.stack, owner.environment, name, version)
            for name, version in spec.secrets.items()
        }
        for need in spec.needs:
            if need in resources:
                given[resources[need].variable] = launches.url(
                    self.owner(need, "resource"),
                    resources[need],
                    self._state.resources.get(need),
                    self._settings,
                    on_machine=on_machine,
                )

        def part(need: str, wanted: str) -> str:
            resource = resources[need]
            return reference.part_of(given[resource.variable], resource.kind, wanted)

        expanded = {
            variable: reference.expand(text, part)
            for variable, text in spec.env.items()
            if any(name in resources for name, _ in reference.references(text))
        }
        return given | expanded

    def _container(
        self,
        spec: Service,
        owner: Owner,
        given: Mapping[str, str],
        published: int | None,
        *,
        host_network: bool,
        network: str | None,
    ) -> Launch:
        """Build the launch of a container, with its volumes."""
        assert spec.container is not None
        assert spec.image is not None
        port, user = spec.container.port, spec.container.user
        mounts, places = dict[str, Path](), dict[str, str]()
        for name, path in spec.volumes.items():
            place = self._settings.volume(owner.stack, owner.environment, name, path)
            volumes.ensure(place)
            volumes.change_owner(place, user, owner.service)
            mounts[path], places[volumes.variable(name)] = place, path
        options = ContainerOptions(
            image=spec.image,
            user=user,
            port=port if published else None,
            published=published,
            scratch=spec.container.scratch,
            memory=spec.memory,
            cpu=spec.cpu,
            volumes=mounts,
            host_network=host_network,
            network=network,
        )
        variables = identity(spec, owner) | listening(options.port) | places
        variables |= {**spec.env, **given, MARK: self.mark(owner)}
        arguments = tuple(exec_form(with_port(spec.command, port))) if spec.command else ()
        return Launch(arguments, variables, self._folder, options)

    def _volumes(self, spec: Service, owner: Owner, release: Path) -> dict[str, str]:
        """Create the volumes of a service that are missing; return their variables."""
        variables = {}
        for name, path in spec.volumes.items():
            place = self._settings.volume(owner.stack, owner.environment, name, path)
            volumes.ensure(place, release / INITIAL / path)
            if PurePosixPath(path).is_absolute():
                volumes.link(Path(path), place, name)
            variables[volumes.variable(name)] = str(place)
        return variables


def prepare_home(homes: Path, owner: Owner, live: Collection[tuple[str, str]] | None) -> Path:
    """Create the home folder of a process, which its restarts keep.

    Those of generations that are not `live` (service and label) are removed, without `live` none.
    `one_off` removes those of one-off commands. Raises OSError.
    """
    for old in homes.glob("*/*") if live is not None else ():
        label = old.name.rpartition(".")[0]
        kept = label in (JOB_LABEL, owner.label) or label.startswith(one_off.LABEL)
        if not kept and (old.parent.name, label) not in (live or ()):
            remove_tree(old)
    home = home_of(homes, owner)
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    return home


def home_of(homes: Path, owner: Owner) -> Path:
    """Return the home folder of a process."""
    return homes / owner.service / f"{owner.label}.{owner.index}"


def environ(
    spec: Service,
    release: Release,
    owner: Owner,
    home: Path,
    given: Mapping[str, str],
    port: int | None,
) -> dict[str, str]:
    """Return the environment of a process. `given` holds secrets and resource URLs by variable."""
    variables = {
        "PATH": os.pathsep.join([*release.path, "/usr/local/bin", "/usr/bin", "/bin"]),
        "LANG": "C.UTF-8",
        "HOME": str(home),
        **identity(spec, owner),
        **release.environment,
    }
    if port is not None:
        variables |= {
            "PORT": str(port),
            "HOST": "127.0.0.1",
            # Source: Next.js documentation, output: standalone.
            "HOSTNAME": "127.0.0.1",
            # gunicorn binds to 0.0.0.0:$PORT by default; its settings variable has precedence.
            # Source: docs.gunicorn.org, settings, GUNICORN_CMD_ARGS and bind.
            "GUNICORN_CMD_ARGS": f"--bind 127.0.0.1:{port}",
            "FLASK_RUN_HOST": "127.0.0.1",
            "FLASK_RUN_PORT": str(port),
            "UVICORN_HOST": "127.0.0.1",
            "UVICORN_PORT": str(port),
        }
    return variables | dict(spec.env) | dict(given)


def identity(spec: Service, owner: Owner) -> dict[str, str]:
    """Return the variables that name a replica and its release."""
    return {
        "LAPWING_STACK": owner.stack,
        "LAPWING_ENVIRONMENT": owner.environment,
        "LAPWING_SERVICE": owner.service,
        "LAPWING_RELEASE": spec.release,
        "LAPWING_REVISION": spec.revision,
        "LAPWING_REPLICA": f"{owner.label}.{owner.index}",
    }


def with_port(command: str, port: int | None) -> str:
    """Insert the port into a command, so that an image without a shell can run it."""
    return command if port is None else re.sub(r"\$(?:\{PORT\}|PORT\b)", str(port), command)


def command(spec: Service) -> tuple[str, ...]:
    """Return the arguments of a service's command.

    A shell expands `$PORT` and similar, then executes the program in its place.
    """
    return ("/bin/sh", "-c", with_exec((spec.command or "").strip()))
