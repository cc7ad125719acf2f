"""The steps that make a server of a machine: packages, user, program, keys, service.

Each step is a shell script that root runs; it can run again at any time, and changes only what is
not as it should be. The same steps upgrade a server: a new version is installed in another
folder, and one rename makes it the current one. A restarted agent adopts what is running, and
replaces Envoy without closing its port.

    /opt/lapwing/<version>/        a virtual environment for each version
    /opt/lapwing/current           a link to the one in use
    /etc/lapwing/environment       the settings of the agent and of `lapwing` on the server
    /etc/lapwing/environment.local  what an administrator adds to them; never written here
    /etc/systemd/system/user-UID.slice.d/10-lapwing.conf  the memory limit of SSH sessions
    /etc/sysctl.d/90-lapwing.conf  net.ipv4.tcp_migrate_req: no reset when Envoy is replaced
    /var/lib/lapwing/              the home of the user `lapwing`; `state` is LAPWING_HOME
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lapwing.server import USER
from lapwing.server.package import REQUIREMENTS, Package

TOP = "/opt/lapwing"
HOME = "/var/lib/lapwing"
SETTINGS = "/etc/lapwing/environment"
LOCAL_SETTINGS = "/etc/lapwing/environment.local"
SYSCTL = "/etc/sysctl.d/90-lapwing.conf"
WRAPPER_FILE = "/usr/local/bin/lapwing"
KEEP_VERSIONS = 3
INSTALLED = f"test -x {WRAPPER_FILE} && echo yes || true"
_END = "END-OF-FILE"
OPTIONS = "restrict,pty"
LIMITED_OPTIONS = "restrict"
"""Of a line in authorized_keys: no forwarding, no agent, no X11. Source: sshd(8)."""

UNIT = f"""\
[Unit]
Description=Lapwing agent
After=network-online.target docker.service podman.socket
Wants=network-online.target

[Service]
Type=simple
User={USER}
EnvironmentFile={SETTINGS}
EnvironmentFile=-{LOCAL_SETTINGS}
ExecStart={TOP}/current/bin/python -m lapwing.agent.daemon
Restart=always
RestartSec=1
# Replicas, databases and Envoy outlive the agent on purpose, also if one of them is out of memory.
KillMode=process
OOMPolicy=continue
# The messages of the agent and, with `logs: journald`, of all services.
LogRateLimitIntervalSec=0
Delegate=yes
LimitNOFILE=1048576
UMask=0077
# The ports 80 and 443, and nothing else that root may do.
AmbientCapabilities=CAP_NET_BIND_SERVICE
CapabilityBoundingSet=CAP_NET_BIND_SERVICE
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths={HOME}
ProtectHome=yes
PrivateDevices=yes
DevicePolicy=closed
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
LockPersonality=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RemoveIPC=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""
"""Hardened as far as applications run: `PrivateTmp` is left out, because replicas outlive the agent
and would keep the folder of an earlier one; `MemoryDenyWriteExecute`, because JIT compilers write
code. Source: systemd.exec(5)."""

SLICE = """\
# SSH sessions of Lapwing's user, in which builds run. The agent, replicas and databases are in
# lapwing.service. To set another limit, add a file whose name sorts after this one.
[Slice]
MemoryMax=75%
"""
"""The limit is a percentage of the physical memory; swap is not limited.

Source: systemd.resource-control(5)."""
SLICE_FILE = "10-lapwing.conf"
"""It sorts before `50-MemoryMax.conf`, which `systemctl set-property` writes: files are read in the
order of their names, in whichever folder they are. Source: systemd.unit(5)."""
SLICE_FOLDER = f"/etc/systemd/system/user-$(id -u {USER}).slice.d"

VARIABLES = f"""\
LAPWING_HOME={HOME}/state
LAPWING_PORT=443
LAPWING_BIND=0.0.0.0
LAPWING_HTTP_PORT=80
LAPWING_SERVER=yes
"""

