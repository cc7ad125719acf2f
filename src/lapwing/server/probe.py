"""What a server has, read by one shell script, and what of it stops a setup.

`check` is pure.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lapwing.system import package_data
from lapwing.system.sanitize import escape_controls

SCRIPT = package_data.read("server", "probe.sh")
"""Uses `ss` and `ip` of iproute2, which Debian and Ubuntu install by default."""
MACHINES = ("x86_64", "aarch64")
MIN_PYTHON = (3, 11)
MIN_MEMORY_KIB = 900_000
"""Envoy, the agent and one build of a small application fit in 1 GB."""
MIN_DISK_KIB = 2_000_000
MAX_CLOCK_ERROR_S = 60.0
OUR_PROGRAMS = ("envoy", "lapwing")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a server lacks. `fatal` if a setup cannot go on."""

    message: str
    hint: str
    fatal: bool = True


def parse(output: str) -> dict[str, str]:
    """Return what the script printed; control characters, of names on the server, are escaped."""
    lines = escape_controls(output).splitlines()
    return dict(line.partition("=")[::2] for line in lines if "=" in line)


def check(facts: Mapping[str, str], now: float | None = None) -> Iterator[Finding]:
    """Yield what stops a setup, or may become a problem."""
    systems = {facts.get("os"), *facts.get("os_like", "").split()}
    if not systems & {"debian", "ubuntu"} or not facts.get("apt"):
        name = facts.get("os_name", "unknown")
        yield Finding(f"The system is {name}.", "Use Debian 12 or newer, or Ubuntu 24.04 or newer.")
    if facts.get("machine") not in MACHINES:
        yield Finding(f"The processor is {facts.get('machine')}.", f"Use {' or '.join(MACHINES)}.")
    if not facts.get("systemd"):
        yield Finding("systemd is not running.", "Use a server that was started by systemd.")
    if not facts.get("writable"):
        yield Finding("/var/lib is read-only.", "Mount the disk for writing.")
    yield from _check_python(facts)
    memory, disk = int(facts.get("memory") or 0), int(facts.get("disk") or 0)
    if memory < MIN_MEMORY_KIB:
        yield Finding(
            f"The server has {memory // 1024} MiB of memory.",
            "Use one with 1 GiB or more: a build may need more than there is.",
            fatal=False,
        )
    if disk < MIN_DISK_KIB:
        yield Finding(f"/var/lib has {disk // 1024} MiB free.", "Free some space: 2 GB are needed.")
    error = float(facts.get("clock") or 0) - (time.time() if now is None else now)
    if abs(error) > MAX_CLOCK_ERROR_S:
        yield Finding(
            f"The clock of the server differs by {abs(error):.0f} s from that of this machine.",
            "Set the clock: `timedatectl set-ntp true`. Certificates depend on it.",
        )
    if facts.get("ipv4") == "0" and facts.get("ipv6", "0") != "0":
        yield Finding(
            "The server has no IPv4 address, but Envoy listens on 0.0.0.0.",
            "After the setup, run on the server: `echo LAPWING_BIND=:: >> "
            "/etc/lapwing/environment.local`, then `systemctl restart lapwing`.",
            fatal=False,
        )
    if not facts.get("pam_systemd"):
        yield Finding(
            "libpam-systemd is not installed, so the memory of builds is not limited.",
            "Run `apt-get install libpam-systemd` on the server.",
            fatal=False,
        )
    for port in (80, 443):
        program, _, pid = facts.get(f"port_{port}", "").partition(" ")
        if program and program not in OUR_PROGRAMS:
            yield Finding(
                f"Port {port} is used by {program} (process {pid}).",
                "Stop it and keep it from starting: `systemctl disable --now NAME`.",
            )


def _check_python(facts: Mapping[str, str]) -> Iterator[Finding]:
    version = facts.get("python_version")
    if version and not facts.get("python") and _numbers(version) < MIN_PYTHON:
        yield Finding(
            f"The server has Python {version}, and Lapwing needs 3.11 or newer.",
            "On Ubuntu 22.04, run `apt-get install python3.11 python3.11-venv` on the server; "
            "else use Debian 12 or newer, or Ubuntu 24.04 or newer.",
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
