"""A stack on a server that is reached over SSH, from a laptop and from CI."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pyrage
import pytest

import lapwing
from lapwing.load.client import Plan, running
from lapwing.load.worker import Traffic
from tests.deployed import until
from tests.integration.server.conftest import APP, Laptop, make_key, version
from tests.integration.server.machines import Machine

pytestmark = pytest.mark.xdist_group("server")


def test_setup_can_run_again(deployed: Laptop) -> None:
    before = deployed.machine.run("readlink /opt/lapwing/current")
    deployed.where.run("server", "setup", "-e", "vps")
    assert deployed.machine.run("readlink /opt/lapwing/current") == before
    assert deployed.machine.run("cat /proc/sys/net/ipv4/tcp_migrate_req") == "1\n"
    assert deployed.machine.run("grep -c receive /var/lib/lapwing/.ssh/authorized_keys") == "1\n"
    assert deployed.ask() == version(deployed)


def test_setup_shows_its_commands_and_changes_nothing(laptop: Laptop) -> None:
    before = laptop.machine.run("find /opt/lapwing /etc/lapwing | sort | sha256sum")
    shown = laptop.where.run("server", "setup", "-e", "vps", "--dry-run").stdout
    assert "# install Lapwing\n" in shown
    assert "echo 1 > /proc/sys/net/ipv4/tcp_migrate_req" in shown
    assert "systemctl restart lapwing" in shown
    for file in ("etc/lapwing/environment", "etc/systemd/system/lapwing.service"):
        assert f"\n{(laptop.machine.root / file).read_text()}END-OF-FILE\n" in shown
    assert (
        f'command="/usr/local/bin/lapwing receive" {laptop.key.with_suffix(".pub").read_text()}'
        in shown
    )
    assert "copy Lapwing: standard input is a file of " in shown
    assert laptop.machine.run("find /opt/lapwing /etc/lapwing | sort | sha256sum") == before


def test_service_is_hardened(laptop: Laptop) -> None:
    shown = laptop.machine.run("systemd-analyze security lapwing.service --no-pager | tail -1")
    exposure = float(shown.split("lapwing.service: ")[1].split()[0])
    assert exposure < 3, shown
    assert not laptop.machine.run("systemd-analyze verify lapwing.service 2>&1")
    assert laptop.machine.run("stat -c %a /var/lib/lapwing /var/lib/lapwing/state") == "700\n700\n"


def test_memory_of_builds_is_limited(laptop: Laptop) -> None:
    """By the slice of SSH sessions, in which builds run, but not the agent."""
    total = int(laptop.machine.run("awk '/^MemTotal/ {print $2}' /proc/meminfo")) * 1024
    show = "systemctl show --value -p"
    user_slice = "user-$(id -u lapwing).slice"
    limit = laptop.machine.run(f"{show} MemoryMax {user_slice}")
    assert abs(int(limit) - total * 0.75) < 2**20
    assert laptop.machine.run(f"{show} MemoryMax lapwing.service") == "infinity\n"
    assert laptop.machine.run(f"{show} Slice lapwing.service") == "system.slice\n"
    laptop.machine.run(f"systemctl set-property {user_slice} MemoryMax=90%")
    laptop.machine.run("systemctl daemon-reload")  # All files are read again.
    changed = laptop.machine.run(f"{show} MemoryMax {user_slice}")
    laptop.machine.run(f"rm -r /etc/systemd/system.control/{user_slice}.d; systemctl daemon-reload")
    assert abs(int(changed) - total * 0.9) < 2**20
    assert laptop.machine.run(f"{show} MemoryMax {user_slice}") == limit


def test_only_ssh_and_envoy_listen(deployed: Laptop) -> None:
    listening = deployed.machine.run("ss -Hltn | awk '{print $4}' | grep -v 127.0.0.1 | sort -u")
    assert {line.rpartition(":")[2] for line in listening.split()} == {"22", "80", "443"}


def test_plain_http_is_redirected(deployed: Laptop) -> None:
    done = subprocess.run(
        [*deployed.machine.here, "curl", "-si", "-H", "Host: app.example.com", f"http://{deployed.machine.address}/x?y=1"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "307 Temporary Redirect" in done.stdout
    assert "location: https://app.example.com/x?y=1" in done.stdout


def test_verbs_read_and_change_the_server(deployed: Laptop) -> None:
    where = deployed.where
    status = where.json("status", "-e", "vps")
    assert status["services"][0]["phase"] == "running"
    assert where.json("history", "-e", "vps")[0]["outcome"] == "succeeded"
    old = version(deployed)
    deployed.write("next")
    where.run("deploy", "-e", "vps")
    assert deployed.ask() == "next"
    where.run("rollback", "-e", "vps")
    assert deployed.ask() == old
    assert [s["name"] for s in where.json("secret", "list", "-e", "vps")] == ["TOKEN"]
    words = ("sh", "-c", "echo $TOKEN $1; exit 9", "sh", "-e 'x")
    done = where.run("run", "api", "-e", "vps", *words, status=9)
    assert done.stdout == "a-secret-value -e 'x\n"
    assert "a-secret-value" not in deployed.machine.run("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    assert not (where.home / "environments").exists()


def test_encrypted_backup_is_verified_with_an_identity_of_the_laptop(
    deployed: Laptop, tmp_path: Path
) -> None:
    key, where = pyrage.x25519.Identity.generate(), deployed.where
    (tmp_path / "identity").write_text(f"{key}\n")
    text = (where.folder / "lapwing.yaml").read_text()
    backup = f", backup: {{encrypt: {{recipients: [{key.to_public()}]}}}}}}"
    kept = text.replace("domain: app.example.com}", f"domain: app.example.com{backup}")
    kept = kept.replace("    secrets: [TOKEN]", "    secrets: [TOKEN]\n    volumes: {kept: ./kept}")
    where.write({"lapwing.yaml": kept})
    where.run("deploy", "-e", "vps")
    where.run("backup", "-e", "vps")
    verify = ("backup", "verify", "-e", "vps")
    assert "Add `--identity FILE`" in where.run(*verify, status=1).stderr
    assert "ok" in where.run(*verify, "--identity", str(tmp_path / "identity")).stdout
    where.write({"lapwing.yaml": text})


def test_errors_of_the_stack_file_are_those_of_the_laptop(laptop: Laptop) -> None:
    file = laptop.where.folder / "lapwing.yaml"
    before = file.read_text()
    try:
        file.write_text(before.replace("route: /", "rout: /"))
        shown = laptop.where.run("deploy", "-e", "vps", status=2).stderr
        assert f"{file}:6:5" in shown
    finally:
        file.write_text(before)


def test_maintenance_ends_with_an_invalid_stack_file(deployed: Laptop) -> None:
    file = deployed.where.folder / "lapwing.yaml"
    before = file.read_text()
    deployed.where.run("maintenance", "on", "-e", "vps")
    try:
        file.write_text(before.replace("route: /", "rout: /"))
        deployed.where.run("maintenance", "off", "-e", "vps")
        assert deployed.where.json("status", "-e", "vps")["maintenance"] is None
    finally:
        file.write_text(before)


def test_files_that_are_not_committed_are_not_deployed(deployed: Laptop) -> None:
    serving = deployed.ask()
    (deployed.where.folder / "VERSION").write_text("not committed")
    shown = deployed.where.run("deploy", "-e", "vps", status=2).stderr
    assert "uncommitted changes" in shown
    deployed.where.git("checkout", "VERSION")
    assert deployed.ask() == serving


def test_no_request_fails_while_a_server_deploys_and_is_upgraded(
    deployed: Laptop, tmp_path: Path
) -> None:
    """The upgrade is the same version as another wheel; it replaces the agent and Envoy."""
    where = deployed.where
    traffic = (
        Traffic(kind="new", path="/", workers=2, interval=0.05),
        Traffic(kind="keep-alive", path="/", workers=2, interval=0.05),
    )
    before = deployed.machine.run("readlink /opt/lapwing/current")
    with deployed.machine.network(), running(Plan(deployed.target, traffic)) as client:
        client.wait_for_answers({"new", "keep-alive"})
        for number in range(3):
            deployed.write(f"under load {number}")
            where.run("deploy", "-e", "vps")
        where.run("rollback", "-e", "vps")
        upgrade(deployed, tmp_path)
        assert deployed.machine.run("readlink /opt/lapwing/current") != before
        deployed.write("after the upgrade")
        where.run("deploy", "-e", "vps")
        until(lambda: deployed.ask() == "after the upgrade")
        ledger = client.stop()
    assert ledger.sent > 100
    assert not ledger.failures


def upgrade(laptop: Laptop, folder: Path) -> None:
    """Set up the server from a copy of Lapwing with one more file."""
    shutil.copytree(Path(lapwing.__file__).parent, folder / "lapwing")
    (folder / "lapwing" / "added.py").write_text('"""A newer Lapwing."""\n')
    where = laptop.where
    where.environ["PYTHONPATH"] = str(folder)
    try:
        where.run("server", "setup", "-e", "vps")
    finally:
        del where.environ["PYTHONPATH"]


def test_deployment_continues_when_the_connection_is_cut(deployed: Laptop) -> None:
    deployed.write("cut")
    command = deployed.where.begin("deploy", "-e", "vps")
    path = "/var/lib/lapwing/state/environments/shop/vps/status.json"

    def in_progress() -> bool:
        status = json.loads((deployed.machine.root / path.lstrip("/")).read_text())
        return status["rollout"] is not None

    until(in_progress, "the deployment")
    deployed.machine.run("pkill -KILL -f '[s]shd(-session)?: lapwing'")
    out, err = command.communicate(timeout=120)
    assert command.returncode == 0, out + err
    assert "was lost. Connecting again" in err
    assert deployed.ask() == "cut"


def test_source_is_sent_again_when_the_connection_is_cut(deployed: Laptop) -> None:
    film = deployed.where.folder / "film.bin"
    film.write_bytes(os.urandom(40_000_000))
    deployed.write("sent again")
    command = deployed.where.begin("deploy", "-e", "vps")
    until(lambda: deployed.machine.run("pgrep -f '[r]eceive-pack' || true"), "the push")
    deployed.machine.run("pkill -KILL -f '[s]shd(-session)?: lapwing'")
    out, err = command.communicate(timeout=200)
    assert command.returncode == 0, out + err
    assert "was lost. Connecting again" in err
    assert deployed.ask() == "sent again"
    film.unlink()


def test_two_people_deploy_at_once(deployed: Laptop) -> None:
    where = deployed.where
    commands = []
    for name in ("one", "another"):
        deployed.write(f"{name} {time.monotonic_ns()}")
        commands.append((version(deployed), where.begin("deploy", "-e", "vps")))
        until(lambda: deployed.machine.run("pgrep -f '[l]apwing deploy' || true"))
    outcomes = []
    for text, command in commands:
        out, err = command.communicate(timeout=600)
        assert "Traceback" not in err
        assert command.returncode == 0 or "superseded" in err or "was committed" in err, out + err
        outcomes += [text] if command.returncode == 0 else []
    assert deployed.ask() in outcomes
    assert where.json("status", "-e", "vps")["problem"] is None
    assert where.json("history", "-e", "vps")[0]["outcome"] == "succeeded"


def test_stack_serves_again_after_a_power_failure(deployed: Laptop) -> None:
    serving = deployed.ask()
    deployed.machine.power_off()
    deployed.machine.boot()
    deployed.use(deployed.machine.folder.parent / "id")
    until(lambda: deployed.ask() == serving, "the stack")
    until(lambda: deployed.where.call("status", "-e", "vps").returncode == 0, "the status")


def machine_keys(laptop: Laptop) -> str:
    return laptop.machine.run("cat /var/lib/lapwing/.ssh/authorized_keys")


def test_key_of_a_person_is_not_limited_by_mistake(laptop: Laptop) -> None:
    before = machine_keys(laptop)
    public = laptop.machine.folder.parent / "id.pub"
    shown = laptop.where.run("server", "key", "-e", "vps", str(public), status=1).stderr
    assert "may already run every command" in shown
    assert machine_keys(laptop) == before


@pytest.fixture
def ci(deployed: Laptop, tmp_path: Path) -> Iterator[Laptop]:
    """A key that may deploy `vps`, in place of the laptop's."""
    make_key(tmp_path / "ci")
    for environment in ("qa", "vps"):  # The second limit replaces the first.
        deployed.where.run("server", "key", "-e", environment, str(tmp_path / "ci.pub"))
    deployed.use(tmp_path / "ci")
    yield deployed
    deployed.use(deployed.machine.folder.parent / "id")


