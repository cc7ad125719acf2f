"""A secret is where it is needed, and nowhere else."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from lapwing.desired.secrets import SecretStore
from tests.command_lines import command_lines
from tests.deployed import until
from tests.installation import LAPWING

from .conftest import NAME, Yard

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("secrets")]
VALUE = "hunter2-and-a-half"


def test_secret_is_in_no_file_and_no_command_line(yard: Yard) -> None:
    set_ = subprocess.run(
        [LAPWING, "secret", "set", "TOKEN"],
        cwd=yard.where.folder,
        env=yard.where.environ,
        input=VALUE,
        capture_output=True,
        text=True,
        check=True,
    )
    yard.stack()
    path = yard.where.folder / "lapwing.yaml"
    path.write_text(path.read_text().replace("route: /\n", "route: /\n    secrets: [TOKEN]\n"))
    yard.write("with a secret")
    deployed = yard.where.run("deploy")
    assert yard.get("/env?TOKEN").text == VALUE, "the service has it"
    yard.write("ends", exit=1)
    failed = yard.where.run("deploy", status=1)
    said = [d.stdout + d.stderr for d in (set_, deployed, failed)]
    for verb in ("status", "history", "logs", "verify", "doctor"):
        done = yard.where.call(verb)
        said.append(done.stdout + done.stderr)
    said.append(yard.where.run("secret", "list").stdout)
    assert all(VALUE not in text for text in said)
    assert files_with(yard.where.home) == []
    git = yard.repository.git
    objects = git.data("cat-file", "--batch-all-objects", "--batch-check=%(objectname)")
    contents = git.data("cat-file", "--batch", given=objects)
    assert VALUE.encode() not in contents
    assert all(VALUE.encode() not in line for line in command_lines())
    assert stat.S_IMODE(yard.where.home.stat().st_mode) == 0o700
    names = [*yard.where.home.glob("secrets/**/*"), *yard.where.home.glob("certificates/*.key")]
    files = [p for p in [*names, yard.where.home / "certificates" / "server.pem"] if p.is_file()]
    assert len(files) >= 4
    assert {stat.S_IMODE(p.stat().st_mode) for p in files} == {0o600}


def test_removed_secret_is_reported_before_and_after_a_restart(yard: Yard) -> None:
    store = SecretStore(yard.where.settings.secrets)
    store.set(NAME, "local", "TOKEN", VALUE)
    yard.stack()
    path = yard.where.folder / "lapwing.yaml"
    path.write_text(path.read_text().replace("route: /\n", "route: /\n    secrets: [TOKEN]\n"))
    yard.write("with a secret")
    yard.where.run("deploy")
    warning = "Without it, replicas of app cannot be started again."
    assert warning in yard.where.run("secret", "remove", "TOKEN", "--yes").stderr
    advice = "app cannot be started again: Version "
    assert advice in yard.where.run("status").stdout
    [active] = [g for g in yard.memory().generations if g.role == "active"]
    os.kill(active.replicas[0].pid, signal.SIGKILL)
    until(lambda: "Last exit of app: Version " in yard.where.call("status").stdout)
    store.set(NAME, "local", "TOKEN", VALUE)
    until(lambda: "2/2" in (shown := yard.where.call("status").stdout) and advice not in shown)


def test_secret_that_the_application_prints_is_masked(yard: Yard) -> None:
    SecretStore(yard.where.home / "secrets").set(NAME, "local", "TOKEN", VALUE)
    yard.stack()
    path = yard.where.folder / "lapwing.yaml"
    path.write_text(path.read_text().replace("route: /\n", "route: /\n    secrets: [TOKEN]\n"))
    yard.write("prints it", prints="TOKEN", exit=1)
    said = [yard.where.run("deploy", status=1)]
    said += [yard.where.call(*v) for v in (("status",), ("history",), ("logs", "--mask"))]
    texts = [text for done in said for text in (done.stdout, done.stderr)]
    folder = yard.where.home / "environments"
    texts += [p.read_text(errors="replace") for p in folder.rglob("*") if p.is_file()]
    assert "***" in said[0].stderr
    assert r"\x1b[2J" in said[0].stderr
    assert all(VALUE not in text and "\x1b[2J" not in text for text in texts)
    assert VALUE in yard.where.run("logs").stdout, "it is shown unless --mask is given"


def test_secret_on_the_command_line_is_rejected(yard: Yard) -> None:
    said = yard.where.run("secret", "set", "TOKEN", "value", status=2).stderr
    assert "cannot be given on the command line" in said


def files_with(folder: Path) -> list[str]:
    """The files that have the value in them."""
    found = []
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root) / name
            if path.is_file() and not path.is_symlink() and VALUE.encode() in path.read_bytes():
                found.append(str(path))
    return found


def test_variables_of_a_dotenv_file_are_set(yard: Yard) -> None:
    """A value that looks like a secret is not, and stays out of the desired state."""
    file = "environments: {local: {services: {app: {env_file: app.env}}}}"
    yard.stack(more=file)
    yard.write("with variables")
    yard.where.write({"app.env": "# Settings\nexport MODE='from a file'\n"})
    yard.where.run("deploy")
    assert yard.get("/env?MODE").text == "from a file"
    yard.where.write({"app.env": f"MODE=1\nTOKEN={VALUE}\n"})
    refused = yard.where.run("deploy", status=2).stderr
    assert "app.env:2: error: `TOKEN` looks like a secret." in refused
    assert VALUE not in refused
    assert yard.get("/env?MODE").text == "from a file"


def test_changed_setting_of_the_source_folder_is_no_new_release(yard: Yard) -> None:
    """With `build: .`, the stack file and the dotenv file are beside the source."""
    path = yard.where.folder / "lapwing.yaml"

    def deploy(mode: str, more: str = "") -> tuple[str, list[int]]:
        yard.stack(more="environments: {local: {" + more + "services: {app: {env_file: app.env}}}}")
        path.write_text(path.read_text().replace("./app", ".").replace("app.py", "app/app.py"))
        yard.where.write({"app.env": f"MODE={mode}\n", "requirements.txt": "# Nothing\n"})
        yard.where.run("deploy")
        assert yard.get("/env?MODE").text == mode
        [active] = [g for g in yard.memory().generations if g.role == "active"]
        return active.spec.release, [replica.pid for replica in active.replicas]

    release, processes = deploy("first")
    assert deploy("first", "access: {allow: [127.0.0.0/8]}, ") == (release, processes)
    changed = deploy("second")
    assert changed[0] == release
    assert changed[1] != processes
