"""Remove Lapwing from a server: what is there, and the steps.

The program, its settings and its SSH keys are removed. The user and its home stay, with data,
secrets and backups, so that a setup can use them again. Each step can run again after an
interruption.
"""

from __future__ import annotations

from collections.abc import Mapping

from lapwing.server import USER
from lapwing.server.setup import (
    HOME,
    SLICE_FILE,
    SLICE_FOLDER,
    SYSCTL,
    TOP,
    WRAPPER_FILE,
    Step,
    as_user,
)

GRACE_S = 60
"""How long processes and containers may take to end after SIGTERM; Docker's default is 10 s."""
LIST = f"""\
cd {HOME}/state 2>/dev/null || exit 0
echo "environments=$(ls -d environments/*/*/ 2>/dev/null \\
  | sed 's|^environments/||; s|/$||' | paste -sd, | sed 's/,/, /g')"
echo "backups=$(ls -d backups/*/*/*/ 2>/dev/null | wc -l)"
echo "keys=$(grep -c 'lapwing receive' {HOME}/.ssh/authorized_keys 2>/dev/null || true)"
echo "size=$(du -sh {HOME} 2>/dev/null | cut -f 1)"
"""
_STOP = f"""\
systemctl disable --now --quiet lapwing 2>/dev/null || true
if command -v docker >/dev/null; then
  docker ps -aq --filter label=dev.lapwing.home={HOME}/state \\
    | xargs -r docker stop -t {GRACE_S} >/dev/null
fi
pkill -TERM -u {USER} || true
for second in $(seq {GRACE_S}); do
  pgrep -u {USER} >/dev/null || exit 0
  sleep 1
done
pkill -KILL -u {USER} || true"""
_WITHOUT_KEYS = f"""\
umask 077
file={HOME}/.ssh/authorized_keys
[ -e $file ] || exit 0
rm -f $file.new
grep -vF 'command="{WRAPPER_FILE} receive' $file > $file.new || [ $? = 1 ]
mv $file.new $file
[ -s $file ] || rm $file"""
_KEYS = f"""\
id -u {USER} >/dev/null 2>&1 || exit 0
{as_user(_WITHOUT_KEYS)}"""
_PROGRAM = f"""\
rm -rf {TOP} /etc/lapwing /etc/systemd/system/lapwing.service {SYSCTL}
if id -u {USER} >/dev/null 2>&1; then
  folder={SLICE_FOLDER}
  rm -f $folder/{SLICE_FILE}
  [ ! -d $folder ] || rmdir --ignore-fail-on-non-empty $folder
fi
systemctl daemon-reload
rm -f {WRAPPER_FILE}"""
STEPS = (
    Step("stop the agent, services and databases", _STOP),
    Step("remove the SSH keys", _KEYS),
    Step("remove the program and its settings", _PROGRAM),
)


def describe(host: object, facts: Mapping[str, str]) -> str:
    """Return what a removal stops, removes and keeps, from the output of `LIST`."""
    environments = facts.get("environments") or "none"
    return "\n".join(
        (
            f"Removing Lapwing from {host}",
            f"  stops    these environments: {environments}",
            f"  removes  the program, /etc/lapwing, and {facts.get('keys') or 0} SSH keys of people"
            " and CI",
            f"  keeps    {HOME} ({facts.get('size') or 'nothing'}): databases, volumes, secrets, "
            f"{facts.get('backups') or 0} local backups",
        )
    )