def test_key_for_ci_deploys_and_does_nothing_else(ci: Laptop) -> None:
    where = ci.where
    ci.write("from CI")
    where.run("deploy", "-e", "vps")
    assert ci.ask() == "from CI"
    where.json("status", "-e", "vps")
    shown = machine_keys(ci)
    assert shown.count(" --only shop/vps") == 1
    assert (
        "may not run `lapwing run`" in where.run("run", "-e", "vps", "app", "id", status=1).stderr
    )
    for verb in ("logs", "rollback", "down", "up", "promote"):
        shown = where.run(verb, "-e", "vps", status=1).stderr
        assert f"may not run `lapwing {verb}`" in shown
    assert "may not deploy shop/qa" in where.run("deploy", "-e", "qa", status=1).stderr
    ssh = [f"{where.environ['PATH'].split(':')[0]}/ssh", "-l", "lapwing", ci.machine.address]
    for command in ("id", "sh", "git-upload-pack shop", "git-receive-pack other", ""):
        done = subprocess.run([*ssh, *filter(None, [command])], capture_output=True, check=False)
        assert done.returncode == 1, command
        assert b"uid=" not in done.stdout
    push = ["git", "push", f"ssh://lapwing@{ci.machine.address}/shop", "HEAD:refs/heads/main"]
    environ = where.environ | {"GIT_SSH_COMMAND": ssh[0]}
    done = subprocess.run(push, cwd=where.folder, env=environ, capture_output=True, check=False)
    assert b"deny updating a hidden ref" in done.stderr
    assert ci.ask() == "from CI"


