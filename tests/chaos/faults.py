"""How each fault is caused, and for how long requests may fail because of it."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time

from lapwing.load.record import now
from lapwing.observed import agent as observed
from lapwing.observed.status import Follower
from tests.chaos.plan import Fault, Round
from tests.chaos.stack import Stack
from tests.disk import Disk
from tests.installation import envoys

BOUNDS_S = {
    Fault.REPLICA_KILLED: 10.0,
    Fault.ENVOY_KILLED: 2.0,
    Fault.ENVOYS_KILLED: 10.0,
    Fault.ENVOYS_AND_AGENT_KILLED: 30.0,
    Fault.POWER_CUT: 60.0,
}
"""Seconds after a fault in which requests may fail; for faults that are not here, none may.

On two processors with a load of 12 to 20, requests failed for up to 0.5 s (a service with one
replica is down until that is restarted), 0.2, 1.2, 9.6 and 9.2 s. A bound has to hold on slower
machines, and to fail where traffic does not recover."""
FREEZE_S = 2.0
"""How long a frozen agent does nothing."""
FULL_S = 10.0
"""How long the disk is full at most."""


class FaultInjector:
    """Injects the fault of one round at its moment, or at the end of the round at the latest."""

    def __init__(self, round_: Round, stacks: list[Stack], disk: Disk | None) -> None:
        self.injected_at = 0.0
        """When the fault was injected; 0 if it was not."""
        self._round = round_
        self._stacks = stacks
        self._stack = stacks[round_.stack]
        self._disk = disk
        self._over = threading.Event()
        self._follower = Follower(self._stack.environment)

    def run(self) -> None:
        """Wait for the moment and inject the fault."""
        self._wait()
        self.injected_at = now()
        FAULTS[self._round.fault](self)

    def end(self) -> None:
        """End the round: inject the fault now if it was not, and free a full disk."""
        self._over.set()

    def _wait(self) -> None:
        moment = self._round.moment
        if isinstance(moment, float):
            self._over.wait(moment)
            return
        while not self._over.is_set():
            if any(e.state == moment for e in self._follower.read()):
                return
            time.sleep(0.001)

    def none(self) -> None:
        """Inject no fault."""

    def kill_cli(self) -> None:
        """kill -9 the command."""
        self._stack.signal_command(signal.SIGKILL)

    def interrupt_cli(self) -> None:
        """Press Ctrl-C."""
        self._stack.signal_command(signal.SIGINT)

    def kill_agent(self) -> None:
        """kill -9 the agent."""
        self._stack.kill_agent()

    def stop_agent(self) -> None:
        """End the agent as a system that shuts down does."""
        self._signal_agent(signal.SIGTERM)

    def freeze_agent(self) -> None:
        """Let the agent do nothing for some time."""
        pid = self._signal_agent(signal.SIGSTOP)
        time.sleep(FREEZE_S)
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def _signal_agent(self, number: signal.Signals) -> int | None:
        pid = observed.holder(self._stack.where.home / "agent")
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return pid

    def fill_disk(self) -> None:
        """Fill the disk until the actions have ended, or for some seconds."""
        if self._disk is not None:
            try:
                self._disk.fill()
                self._over.wait(FULL_S)
            finally:
                self._disk.free()

    def kill_replica(self) -> None:
        """kill -9 one replica, with or without traffic."""
        memory = self._stack.memory()
        pids = [r.pid for g in memory.generations for r in g.replicas if r.pid is not None]
        if pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pids[int(self._round.choice * len(pids))], signal.SIGKILL)

    def kill_envoy(self) -> None:
        """kill -9 one process of Envoy; another one serves the same port."""
        if pids := envoys(self._stack.where.home):
            self._kill(pids[int(self._round.choice * len(pids))])

    def kill_envoys(self) -> None:
        """kill -9 all processes of Envoy, but not their supervisor."""
        self._kill(*envoys(self._stack.where.home))

    def _kill(self, *pids: int) -> None:
        self.injected_at = now()  # The search may have taken long on a busy machine.
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def kill_both(self) -> None:
        """kill -9 the agent and all of Envoy; start the agent, as its systemd unit does."""
        self._stack.kill_agent()
        self._stack.kill_envoy()
        self._stack.where.run("agent", "start")

    def cut_power(self) -> None:
        """End everything at once, commands too, and start the agent as a boot does."""
        for stack in self._stacks:
            stack.signal_command(signal.SIGKILL)
        self._stack.cut_power()
        self._stack.where.run("agent", "start")


FAULTS = {
    Fault.NONE: FaultInjector.none,
    Fault.CLI_KILLED: FaultInjector.kill_cli,
    Fault.CLI_INTERRUPTED: FaultInjector.interrupt_cli,
    Fault.AGENT_KILLED: FaultInjector.kill_agent,
    Fault.AGENT_STOPPED: FaultInjector.stop_agent,
    Fault.AGENT_FROZEN: FaultInjector.freeze_agent,
    Fault.DISK_FULL: FaultInjector.fill_disk,
    Fault.REPLICA_KILLED: FaultInjector.kill_replica,
    Fault.ENVOY_KILLED: FaultInjector.kill_envoy,
    Fault.ENVOYS_KILLED: FaultInjector.kill_envoys,
    Fault.ENVOYS_AND_AGENT_KILLED: FaultInjector.kill_both,
    Fault.POWER_CUT: FaultInjector.cut_power,
}