WRAPPER = f"""\
#!/bin/sh
# Runs Lapwing as the user {USER}, with the settings of this server.
if [ "$(id -un)" != {USER} ]; then exec runuser -u {USER} -- "$0" "$@"; fi
set -a; . {SETTINGS}; test ! -e {LOCAL_SETTINGS} || . {LOCAL_SETTINGS}; set +a
umask 077
exec {TOP}/current/bin/lapwing "$@"
"""


@dataclass(frozen=True, slots=True)
class Step:
    """What a step does, its script, and the file that the script reads from standard input."""

    title: str
    script: str
    given: bytes = b""

    def __str__(self) -> str:
        """Return the step as root could type it, with the file that the script reads.

        The script is in a subshell: it may contain `exit`.
        """
        try:
            text = self.given.decode()
        except UnicodeDecodeError:
            digest = hashlib.sha256(self.given).hexdigest()
            size = f"{len(self.given)} bytes with the SHA-256 {digest}"
            return f"# {self.title}: standard input is a file of {size}\n(\n{self.script}\n)\n"
        if not text:
            return f"# {self.title}\n(\n{self.script}\n)\n"
        return f"# {self.title}\n(\n{self.script}\n) <<'{_END}'\n{text}{_END}\n"


def steps(package: Package, facts: Mapping[str, str], keys: Sequence[str]) -> list[Step]:
    """Return the steps for a server of which `facts` are known; `keys` are public SSH keys."""
    return [
        *_packages(facts),
        _user(),
        *_program(package, facts),
        Step("write the settings", _write(SETTINGS, 0o644), VARIABLES.encode()),
        Step(
            "let the kernel move waiting connections to the next Envoy",
            f"{_write(SYSCTL, 0o644)}\n"  # At boot; a container may not be allowed to set it.
            "{ echo 1 > /proc/sys/net/ipv4/tcp_migrate_req; } 2>/dev/null || true",
            b"net.ipv4.tcp_migrate_req = 1\n",
        ),
        Step("write the command", _write(WRAPPER_FILE, 0o755), WRAPPER.encode()),
        allow([key_line(key) for key in keys]),
        Step(
            "limit the memory of builds",
            f"folder={SLICE_FOLDER}\ninstall -d $folder\n{_write(f'$folder/{SLICE_FILE}', 0o644)}",
            SLICE.encode(),
        ),
        Step(
            "write the systemd unit",
            _write("/etc/systemd/system/lapwing.service", 0o644),
            UNIT.encode(),
        ),
        Step(
            "start the agent",
            "systemctl daemon-reload && systemctl enable --quiet lapwing && "
            "systemctl restart lapwing",
        ),
        Step("wait for the agent", _WAIT),
        Step("remove old versions", _REMOVE_OLD),
    ]


def _packages(facts: Mapping[str, str]) -> list[Step]:
    missing = [
        *(["python3", "python3-venv"] if not facts.get("python") else []),
        *(["git"] if not facts.get("git") else []),
    ]
    if not missing:
        return []
    install = "DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends"
    script = f"apt-get update -qq && {install} {' '.join([*missing, 'ca-certificates'])} >/dev/null"
    if not facts.get("python"):
        script += (
            "\npython3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {\n"
            '  echo "$(python3 --version) is too old: Lapwing needs Python 3.11." >&2\n  exit 1\n}'
        )
    return [Step(f"install {', '.join(missing)}", script)]


def as_user(script: str) -> str:
    """Return a script that runs another one as Lapwing's user, with the same standard input.

    The user may replace each path in its home by a link: root must not write or chown there.
    """
    return f"runuser -u {USER} -- sh -ec {shlex.quote(script)}"


def _user() -> Step:
    script = (
        f"id -u {USER} >/dev/null 2>&1 || "
        f"useradd --system --create-home --home-dir {HOME} --shell /bin/sh {USER}\n"
        f"install -d -m 0700 -o {USER} -g {USER} {HOME}\n"
        f"{as_user(f'install -d -m 0700 {HOME}/.ssh {HOME}/state')}\n"
        f"install -d -m 0755 {TOP} /etc/lapwing"
    )
    return Step(f"create the user {USER}", script)


