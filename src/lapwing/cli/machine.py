"""An environment on this machine, as the verbs speak to it: every act is a commit that the agent
carries out."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from lapwing.cli import target
from lapwing.cli.context import Context
from lapwing.desired.repository import DesiredRepository
from lapwing.targets import planned as change
from lapwing.targets.base import actor_name

if TYPE_CHECKING:
    from lapwing.cli.place import Removal, Wish
    from lapwing.desired.history import Entry
    from lapwing.stack.load import LoadedStack
    from lapwing.targets.bundles import Prepared

ATTEMPTS = 5
"""How often a deployment is prepared again when another one commits first."""


class Machine:
    """Implements `Place`."""

    def __init__(self, context: Context, environment: str) -> None:
        self.context = context
        self.where = target.where(context, environment)
        self.repository = DesiredRepository(context.settings.desired)

    @property
    def actor(self) -> str:
        """Who acts."""
        return actor_name(self.context.settings, self.context.directory)

    def deploy(self, loaded: LoadedStack, wish: Wish) -> int:
        if wish.images:
            raise click.UsageError("--image is for a cluster; a machine builds from source.")
        status = self._deploy(loaded, wish)
        if wish.url and status == 0 and not self.context.for_programs:
            return self._tell_url()
        return status

    def promote(self) -> int:
        present = target.present(self.context, self.where)
        return self._carry_out(change.promote(self.repository, present, self.where, self.actor))

    def abort(self) -> int:
        present = target.present(self.context, self.where)
        return self._carry_out(change.abort(self.repository, present, self.where, self.actor))

    def rollback(self, services: tuple[str, ...], release: str | None) -> int:
        return self._carry_out(
            change.rollback(
                self.repository, self.where, self.actor, services=services, release=release
            )
        )

    def down(self, removal: Removal) -> int:
        if removal.cluster or removal.volumes:
            option = "--cluster" if removal.cluster else "--volumes"
            raise click.UsageError(f"{option} is for an environment on a cluster.")
        status = self._carry_out(change.down(self.repository, self.where, self.actor))
        self._wait_until_stopped()
        return status

    def history(self, limit: int) -> list[Entry]:
        from lapwing.desired.history import history

        return history(self.repository, self.where.stack, self.where.environment, limit)

    def _carry_out(self, act: change.Change) -> int:
        from lapwing.cli import rolling

        return rolling.carry_out(self.context, self.where, act)

    def _deploy(self, loaded: LoadedStack, wish: Wish) -> int:
        from lapwing.cli import rolling
        from lapwing.errors import ConflictError
        from lapwing.targets import bundles as deploy
        from lapwing.targets import follow
        from lapwing.targets import local_agent as agent

        printer, settings = self.context.printer, self.context.settings
        if not wish.dry_run:
            agent.begin(settings)  # It starts while we build.
        actor = actor_name(settings, loaded.folder)
        for attempt in range(ATTEMPTS):
            with printer.working("building"):
                prepared = deploy.prepare(
                    loaded,
                    settings,
                    services=wish.services,
                    hold=wish.hold,
                    actor=actor,
                    tell=printer.progress,
                )
            if wish.dry_run:
                return self._tell(prepared)
            agent.ensure(settings, printer.progress)
            if not prepared.changes:
                return self._nothing()
            for each in prepared.changes:
                printer.say(f"  {each}")
            listener = follow.watch(settings, self.where.stack, self.where.environment)
            try:
                commit = deploy.commit(prepared, settings)
            except ConflictError:
                if attempt + 1 == ATTEMPTS:
                    raise
                continue
            return rolling.watch(self.context, self.where, listener, commit, prepared.document)
        raise AssertionError("the last attempt returns or raises")

    def _tell(self, prepared: Prepared) -> int:
        printer = self.context.printer
        if self.context.for_programs:
            printer.json([c.as_data for c in prepared.changes])
        elif not prepared.changes:
            printer.data("Nothing would change.")
        for each in prepared.changes if not self.context.for_programs else ():
            printer.data(str(each))
        return 0

    def _nothing(self) -> int:
        printer = self.context.printer
        status = target.present(self.context, self.where)
        in_flight = status.rollout if status else None
        if self.context.for_programs:
            printer.json({"outcome": "unchanged", "commit": status.commit if status else None})
        elif in_flight is not None:
            printer.say(
                f"Nothing new: deployment {in_flight.commit[:12]} with the same is "
                f"{in_flight.state}."
            )
        else:
            printer.say("Nothing to deploy: what is in the folder already runs.")
        return 0

    def _tell_url(self) -> int:
        found = target.present(self.context, self.where)
        if found is None:
            return 1
        self.context.printer.data(found.url)
        if found.environment == "local":
            only = f"https://localhost:{self.context.settings.port}"
            authority = self.context.settings.certificates / "ca.pem"
            self.context.printer.say(
                f"Also {only}, while it is the only stack. To let a browser trust it, add "
                f"{authority} to its authorities; for curl: --cacert."
            )
        return 0

    def _wait_until_stopped(self) -> None:
        """Wait until the processes are gone: connections that are open get a moment to end."""
        until = time.monotonic() + 30
        with self.context.printer.working("stopping"):
            while time.monotonic() < until:
                found = target.present(self.context, self.where)
                if found is None or not found.running:
                    return
                time.sleep(0.05)
