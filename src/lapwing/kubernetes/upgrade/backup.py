"""Back up and restore a database: by scripts in its own image, or by a person's own commands.

`SCRIPTS` are shell scripts for the image that the database itself runs from: its own tools, in its
own version. Each can run twice. A backup gets its name only when it is complete: it is written
under another one, and checked for its last line and its number of tables. The password is in a file
that only the script can read, because arguments are visible to others.

A managed database has its own backups, and a company its own place for them. For those,
`BackupCommands` runs two commands of the user on this machine: one makes a backup and prints its
name as its last line, the other restores the one that `LAPWING_BACKUP` names. They are stored
nowhere: they may contain secrets.

Sources: MySQL Reference Manual 8.4: mysqldump; Using Option Files; the processlist table of the
Performance Schema. The official image: MYSQL_ROOT_PASSWORD is the password of root from any host.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from lapwing.errors import LapwingError
from lapwing.system.package_data import fill, read

VARIABLE = "LAPWING_BACKUP"
FOLDER = "/backups"
"""Where the volume of the backups is mounted, in the pods of the scripts."""
KEPT = 2
"""Backups that are kept when another one is made, so there are three at most."""
PATIENCE = 120
"""Seconds that connections may take to end once every server is stopped."""


@dataclass(frozen=True, slots=True)
class Scripts:
    """What runs in the image of a kind of database, by `/bin/sh -c`.

    They read HOST, SCRATCH (a writable folder), BACKUPS, BACKUP (the name of the file) and what
    `environ` names, which the pod of the database has, too.
    """

    quiet: str
    back_up: str
    restore: str
    ending: str
    port: int
    environ: tuple[str, ...]


def _mysql(*files: str) -> str:
    texts = [read("kubernetes.upgrade", f"scripts/{name}.sh") for name in ("mysql", *files)]
    return fill("".join(texts), patience=PATIENCE, kept=KEPT)


SCRIPTS: Mapping[str, Scripts] = {
    "mysql": Scripts(
        quiet=_mysql("mysql-quiet"),
        back_up=_mysql("mysql-back-up"),
        restore=_mysql("mysql-restore"),
        ending=".sql.gz",
        port=3306,
        environ=("MYSQL_ROOT_PASSWORD", "MYSQL_DATABASE"),
    )
}
"""By kind of database, as the stack file names it."""


@dataclass(frozen=True, slots=True)
class BackupCommands:
    """Shell commands that make and restore a backup, and the variables that they get."""

    make: str
    put_back: str
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    def back_up(self, heartbeat: Callable[[], None]) -> str:
        """Make a backup; returns its name. Raises LapwingError."""
        lines = self._run(self.make, heartbeat, {}).strip().splitlines()
        if not lines:
            raise LapwingError("The --backup command did not print the name of a backup.")
        return lines[-1].strip()

    def restore(self, backup: str, heartbeat: Callable[[], None]) -> None:
        """Restore a backup. Raises LapwingError."""
        self._run(self.put_back, heartbeat, {VARIABLE: backup})

    def _run(self, command: str, heartbeat: Callable[[], None], more: Mapping[str, str]) -> str:
        process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            env={**self.environ, **more},
        )
        try:
            text = _output(process, heartbeat)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
        if process.returncode != 0:
            raise LapwingError(f"`{command}` failed with status {process.returncode}.")
        return text


def _output(process: subprocess.Popen[str], heartbeat: Callable[[], None]) -> str:
    while True:
        try:
            return process.communicate(timeout=1.0)[0]
        except subprocess.TimeoutExpired:
            heartbeat()
