"""An environment on a machine that pulls: verbs commit to its remote desired-state repository.

`rollback`, `down` and `history` need that repository only. What reads or pauses what runs has to be
on the machine: the command line forwards it over SSH if the environment has a `host`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NoReturn

from lapwing.desired.history import COMMITTED, Entry, history
from lapwing.desired.remote import Remote
from lapwing.desired.repository import DesiredRepository
from lapwing.errors import UsageError
from lapwing.settings import Settings
from lapwing.stack.load import StackFile
from lapwing.system import home
from lapwing.targets import guards, planned
from lapwing.targets.base import (
    DeployRequest,
    DeployResult,
    DownRequest,
    EnvironmentRef,
    Reporter,
    RollbackRequest,
    StatusReport,
    Verb,
    actor_name,
    services_of,
)
from lapwing.targets.planned import PlannedChange


class PulledTarget:
    """An environment on another machine, whose agent pulls the desired state."""

    name: Literal["machine"] = "machine"

    def __init__(
        self, file: StackFile, environment: str, settings: Settings, reporter: Reporter
    ) -> None:
        self.ref = EnvironmentRef(file.stack, environment)
        self._settings = settings
        self._reporter = reporter
        self._actor = actor_name(settings, file.path.parent)
        desired = file.load(environment, folders=False).settings.desired
        assert desired is not None
        home.prepare(settings.home)
        self._remote = Remote(
            desired.url, settings.remotes, settings.environ, sign=desired.require_signed
        )

    def deploy(self, request: DeployRequest) -> DeployResult:
        """Refuse: releases of a machine that pulls are built by `lapwing ship`."""
        raise UsageError(
            f"{self.ref} is deployed from {self._remote.redacted_url}, which its machine pulls.",
            hint=f"Run `lapwing ship -e {self.ref.environment}` to push releases and commit them.",
        )

    def promote(self) -> DeployResult:
        """Refuse: only the machine knows what is paused."""
        self._refuse("promote")

    def abort(self) -> DeployResult:
        """Refuse: only the machine knows what is in progress."""
        self._refuse("abort")

    def status(self) -> StatusReport:
        """Refuse: only the machine knows what runs."""
        self._refuse("status")

    def rollback(self, request: RollbackRequest) -> DeployResult:
        """Commit an earlier deployment, and push."""
        return self._commit(
            "rollback",
            lambda repository: planned.rollback(
                repository,
                self.ref,
                self._actor,
                services=request.services,
                release=request.release,
                any_outcome=True,
            ),
        )

    def down(self, request: DownRequest) -> DeployResult:
        """Commit that nothing runs, and push."""
        return self._commit(
            "down", lambda repository: planned.down(repository, self.ref, self._actor)
        )

    def history(self, limit: int) -> list[Entry]:
        """List the deployments that were committed; the machine has their outcomes."""
        from msgspec.structs import replace

        self._remote.fetch()
        found = history(self._remote.repository, self.ref.stack, self.ref.environment, limit)
        return [replace(entry, outcome=COMMITTED) for entry in found]

    def _refuse(self, verb: str) -> NoReturn:
        raise not_here(verb, self.ref)

    def _commit(
        self, verb: Verb, make: Callable[[DesiredRepository], PlannedChange]
    ) -> DeployResult:
        plans: list[PlannedChange] = []

        def attempt(repository: DesiredRepository) -> str:
            plans.append(make(repository))
            return guards.commit(repository, guards.check(repository, plans[-1], verb))

        with self._reporter.working("committing"):
            commit = self._remote.commit(attempt)
        return DeployResult(
            stack=self.ref.stack,
            environment=self.ref.environment,
            target=self.name,
            kind=verb,
            outcome="committed",
            commit=commit,
            changes=plans[-1].changes,
            services=services_of(plans[-1].document),
        )


def not_here(verb: str, ref: EnvironmentRef) -> UsageError:
    """Return the error for a verb that has to run on the machine."""
    return UsageError(
        f"`lapwing {verb}` reads or changes the machine of {ref}, which pulls its desired state: "
        "it has no `host`.",
        hint="Log in to the machine and run the command there, or set `host` to run it over SSH.",
    )