def _program(package: Package, facts: Mapping[str, str]) -> list[Step]:
    """Install a version beside the current one, and then make it the current one."""
    folder = f"{TOP}/{package.folder}"
    python = facts.get("python") or "python3"
    requirements = REQUIREMENTS.read_bytes()
    pip = f"{folder}/bin/python -m pip install --quiet --disable-pip-version-check --no-input"
    done = f"test -e {folder}/.complete"
    return [
        Step(
            "copy the dependencies' hashes",
            _write(f"{folder}.txt", 0o644, hashlib.sha256(requirements).hexdigest()),
            requirements,
        ),
        Step(
            "copy Lapwing",
            f"install -d {folder}.wheel\n"
            + _write(
                f"{folder}.wheel/{package.name}", 0o644, hashlib.sha256(package.data).hexdigest()
            ),
            package.data,
        ),
        Step(
            "install Lapwing",
            f"{done} && exit 0\nrm -rf {folder} && {shlex.quote(python)} -m venv {folder}\n"
            f"{pip} --require-hashes -r {folder}.txt\n"
            f"{pip} --no-deps {folder}.wheel/{package.name}\n"
            f"touch {folder}/.complete",
        ),
        Step(
            "make it the current version",
            f"ln -sfn {package.folder} {TOP}/next && mv -T {TOP}/next {TOP}/current",
        ),
    ]


def allow(lines: Sequence[str]) -> Step:
    """Add lines to authorized_keys, in place of earlier limited ones of the same keys.

    The step fails for a key that would lose permissions: sshd uses the first line of a key.
    """
    file = f"{HOME}/.ssh/authorized_keys"
    script = f"""\
umask 077
touch {file}
rm -f {file}.new
while IFS= read -r line; do
  grep -qxF -e "$line" {file} && continue
  key=$(printf '%s\n' "$line" | awk '{{for (i = 1; i <= NF; i++) if ($i ~ /^AAAA/) print $i}}')
  if grep -F -e "$key" {file} | grep -qvF -e ' --only '; then
    case $line in *' --only '*)
      echo "This key may already run every command of Lapwing on the server." >&2
      exit 3 ;;
    esac
  fi
  {{ grep -vF -e "$key" {file} || [ $? = 1 ]; printf '%s\n' "$line"; }} > {file}.new
  mv {file}.new {file}
done
chmod 0600 {file}"""
    return Step("allow SSH keys", as_user(script), "".join(f"{line}\n" for line in lines).encode())


def key_line(key: str, only: str | None = None) -> str:
    """Return the line of authorized_keys for a public key; `only` is STACK/ENVIRONMENT."""
    limit = f" --only {only}" if only else ""
    options = LIMITED_OPTIONS if only else OPTIONS
    return f'{options},command="{WRAPPER_FILE} receive{limit}" {key}'


def _write(path: str, mode: int, digest: str | None = None) -> str:
    """Return a script that writes standard input to a file, complete or not at all."""
    new = f"{path}.new"
    check = f'echo "{digest}  {new}" | sha256sum --check --status\n' if digest else ""
    return f"cat > {new}\n{check}chmod {mode:04o} {new} && mv {new} {path}"


_WAIT = f"""\
for second in $(seq 60); do
  {TOP}/current/bin/python - <<'END' && exit 0
import json, sys
try:
    found = json.load(open("{HOME}/state/agent/agent.json"))
except (OSError, ValueError):
    sys.exit(1)
sys.exit(not found.get("ready"))
END
  sleep 1
done
journalctl -u lapwing -n 20 --no-pager >&2
echo "The agent did not start within 60 s." >&2
exit 1"""
_REMOVE_OLD = f"""\
cd {TOP}
current=$(readlink current)
for old in $(ls -1td -- [0-9]*[0-9a-f]/ | tail -n +{KEEP_VERSIONS + 1}); do
  old=${{old%/}}
  [ "$old" = "$current" ] || rm -rf -- "$old" "$old.txt" "$old.wheel"
done"""
