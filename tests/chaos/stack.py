"""A stack of the crash tests that random actions are run on."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping

from lapwing.desired.history import outcome
from lapwing.observed.status import Follower
from tests.chaos.plan import Action
from tests.deployed import until
from tests.installation import Installation
from tests.integration.crash.runtimes import Processes
from tests.integration.crash.ship import Ship

SHOWN_BYTES = 3000
"""How much of each command's output is kept."""


class Stack(Ship):
    """One stack, the command that runs for it now, and what its last commands printed."""

    def __init__(self, where: Installation, name: str, runtime: Processes) -> None:
        super().__init__(where, name, runtime)
        self.output: list[str] = []
        self._command: subprocess.Popen[str] | None = None
        self._cut = False
        self._lock = threading.Lock()

    def begin_round(self) -> None:
        """Forget the last round."""
        self.output, self._cut = [], False

    def signal_command(self, number: signal.Signals) -> None:
        """Send a signal to the command that runs now; no other follows in this round."""
        with self._lock:
            self._cut = True
            if self._command is not None:
                with contextlib.suppress(ProcessLookupError):
                    if number == signal.SIGINT:
                        os.killpg(self._command.pid, number)  # A terminal sends it to the group.
                    else:
                        os.kill(self._command.pid, number)

    def act(self, action: Action) -> list[int]:
        """Perform an action; returns the exit status of each command."""
        return ACTIONS[action](self)

    def _run(self, *arguments: str) -> int:
        """Run a command to its end, unless an earlier one was interrupted."""
        with self._lock:
            if self._cut:
                return -signal.SIGKILL
            self._command = self.begin(*arguments)
        return self._finish(self._command, *arguments)

    def _finish(self, command: subprocess.Popen[str], *arguments: str) -> int:
        done = self.end(command)
        said = f"{self.name}: lapwing {' '.join(arguments)}: {done.returncode}"
        self.output.append(f"{said}\n{done.stdout[-SHOWN_BYTES:]}")
        return done.returncode

    def deploy(self) -> list[int]:
        """Deploy a good release."""
        self.next_version()
        return [self._run("deploy")]

    def deploy_bad(self) -> list[int]:
        """Deploy a release that fails its smoke test."""
        self.write("bad")
        return [self._run("deploy")]

    def deploy_exiting(self) -> list[int]:
        """Deploy a release whose replicas exit at once."""
        self.write("bad")
        self.where.write({"api/app.py": "raise SystemExit(3)\n"})
        return [self._run("deploy")]

    def roll_back(self) -> list[int]:
        """Return to the release before."""
        return [self._run("rollback")]

    def hold_and_promote(self) -> list[int]:
        """Deploy a good release in two steps."""
        self.next_version()
        return [self._run("deploy", "--hold"), self._run("promote")]

    def hold_and_abort(self) -> list[int]:
        """Deploy a good release, but abort it before the switch."""
        self.next_version()
        return [self._run("deploy", "--hold"), self._run("abort")]

    def deploy_twice(self) -> list[int]:
        """Deploy a release, and another one as soon as its candidates are starting."""
        self.next_version()
        follower = Follower(self.environment)
        first = self.begin("deploy")
        while first.poll() is None and not any(e.state == "starting" for e in follower.read()):
            time.sleep(0.01)
        self.next_version()
        last = self._run("deploy")
        self._finish(first, "deploy")
        return [last]

    @property
    def newest(self) -> str:
        """The last good version that was written."""
        return f"v{self._number}"

    def desired_version(self) -> str:
        """The version of the release that the desired state names, by the commit it was built
        from."""
        wanted = self.repository.read(self.name, "local")
        assert wanted is not None
        revision = wanted.services["api"].revision.removesuffix("-dirty")
        return self.where.git("show", f"{revision}:api/VERSION")

    def settle_rollout(self) -> None:
        """Wait for the outcome of the newest deployment, which an agent may not have begun yet.

        Abort it if its command ended before the promotion.
        """

        def settled() -> bool:
            rollout = self.memory().rollout
            if rollout is not None and rollout.state == "holding":
                self.where.run("abort")
            newest = self.repository.newest(self.name, "local")
            return rollout is None and newest is not None and bool(outcome(self.repository, newest))

        until(settled, "the end of the rollout")


ACTIONS: Mapping[Action, Callable[[Stack], list[int]]] = {
    Action.DEPLOY: Stack.deploy,
    Action.REJECTED: Stack.deploy_bad,
    Action.EXITING: Stack.deploy_exiting,
    Action.ROLLBACK: Stack.roll_back,
    Action.PROMOTE: Stack.hold_and_promote,
    Action.ABORT: Stack.hold_and_abort,
    Action.SUPERSEDE: Stack.deploy_twice,
}
