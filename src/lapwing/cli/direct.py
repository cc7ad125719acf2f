"""An environment on a cluster that Lapwing applies itself, as the verbs speak to it.

The command brings what is wanted to the cluster and stays until it runs. Ctrl-C leaves what was
applied; the same command goes on from there, and says so.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from lapwing.cli import cluster, target
from lapwing.cli.context import Context
from lapwing.desired.repository import DesiredRepository
from lapwing.errors import ClusterUnreachableError, ContextError, DeploymentFailed, UsageError
from lapwing.kubernetes import local_cluster, local_state, rollouts
from lapwing.kubernetes.applyset import Scope
from lapwing.kubernetes.upgrade.commands import Commands
from lapwing.kubernetes.upgrade.guard import UpgradeOptions
from lapwing.targets import cluster as told
from lapwing.targets import kubernetes as direct
from lapwing.targets import manifests
from lapwing.targets.base import actor_name
from lapwing.targets.kubernetes import Direct, Result, Talk

if TYPE_CHECKING:
    from lapwing.cli.place import Reach, Removal, Wish
    from lapwing.desired.history import Entry
    from lapwing.kubernetes.client import ApiClient
    from lapwing.kubernetes.objects import Reference
    from lapwing.stack.load import LoadedStack

_DONE = {"rollback": "Rolled back", "promote": "Promoted", "abort": "Aborted"}


class OnCluster:
    """Implements `Place`."""

    def __init__(self, context: Context, environment: str, domain: str, reach: Reach) -> None:
        self.context = context
        self.reach = reach
        self.where = target.where(context, environment)
        stack = self.where.stack
        self.scope = Scope(stack, environment, f"{stack}-{environment}")
        self.url = f"https://{domain}" if domain else ""
        self.folder = context.settings.environment(stack, environment)
        self.talk = Talk(context.printer.say, context.printer.progress)

    def deploy(self, loaded: LoadedStack, wish: Wish) -> int:
        asked = direct.Wish(wish.services, wish.images, wish.hold, self._upgrade(wish))
        verb = "up" if wish.url else "deploy"
        with self._changing(verb, is_rehearsal=wish.dry_run) as acts:
            began = time.monotonic()
            with self.context.printer.working("looking at the cluster"):
                ready = acts.prepare(loaded, asked)
            if wish.dry_run:
                return self._rehearse(acts.rehearse(ready))
            for each in ready.prepared.changes:
                self.talk.say(f"  {each}")
            with self.context.printer.working("deploying"):
                result = acts.deploy(ready)
            status = self._tell(result, time.monotonic() - began)
            if wish.url and not self.context.for_programs:
                self._tell_url(acts.api.access.local)
            return status

    def _upgrade(self, wish: Wish) -> UpgradeOptions:
        """What is allowed of an upgrade with an outage. Raises UsageError for half a way back."""
        commands = None
        if wish.backup or wish.restore:
            if not (wish.backup and wish.restore):
                raise UsageError(
                    "--backup and --restore belong together.",
                    hint="A backup that nothing can put back is no way back.",
                )
            commands = Commands(wish.backup, wish.restore, self.context.settings.environ)
        actor = actor_name(self.context.settings, self.context.directory)
        holder = f"{actor} on {socket.gethostname()}"
        return UpgradeOptions(allow_downtime=wish.allow_downtime, commands=commands, holder=holder)

    def promote(self) -> int:
        with self._changing("promote") as acts:
            if not acts.known:
                return cluster.tell_act(
                    self.context, "promote", rollouts.promote(acts.api, self.scope)
                )
            return self._run(acts.promote)

    def abort(self) -> int:
        with self._changing("abort") as acts:
            if not acts.known:
                return cluster.tell_act(self.context, "abort", rollouts.abort(acts.api, self.scope))
            return self._run(acts.abort)

    def rollback(self, services: tuple[str, ...], release: str | None) -> int:
        from lapwing.stack.load import find, load

        manifests.refuse_part(services)
        loaded = load(find(self.context.directory), self.where.environment)
        with self._changing("rollback") as acts:
            return self._run(lambda: acts.rollback(loaded, release))

    def down(self, removal: Removal) -> int:
        if removal.cluster:
            return self._remove_cluster()
        with self._changing("down") as acts:
            if removal.volumes:
                self._confirm(f"Remove the data of {self.where} for good?")
            with self.context.printer.working("removing"):
                commit, gone = acts.down(data=removal.volumes)
        if self.context.for_programs:
            names = [str(r) for r in gone]
            self.context.printer.json({"act": "down", "commit": commit, "removed": names})
        elif removal.volumes:
            self.talk.say("Everything is removed, the data, too.")
        else:
            self.talk.say(
                "Everything is stopped; volumes and passwords stay (`lapwing down --volumes` "
                "removes them)."
            )
        return 0

    def history(self, limit: int) -> list[Entry]:
        from lapwing.desired.history import history

        repository = DesiredRepository(self.context.settings.desired)
        stack, environment = self.where.stack, self.where.environment
        return history(repository, stack, environment, limit, followed=True)

    @contextmanager
    def _changing(self, verb: str, *, is_rehearsal: bool = False) -> Iterator[Direct]:
        """The acts on the environment, for one who may change it and is the only one who does."""
        actor = actor_name(self.context.settings, self.context.directory)
        try:
            with local_state.environment_lock(self.folder, str(self.where)), self._reach() as api:
                if not is_rehearsal:
                    cluster.ask(api, verb, self.scope, yes=self.reach.yes)
                    local_state.save_context(self.folder, api.access.context)
                yield Direct(self.context.settings, api, self.scope, actor, self.talk)
        except KeyboardInterrupt:
            self.talk.say(
                f"\nInterrupted. What was applied stays, and `lapwing {verb} -e "
                f"{self.where.environment}` goes on from there."
            )
            raise click.exceptions.Exit(130) from None
        except DeploymentFailed as error:
            raise DeploymentFailed(
                error.message, detail=error.detail, hint=self._hint(error.hint)
            ) from error

    def _reach(self) -> ApiClient:
        """The client of the cluster, which answers; made first, if it was asked for."""
        if self.reach.create:
            return self._create()
        api = cluster.connect(self.context, self.reach.cluster, self.scope)
        api.version()
        return api

    def _create(self) -> ApiClient:
        environ = self.context.settings.environ
        wanted = local_cluster.choose(
            self.reach.cluster or local_state.read_context(self.folder),
            self.where.stack,
            self.where.environment,
            local_cluster.installed_tools(environ),
        )
        try:
            api = cluster.connect(self.context, wanted.context)
            api.version()
            return api
        except (ContextError, ClusterUnreachableError):
            pass  # There is none yet, or it is stopped.
        with self.context.printer.working(f"making {wanted.context}"):
            made = local_cluster.create(wanted, environ, self.talk.progress)
        self.talk.say(f"{'Made' if made else 'Found'} the cluster {wanted.context}.")
        api = cluster.connect(self.context, wanted.context)
        api.version()
        return api

    def _remove_cluster(self) -> int:
        """Remove the local cluster with all that is in it."""
        api = cluster.connect(self.context, self.reach.cluster, self.scope)
        name = api.access.context
        found = local_cluster.from_context(name)
        if found is None or not api.access.local:
            raise ContextError(
                f"Context {name!r} is no cluster of kind or minikube: it is not removed.",
                hint="`lapwing down` without --cluster removes the stack from it.",
            )
        with local_state.environment_lock(self.folder, str(self.where)):
            self._confirm(f"Remove the cluster {name} with all that is in it?")
            with self.context.printer.working(f"removing {name}"):
                local_cluster.delete(found, self.context.settings.environ, self.talk.progress)
            actor = actor_name(self.context.settings, self.context.directory)
            commit = told.forget(self.context.settings, self.where, actor)
            local_state.forget_context(self.folder)
        if self.context.for_programs:
            answer = {"act": "down", "commit": commit, "removed": [name]}
            self.context.printer.json(answer)
        else:
            self.talk.say(f"The cluster {name} is removed.")
        return 0

    def _confirm(self, question: str) -> None:
        """Ask before data is lost, wherever it is. Raises UsageError without a yes."""
        if self.reach.yes:
            return
        if not sys.stdin.isatty() or not click.confirm(question, err=True):
            raise UsageError("Nothing was removed.", hint="Say `--yes` to remove it.")

    def _run(self, act: Any) -> int:
        began = time.monotonic()
        with self.context.printer.working("applying"):
            result: Result = act()
        for each in result.changes:
            self.talk.say(f"  {each}")
        return self._tell(result, time.monotonic() - began)

    def _tell(self, result: Result, seconds: float) -> int:
        kind, commit = result.document.deployment.kind, result.commit[:12]
        if self.context.for_programs:
            self.context.printer.json(self._answer(result, seconds))
        elif result.held:
            names = ", ".join(r.name for r in result.applied.held)
            self.talk.say(f"Deployment {commit} is held ({names}); no client sees it yet.")
            self.talk.say("`lapwing promote` lets it go on, `lapwing abort` stops it.")
        elif not result.is_new and not result.applied.changed and not result.applied.pruned:
            self.talk.say("Nothing to deploy: what is in the folder already runs.")
        else:
            what = _DONE.get(kind, "Deployed") if result.is_new else "Completed"
            self.context.printer.say(f"{what} {commit} in {seconds:.1f} s.", style="green")
        return 0

    def _answer(self, result: Result, seconds: float) -> dict[str, Any]:
        applied = result.applied
        is_same = not result.is_new and not applied.changed and not applied.pruned
        outcome = "held" if result.held else "unchanged" if is_same else "succeeded"
        return {
            "stack": self.where.stack,
            "environment": self.where.environment,
            "commit": result.commit,
            "kind": result.document.deployment.kind,
            "outcome": outcome,
            "seconds": round(seconds, 3),
            "url": self.url,
            "services": {
                name: {"release": s.release, "revision": s.revision}
                for name, s in result.document.services.items()
            },
            "changed": [str(r) for r in applied.changed],
            "removed": [str(r) for r in applied.pruned],
        }

    def _rehearse(self, told: dict[Reference, str]) -> int:
        counted = {r: what for r, what in sorted(told.items()) if what != "keep"}
        if self.context.for_programs:
            changes = [{"object": str(r), "act": what} for r, what in counted.items()]
            self.context.printer.json({"outcome": "dry-run", "changes": changes})
            return 0
        for reference, what in counted.items():
            self.context.printer.data(f"{what:6} {reference}")
        if not counted:
            self.context.printer.data("Nothing would change.")
        return 0

    def _tell_url(self, is_local: bool) -> None:
        """The address; a local cluster has none that a browser could reach."""
        if self.url and not is_local:
            self.context.printer.data(self.url)
        else:
            name, port = self.where.environment, self.context.settings.port
            self.talk.say(f"`lapwing open -e {name}` leads https://localhost:{port} to it.")

    def _hint(self, hint: str | None) -> str:
        name = self.where.environment
        more = f"What was applied stays. Mend it and run `lapwing up -e {name}` again"
        if any(e.outcome == "succeeded" and e.services for e in self.history(50)):
            more += f", or go back with `lapwing rollback -e {name}`"
        more += "."
        return f"{hint} {more}" if hint else more
