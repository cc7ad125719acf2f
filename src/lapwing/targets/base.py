"""The seam between commands and the places where an environment can run.

A `Target` changes or reads one environment of one stack: a machine with an agent, a cluster that
Lapwing applies itself, or a cluster that Argo CD applies. Each verb takes a request and returns
data; only the caller (the command line, the console) prints. Progress is reported while a verb
runs through a `Reporter`, which also answers questions before something is lost.

    stack file -> select() -> target -> plan -> guards -> commit -> wait -> DeployResult
"""

from __future__ import annotations

import getpass
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from lapwing.desired.history import Entry, ServiceAt
from lapwing.errors import StateError, UsageError
from lapwing.observed.status import Status
from lapwing.observed.usage import Summary
from lapwing.plan.diff import Change
from lapwing.plan.model import Document
from lapwing.settings import Settings
from lapwing.stack.load import LOCAL
from lapwing.system.git import Git

Verb = Literal["deploy", "up", "promote", "abort", "rollback", "down", "maintenance", "restore"]
Outcome = Literal[
    "succeeded",
    "held",
    "unchanged",
    "dry-run",
    "committed",
    "in-progress",
    "detached",
    "failed",
    "rolled-back",
    "aborted",
    "superseded",
    "interrupted",
]
"""`committed`: Argo CD applies the commit, or a machine pulls it. `in-progress`: Argo Rollouts
continues. `detached`: the agent continues after Ctrl-C. `interrupted`: nothing continues until a
command is run again."""
DONE: frozenset[Outcome] = frozenset(
    {"succeeded", "held", "unchanged", "dry-run", "committed", "in-progress"}
)
State = Literal["running", "degraded", "deploying", "paused", "stopping", "stopped"]
"""The state of an environment."""


@dataclass(frozen=True, slots=True)
class EnvironmentRef:
    """One environment of one stack."""

    stack: str
    environment: str

    def __str__(self) -> str:
        return f"{self.stack}/{self.environment}"


class Reporter(Protocol):
    """Shows progress to a user while a verb runs."""

    def say(self, text: str) -> None:
        """Show a message that stays."""
        ...

    def progress(self, text: str) -> None:
        """Show the current step."""
        ...

    def working(self, text: str) -> AbstractContextManager[None]:
        """Show that work is in progress for as long as the context is open."""
        ...

    def confirm(self, question: str) -> bool:
        """Ask a yes-or-no question; false where no user can answer."""
        ...


class Silent:
    """A `Reporter` that shows nothing and confirms nothing."""

    def say(self, text: str) -> None:
        """Ignore a message."""

    def progress(self, text: str) -> None:
        """Ignore a step."""

    def working(self, text: str) -> AbstractContextManager[None]:
        """Show nothing."""
        return nullcontext()

    def confirm(self, question: str) -> bool:
        """Answer no."""
        return False


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """How to reach a cluster.

    `context` is the kubeconfig context; `yes` skips questions; `create` creates a local cluster.
    """

    context: str | None = None
    yes: bool = False
    create: bool = False


@dataclass(frozen=True, slots=True)
class DeployRequest:
    """What to deploy. `images` are by service; `backup` and `restore` are commands."""

    services: tuple[str, ...] = ()
    images: Mapping[str, str] = field(default_factory=dict)
    hold: bool = False
    dry_run: bool = False
    allow_downtime: bool = False
    backup: str | None = None
    restore: str | None = None
    verb: Verb = "deploy"


@dataclass(frozen=True, slots=True)
class RollbackRequest:
    """Which services to roll back (all by default), and to which release."""

    services: tuple[str, ...] = ()
    release: str | None = None


@dataclass(frozen=True, slots=True)
class DownRequest:
    """What to remove in addition: the data, or the whole local cluster."""

    volumes: bool = False
    cluster: bool = False


class Rollout(msgspec.Struct, kw_only=True):
    """How a deployment was carried out.

    `times` are seconds from the commit to each state; `applied` and `removed` are Kubernetes
    objects, `kind name`.
    """

    services: list[str] = []
    times: dict[str, float] = {}
    preview: str | None = None
    applied: list[str] = []
    removed: list[str] = []


class DeployResult(msgspec.Struct, kw_only=True):
    """The outcome of `deploy`, `up`, `promote`, `abort`, `rollback` or `down` on any target."""

    stack: str
    environment: str
    target: Literal["machine", "kubernetes", "argocd"]
    kind: Verb
    outcome: Outcome
    commit: str | None = None
    changes: list[Change] = []
    rollout: Rollout | None = None
    services: dict[str, ServiceAt] = {}
    reason: str | None = None
    detail: str | None = None
    hint: str | None = None
    seconds: float = 0.0
    url: str | None = None


@dataclass(frozen=True, slots=True)
class StatusReport:
    """What runs. `agent_running` and `envoy_running` are not set on a cluster."""

    status: Status
    agent_running: bool | None = None
    envoy_running: bool | None = None
    """Whether Envoy accepts connections, with a valid certificate."""
    used: Mapping[str, Summary] = field(default_factory=dict)
    open_hint: str | None = None
    """The command that makes an environment reachable which has no URL."""
    last_failure: Entry | None = None
    """The newest deployment, if it failed or was rolled back."""

    @property
    def running(self) -> bool:
        """Whether any service has an active release."""
        return any(s.active for s in self.status.services)

    @property
    def healthy(self) -> bool:
        """Whether every service and resource runs as desired."""
        found = self.status
        if self.envoy_running is False and self.running:
            return False
        serving = all(s.phase in ("running", "done", "held", "scheduled") for s in found.services)
        resources = all(r.running is not False for r in found.resources)
        return found.problem is None and serving and resources

    @property
    def state(self) -> State:
        """The state of the whole environment in one word."""
        if self.status.rollout is not None:
            return "paused" if self.status.rollout.state == "holding" else "deploying"
        if not self.running:
            return "stopping" if self.status.is_stopping else "stopped"
        return "running" if self.healthy else "degraded"


class Target(Protocol):
    """Where one environment runs. Every method raises LapwingError."""

    ref: EnvironmentRef

    def deploy(self, request: DeployRequest) -> DeployResult:
        """Deploy what the stack file describes."""
        ...

    def promote(self) -> DeployResult:
        """Switch traffic to a paused deployment."""
        ...

    def abort(self) -> DeployResult:
        """Stop the deployment in progress and return to the previous release."""
        ...

    def rollback(self, request: RollbackRequest) -> DeployResult:
        """Restore an earlier deployment."""
        ...

    def down(self, request: DownRequest) -> DeployResult:
        """Stop everything."""
        ...

    def status(self) -> StatusReport:
        """Read what runs."""
        ...

    def history(self, limit: int) -> list[Entry]:
        """List the deployments, newest first."""
        ...


def services_of(document: Document) -> dict[str, ServiceAt]:
    """Return the release and the revision of each service of a document."""
    return {
        name: ServiceAt(release=s.release, revision=s.revision)
        for name, s in document.services.items()
    }


def never_deployed(ref: EnvironmentRef) -> StateError:
    """Return the error for an environment without any deployment."""
    option = "" if ref.environment == LOCAL else f" -e {ref.environment}"
    return StateError(
        f"{ref} has never been deployed from this machine.", hint=f"Run `lapwing up{option}`."
    )


def actor_name(settings: Settings, folder: Path) -> str:
    """Return who acts: LAPWING_ACTOR, else git's `user.name`, else the login name."""
    if settings.actor:
        return settings.actor
    try:
        found = Git(folder, settings.environ).ask("config", "user.name")
    except UsageError:
        found = None  # git is not installed.
    try:
        return found or getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
