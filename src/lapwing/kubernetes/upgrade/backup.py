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

VARIABLE = "LAPWING_BACKUP"
FOLDER = "/backups"
"""Where the volume of the backups is mounted, in the pods of the scripts."""
KEPT = 2
"""Backups that are kept when another one is made, so there are three at most."""
PATIENCE = 120
"""Seconds that connections may take to end once every server is stopped."""

_MYSQL = r"""set -eu
umask 077
hidden=$(printf '%s' "$MYSQL_ROOT_PASSWORD" | sed 's/[\\"]/\\&/g')
printf '[client]\nhost="%s"\nuser=root\npassword="%s"\n' "$HOST" "$hidden" > "$SCRATCH/client.cnf"
ask() { mysql --defaults-extra-file="$SCRATCH/client.cnf" --batch --skip-column-names "$@"; }
tables() {
  ask -e "SELECT COUNT(*) FROM information_schema.tables
    WHERE table_schema = '$MYSQL_DATABASE' AND table_type = 'BASE TABLE'"
}
dumped() { gzip -dc "$1" | grep -c '^CREATE TABLE' || true; }
whole() { gzip -t "$1" && gzip -dc "$1" | tail -n 1 | grep -q '^-- Dump completed'; }
"""

_MYSQL_QUIET = r"""
others="FROM performance_schema.processlist
  WHERE db = '$MYSQL_DATABASE' AND id <> CONNECTION_ID()"
until=$(($(date +%s) + PATIENCE))
while left=$(ask -e "SELECT COUNT(*) $others") && [ "$left" != 0 ]; do
  if [ "$(date +%s)" -ge "$until" ]; then
    echo "The database has $left connections that do not end:"
    ask -e "SELECT user, host, command, time $others"
    exit 1
  fi
  sleep 1
done
[ "$left" = 0 ]
echo "No connection is left."
"""

_MYSQL_BACK_UP = r"""
cd "$BACKUPS"
rm -f ./*.part
if [ ! -e "$BACKUP" ]; then
  ls -t ./*.sql.gz 2>/dev/null | tail -n +$((KEPT + 1)) | while read -r old; do rm -f "$old"; done
  rm -f "$SCRATCH/failed"
  { mysqldump --defaults-extra-file="$SCRATCH/client.cnf" --single-transaction --routines \
      --events --triggers --hex-blob --set-gtid-purged=OFF --no-tablespaces \
      --add-drop-database --databases "$MYSQL_DATABASE" || touch "$SCRATCH/failed"
  } | gzip > "$BACKUP.part"
  [ ! -e "$SCRATCH/failed" ] || { echo "mysqldump failed."; exit 1; }
  whole "$BACKUP.part" || { echo "The backup is incomplete."; exit 1; }
  there=$(tables) have=$(dumped "$BACKUP.part")
  [ "$there" = "$have" ] || { echo "The backup has $have of $there tables."; exit 1; }
  sync
  mv "$BACKUP.part" "$BACKUP"
  sync
fi
whole "$BACKUP" || { echo "The backup is incomplete."; exit 1; }
echo "$BACKUP has $(dumped "$BACKUP") tables."
"""

_MYSQL_RESTORE = r"""
cd "$BACKUPS"
whole "$BACKUP" || { echo "$BACKUP is incomplete."; exit 1; }
gzip -dc "$BACKUP" | ask
have=$(tables) want=$(dumped "$BACKUP")
[ "$have" = "$want" ] || { echo "Restored $have of $want tables."; exit 1; }
echo "Restored $have tables."
"""


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


def _with_numbers(script: str) -> str:
    return script.replace("PATIENCE", str(PATIENCE)).replace("KEPT", str(KEPT))


SCRIPTS: Mapping[str, Scripts] = {
    "mysql": Scripts(
        quiet=_with_numbers(_MYSQL + _MYSQL_QUIET),
        back_up=_with_numbers(_MYSQL + _MYSQL_BACK_UP),
        restore=_MYSQL + _MYSQL_RESTORE,
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
