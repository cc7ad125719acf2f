"""Remove Lapwing from a server, and the messages of a server without it."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from lapwing.server import removal
from tests.deployed import until
from tests.integration.server.conftest import Laptop, make_key, version

TRAP = "runuser -u lapwing -- ln -s /etc/shadow /var/lib/lapwing/.ssh/authorized_keys.new"
"""What an application can prepare: root would write to the file that the link names."""
DOCKER = """\
#!/bin/sh
echo "$*" >> /tmp/docker-calls
case "$*" in "ps -aq "*) echo 0123abcd ;; esac
"""
"""Docker is not on the server: its command with one container, which records how it is called."""
OWNERS = "stat -c %U:%a /etc/shadow /var/lib/lapwing/.ssh"
pytestmark = [pytest.mark.xdist_group("server"), pytest.mark.timeout(900)]


def test_removed_server_keeps_its_data_and_can_be_set_up_again(deployed: Laptop) -> None:
    where, machine, serving = deployed.where, deployed.machine, version(deployed)
    machine.run(f"{TRAP} && sha256sum /etc/shadow > /tmp/shadow.sha256")
    asked = where.run("server", "remove", "-e", "vps", status=2).stderr
    assert "stops    these environments: shop/" in asked
    assert "SSH keys of people and CI" in asked
    assert "keeps    /var/lib/lapwing (" in asked
    assert "nothing was changed" in asked
    assert deployed.ask() == serving
    docker = machine.root / "usr/local/bin/docker"
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    shown = where.run("server", "remove", "-e", "vps", "--yes").stderr
    docker.unlink()
    assert machine.run("grep ^stop /tmp/docker-calls") == "stop -t 60 0123abcd\n"
    assert "[1/3] stop the agent, services and databases" in shown
    assert "`userdel --remove lapwing`" in shown
    for path in ("/opt/lapwing", "/etc/lapwing", "/usr/local/bin/lapwing",
                 "/var/lib/lapwing/.ssh/authorized_keys",
                 "/etc/systemd/system/user-$(id -u lapwing).slice.d"):  # fmt: skip
        machine.run(f"test ! -e {path}")
    assert not machine.run("pgrep -u lapwing || true")
    refused = where.run("status", "-e", "vps", status=1).stderr
    assert "refuses the login" in refused
    assert "Run `lapwing server setup -e vps`" in refused
    key = str(deployed.key.with_suffix(".pub"))
    missing = where.run("server", "key", "-e", "vps", key, status=1).stderr
    assert "Lapwing is not installed on root@" in missing
    where.run("server", "remove", "-e", "vps", "--yes")  # As after an interruption.
    machine.run(f"sha256sum --check --status /tmp/shadow.sha256 && {TRAP}")
    where.run("server", "setup", "-e", "vps")
    machine.run("sha256sum --check --status /tmp/shadow.sha256")
    assert machine.run(OWNERS).split() == ["root:640", "lapwing:700"]
    until(lambda: deployed.ask() == serving)


def test_keys_stay_if_the_disk_is_full(deployed: Laptop) -> None:
    """A disk of one page: it has no space for the new file."""
    machine = deployed.machine
    [step] = (step for step in removal.STEPS if step.title == "remove the SSH keys")
    full = f"""\
cd /var/lib/lapwing
mount -t tmpfs -o size=4k,mode=0700,uid=$(id -u lapwing),gid=$(id -g lapwing) full .ssh
trap 'umount .ssh' EXIT
runuser -u lapwing -- sh -c 'echo of-another-program > .ssh/authorized_keys'
! sh -ec {shlex.quote(step.script)} || exit 1
cat .ssh/authorized_keys"""
    assert machine.run(f"sh -ec {shlex.quote(full)}") == "of-another-program\n"


def test_missing_program_and_refused_login_are_named(deployed: Laptop, tmp_path: Path) -> None:
    where, machine = deployed.where, deployed.machine
    machine.run("mv /usr/local/bin/lapwing /usr/local/bin/moved")
    try:
        shown = where.run("status", "-e", "vps", status=1).stderr
    finally:
        machine.run("mv /usr/local/bin/moved /usr/local/bin/lapwing")
    assert "Lapwing is not installed on lapwing@" in shown
    make_key(tmp_path / "stranger")
    deployed.use(tmp_path / "stranger")
    try:
        shown = where.run("server", "setup", "-e", "vps", status=1).stderr
    finally:
        deployed.use(machine.folder.parent / "id")
    assert "refuses the login" in shown
    assert "`ssh-copy-id " in shown
    assert "server setup" not in shown
