"""What stops a setup of a server."""

from __future__ import annotations

import subprocess

import pytest

from lapwing.server import probe

GOOD = {
    "os": "debian", "os_like": "", "os_name": "Debian GNU/Linux 12 (bookworm)", "apt": "yes",
    "machine": "x86_64", "user": "0", "clock": "1000", "memory": "2000000", "disk": "9000000",
    "systemd": "yes", "writable": "yes", "git": "yes", "python": "/usr/bin/python3",
    "pam_systemd": "yes",
    "port_80": "", "port_443": "envoy 12",
}  # fmt: skip


def test_good_server_has_no_finding() -> None:
    assert not list(probe.check(GOOD, 1000.0))
    assert not list(probe.check(GOOD | {"os": "linuxmint", "os_like": "ubuntu debian"}, 1000.0))


@pytest.mark.parametrize(
    ("fact", "value", "message"),
    [
        ("os", "fedora", "The system is Debian"),
        ("apt", "", "The system is"),
        ("machine", "riscv64", "The processor is riscv64"),
        ("systemd", "", "systemd is not running"),
        ("writable", "", "/var/lib is read-only"),
        ("disk", "1000", "/var/lib has 0 MiB free"),
        ("clock", "4600", "differs by 3600 s"),
        ("port_443", "nginx 77", "Port 443 is used by nginx (process 77)"),
        ("port_80", "apache2 8", "Port 80 is used by apache2 (process 8)"),
    ],
)
def test_fatal_finding(fact: str, value: str, message: str) -> None:
    [finding] = probe.check(GOOD | {fact: value}, 1000.0)
    assert finding.fatal
    assert message in finding.message
    assert finding.hint


def test_names_on_the_server_do_not_reach_the_terminal_unescaped() -> None:
    facts = probe.parse("environments=a\x1b[2J/b\x07\x1ckeys=9\nkeys=1\n")
    assert facts == {"environments": r"a\x1b[2J/b\x07\x1ckeys=9", "keys": "1"}


def test_older_python_is_fatal_unless_there_is_a_newer_one() -> None:
    """Ubuntu 22.04 has Python 3.10; 3.11 can be installed beside it."""
    jammy = GOOD | {"os": "ubuntu", "python_version": "3.10"}
    [finding] = probe.check(jammy | {"python": ""}, 1000.0)
    assert finding.fatal
    assert finding.message == "The server has Python 3.10, and Lapwing needs 3.11 or newer."
    assert "`apt-get install python3.11 python3.11-venv`" in finding.hint
    assert not list(probe.check(jammy | {"python": "/usr/bin/python3.11"}, 1000.0))
    without_venv = GOOD | {"python": "", "python_version": "3.11"}
    assert not list(probe.check(without_venv, 1000.0)), "Setup installs python3-venv."


def test_sessions_outside_of_a_slice_are_a_warning() -> None:
    [finding] = probe.check(GOOD | {"pam_systemd": ""}, 1000.0)
    assert not finding.fatal
    assert "apt-get install libpam-systemd" in finding.hint


def test_server_without_ipv4_is_a_warning() -> None:
    [finding] = probe.check(GOOD | {"ipv4": "0", "ipv6": "1"}, 1000.0)
    assert not finding.fatal
    assert "no IPv4 address" in finding.message
    assert not list(probe.check(GOOD | {"ipv4": "1", "ipv6": "1"}, 1000.0))
    assert not list(probe.check(GOOD | {"ipv4": "0", "ipv6": "0"}, 1000.0)), "Only loopback."


def test_little_memory_is_a_warning() -> None:
    [finding] = probe.check(GOOD | {"memory": "500000"}, 1000.0)
    assert not finding.fatal


def test_script_reads_this_machine() -> None:
    done = subprocess.run(["sh", "-c", probe.SCRIPT], capture_output=True, text=True, check=True)
    facts = probe.parse(done.stdout)
    assert {
        "os",
        "machine",
        "user",
        "python_version",
        "clock",
        "memory",
        "disk",
        "ipv4",
        "ipv6",
        "port_80",
        "port_443",
    } <= set(facts)
    assert int(facts["memory"]) > 0