@pytest.fixture
def branches(deployed: Laptop, tmp_path: Path) -> Iterator[Laptop]:
    """A key for the environments of branches, in place of the laptop's; a remote repository."""
    where = deployed.where
    make_key(tmp_path / "ci")
    where.run("server", "key", "-e", "preview", str(tmp_path / "ci.pub"))
    subprocess.run(
        [*where.command, "secret", "set", "TOKEN", "-e", "preview"], cwd=where.folder,
        env=where.environ, input="a-secret-value", text=True, check=True,
    )  # fmt: skip
    where.git("init", "-q", "--bare", str(tmp_path / "remote.git"))
    where.git("remote", "add", "origin", str(tmp_path / "remote.git"))
    where.git("push", "-q", "-u", "origin", "main")
    deployed.use(tmp_path / "ci")
    yield deployed
    deployed.use(deployed.machine.folder.parent / "id")
    where.git("switch", "-q", "main")
    where.git("remote", "remove", "origin")


def test_key_for_branches_deploys_and_removes_only_these(branches: Laptop) -> None:
    where, serving = branches.where, branches.ask()

    def ship(branch: str, status: int = 0) -> str:
        arguments = ("-e", "preview", "--branch", branch, "--scan", "off")
        return where.run("ship", *arguments, status=status).stderr

    def names() -> list[str]:
        listed = where.json("status", "-e", "preview")["branches"]
        return [entry["environment"] for entry in listed]

    for branch in ("fix", "second"):
        where.git("switch", "-q", "-c", branch, "main")
        branches.write(f"branch {branch}")
        where.git("push", "-q", "-u", "origin", branch)
    assert "has branch second checked out" in ship("fix", status=2)
    where.git("switch", "-q", "fix")
    ship("fix")
    assert branches.ask(domain="fix.preview.example.com") == "branch fix"
    assert branches.ask() == serving
    assert names() == ["preview_fix"]

    assert "may not deploy shop/vps" in where.run("deploy", "-e", "vps", status=1).stderr
    for verb in ("down", "status"):
        shown = where.run(verb, "-e", "vps", status=1).stderr
        assert "This SSH key is for shop/preview only." in shown
    assert "Add `--branch NAME`" in where.run("down", "-e", "preview", status=2).stderr
    denied = where.run("secret", "list", "-e", "preview", status=1).stderr
    assert "may not run `lapwing secret`" in denied

    where.git("switch", "-q", "second")
    assert "1 environments of branches exist, which is the maximum" in ship("second", status=1)
    where.git("push", "-q", "origin", ":fix")
    assert "`lapwing down --gone -e preview`" in ship("second", status=1)
    assert names() == ["preview_fix"]
    gone = where.json("down", "--gone", "-e", "preview")
    assert [(d["environment"], d["action"]) for d in gone] == [("preview_fix", "removed")]
    ship("second")
    assert names() == ["preview_second"]
    assert branches.ask(domain="second.preview.example.com") == "branch second"
    where.git("push", "-q", "origin", ":second")
    gone = where.json("down", "--gone", "-e", "preview")
    assert [(d["environment"], d["action"]) for d in gone] == [("preview_second", "removed")]
    assert names() == []
    shown = where.run("down", "--volumes", "-e", "preview", "--branch", "second").stderr
    assert "preview_second does not exist." in shown
    state = "/var/lib/lapwing/state"
    found = branches.machine.run(
        f"find {state} -name 'preview_*' -not -path '*/desired.git/*' -not -path '*/shop.git/*'"
    )
    assert found == ""
    shown = branches.machine.run(
        f"git -c safe.directory='*' -C {state}/sources/shop.git for-each-ref"
    )
    assert "preview_/" not in shown
    assert branches.ask() == serving


