"""Backing up by a person's own commands, where the database is not ours to dump.

A managed database has its own backups, and a company its own place for them. So `lapwing deploy`
takes two commands, which run on the machine of the person, in a shell: one makes a backup and
prints its name as its last line, the other puts back the one that `LAPWING_BACKUP` names. They are
kept nowhere: they may hold what nobody else should read.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from lapwing.errors import LapwingError

VARIABLE = "LAPWING_BACKUP"


@dataclass(frozen=True, slots=True)
class Commands:
    """Shell commands, and the variables that they get."""

    make: str
    put_back: str
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    def back_up(self, live_on: Callable[[], None]) -> str:
        """Make a backup; its name. Raises LapwingError."""
        lines = self._run(self.make, live_on, {}).strip().splitlines()
        if not lines:
            raise LapwingError("The command of --backup printed no name of a backup.")
        return lines[-1].strip()

    def restore(self, backup: str, live_on: Callable[[], None]) -> None:
        """Put a backup back. Raises LapwingError."""
        self._run(self.put_back, live_on, {VARIABLE: backup})

    def _run(self, command: str, live_on: Callable[[], None], more: Mapping[str, str]) -> str:
        process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            env={**self.environ, **more},
        )
        try:
            text = _output(process, live_on)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
        if process.returncode != 0:
            raise LapwingError(f"`{command}` ended with {process.returncode}.")
        return text


def _output(process: subprocess.Popen[str], live_on: Callable[[], None]) -> str:
    while True:
        try:
            return process.communicate(timeout=1.0)[0]
        except subprocess.TimeoutExpired:
            live_on()