def test_ship_tests_here_and_deploys_on_the_server(ci: Laptop) -> None:
    where, serving = ci.where, ci.ask()
    ci.write("shipped")
    checked = where.json("ship", "-e", "vps", "--scan", "off", "--check")
    assert [step["name"] for step in checked["steps"]] == ["build", "test", "scan"]
    assert ci.ask() == serving
    shipped = where.json("ship", "-e", "vps", "--scan", "off")
    assert ci.ask() == "shipped"
    assert shipped["steps"][-1]["name"] == "deploy"
    assert shipped["commit"] == where.json("history", "-e", "vps")[0]["commit"]
    assert [change["name"] for change in shipped["changes"]] == ["api"]
    shown = where.run("ship", "-e", "vps", "--scan", "off")
    assert "deploy done" in shown.stderr
    assert shown.stdout == "https://app.example.com\n"


def test_ship_fails_if_the_deployment_fails(ci: Laptop) -> None:
    where, serving = ci.where, ci.ask()
    where.write({"app.py": "raise SystemExit('no module')"})
    try:
        shipped = where.json("ship", "-e", "vps", "--scan", "off", status=1)
        assert shipped["steps"][-1]["outcome"] == "failed"
        shown = where.run("ship", "-e", "vps", "--scan", "off", status=1)
        assert "deploy failed" in shown.stderr
        assert ci.ask() == serving
    finally:
        where.write({"app.py": APP})


def test_doctor_checks_the_server(deployed: Laptop) -> None:
    where = deployed.where
    found = {row["check"]: row for row in where.json("doctor", "-e", "vps")}
    assert found["reboot"]["seen"] == "lapwing.service starts at boot"
    assert found["Envoy upgrade"]["seen"] == "resets no connection"
    assert found["traffic"]["ok"]
    untrusted = found["certificate of shop/vps"]
    assert untrusted["ok"] is None, "A proxy in front may have another certificate."
    assert "Browsers do not trust the certificate of app.example.com" in untrusted["seen"]
    assert "Set `tls: {acme: EMAIL}` in `environments: vps`" in untrusted["seen"]
    deployed.write("with a certificate that is not trusted")
    assert untrusted["seen"] in where.run("deploy", "-e", "vps").stderr
    deployed.machine.run("systemctl disable --quiet lapwing")
    try:
        shown = where.run("doctor", "-e", "vps", status=1).stdout
        assert "lapwing.service does not start at boot" in shown
    finally:
        deployed.machine.run("systemctl enable --quiet lapwing")


def test_changed_host_key_is_refused(laptop: Laptop, machine: Machine, tmp_path: Path) -> None:
    known = laptop.where.folder.parent / "known_hosts"
    for line, expected in (
        ("", "is not known yet"),
        (f"{machine.address} {make_key(tmp_path / 'other')}", "this may be another machine"),
    ):
        laptop.use(machine.folder.parent / "id")
        known.write_text(line)
        assert expected in laptop.where.run("status", "-e", "vps", status=1).stderr
    laptop.use(machine.folder.parent / "id")


def test_setup_by_a_user_with_sudo(laptop: Laptop, machine: Machine, tmp_path: Path) -> None:
    where = laptop.where
    file = where.folder / "lapwing.yaml"
    before = file.read_text()
    machine.run("id deploy 2>/dev/null || useradd --create-home --shell /bin/bash deploy")
    machine.allow((machine.folder.parent / "id.pub").read_text(), "deploy")
    machine.run("chown -R deploy: /home/deploy")
    try:
        file.write_text(before.replace("root@", "deploy@"))
        shown = where.run("server", "setup", "-e", "vps", status=1).stderr
        assert "cannot use sudo without a password" in shown
        sudoers = machine.root / "etc/sudoers.d/deploy"
        sudoers.write_text("deploy ALL=(ALL) NOPASSWD: ALL\n")
        sudoers.chmod(0o440)
        where.run("server", "setup", "-e", "vps")
    finally:
        file.write_text(before)


def test_port_in_use_stops_a_setup(laptop: Laptop, machine: Machine, tmp_path: Path) -> None:
    machine.run("systemctl stop lapwing; pkill -KILL -f '[r]espawn.py'; pkill -KILL envoy; true")
    until(lambda: ":443 " not in machine.run("ss -Hltn"))
    code = "import socket, time; s = socket.create_server(('', 443)); time.sleep(1000)"
    machine.run(f'systemd-run --quiet --unit port python3 -c "{code}"')
    try:
        until(lambda: ":443 " in machine.run("ss -Hltn"))
        shown = laptop.where.run("server", "setup", "-e", "vps", status=1).stderr
        assert "Port 443 is used by python3" in shown
        assert "nothing was changed" in shown
    finally:
        machine.run("systemctl stop port; systemctl start lapwing")
    until(lambda: ":443 " in machine.run("ss -Hltn"))
