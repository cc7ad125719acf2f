"""`lapwing run`: a one-off command with a service's files, settings, secrets and terminal."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from lapwing.agent import process_tree, processes
from lapwing.observed import agent as observed
from tests.deployed import PATIENCE, Deployed, until
from tests.installation import LAPWING, Installation, installation
from tests.terminal import terminal

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("run")]
STACK = """
stack: shop
services:
  app:
    build: ./app
    command: python app.py
    route: /
    health: /health
    env: {GREETING: "good day"}
    secrets: [TOKEN]
    volumes: {data: ./kept}
    rollout: {analysis: false, stop_grace: 1s}
  pages: {build: ./pages, static: ., route: /pages}
"""
SECRET = "only-for-the-environment"


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation(tmp_path_factory.mktemp("run")) as made:
        app = Path(__file__).with_name("app.py").read_text()
        made.write(
            {
                "lapwing.yaml": STACK,
                "app/app.py": app,
                "app/VERSION": "v1",
                "app/knobs.json": "{}",
                "app/requirements.txt": "# The standard library is enough.\n",
                "pages/index.html": "<p>pages</p>",
            }
        )
        subprocess.run(
            [LAPWING, "secret", "set", "TOKEN"], cwd=made.folder, env=made.environ,
            input=SECRET, text=True, check=True,
        )  # fmt: skip
        made.run("up")
        yield made


def begin(where: Installation, *command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [LAPWING, "run", *command],
        cwd=where.folder,
        env=where.environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def one_offs(where: Installation) -> list[int]:
    return [i.pid for i, owner in process_tree.owned(where.home) if "/run-" in owner]


def test_command_has_what_the_service_has(where: Installation) -> None:
    shown = "echo $GREETING $TOKEN $LAPWING_SERVICE $(cat VERSION) ${PORT-none} $HOME"
    done = where.run("run", "app", shown)
    words, _, home = done.stdout.strip().rpartition(" ")
    assert words == f"good day {SECRET} app v1 none"
    assert done.stderr == ""
    assert not Path(home).exists(), "the home folder of the command is removed"
    written = where.run("run", "app", "--", "python", "-c", "open('kept/a', 'w').write('kept')")
    assert written.stdout == ""
    volume = where.home / "data" / "shop" / "local" / "volume.data"
    assert "kept" in [p.read_text() for p in volume.rglob("*") if p.is_file()]


def test_arguments_and_status_are_those_of_the_command(where: Installation) -> None:
    code = "import sys; print(sys.argv[1:]); sys.exit(7)"
    words = ["python", "-c", code, "-e", "$HOME", "a b", "--", "--output"]
    assert where.run("run", "app", "-e", "local", *words, status=7).stdout == (
        "['-e', '$HOME', 'a b', '--', '--output']\n"
    )
    assert where.run("run", "app", "kill -TERM $$", status=143).stdout == ""
    assert "nosuch" in where.run("run", "app", "nosuch", status=127).stderr


def test_standard_input_is_that_of_the_caller(where: Installation) -> None:
    process = begin(where, "app", "tr", "a-z", "A-Z")
    assert process.communicate("some text", timeout=PATIENCE)[0] == "SOME TEXT"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_is_forwarded(where: Installation, number: signal.Signals) -> None:
    process = begin(
        where, "app", f"trap 'echo got; exit 3' {number.name[3:]}; echo $TOKEN; sleep 99 & wait"
    )
    assert line(process) == SECRET
    process.send_signal(number)
    assert (line(process), process.wait(PATIENCE)) == ("got", 3)
    until(lambda: not one_offs(where), "the end of what the command started")


def test_secret_is_in_no_argument(where: Installation) -> None:
    process = begin(where, "app", "echo $$; cat")
    command = psutil.Process(int(line(process)))
    family = [command, *command.parents()]
    assert not any(SECRET in " ".join(p.cmdline()) for p in family)
    process.communicate(timeout=PATIENCE)


def test_command_is_no_replica_and_outlives_a_restart_of_the_agent(where: Installation) -> None:
    process = begin(where, "app", "echo $$; cat; echo ended")
    pid = int(line(process))
    shown = where.json("status")["services"][0]["active"]
    assert (shown["replicas"], shown["ready"]) == (1, 1)
    assert pid not in shown["pids"]
    before = observed.holder(where.home / "agent")
    assert before is not None
    os.kill(before, signal.SIGKILL)
    until(lambda: processes.started(before) is None, "the end of the agent")
    where.run("agent", "start")
    until(lambda: Deployed(where, "shop").get("/health").status_code == 200)
    where.write({"app/VERSION": "v2"})
    where.run("deploy")  # Also after another release is active, and its home folder was prepared.
    assert processes.started(pid) is not None
    assert process.communicate(timeout=PATIENCE)[0] == "ended\n"


def test_command_of_a_killed_caller_ends(where: Installation) -> None:
    process = begin(where, "app", "python -c 'import time; print(1, flush=True); time.sleep(999)'")
    assert line(process) == "1"
    process.kill()
    process.communicate(timeout=PATIENCE)
    until(lambda: not one_offs(where), "the end of the command")


def test_what_the_command_of_a_killed_caller_started_is_stopped_by_the_agent(
    where: Installation,
) -> None:
    """The process is in a separate session, so neither kernel nor caller can signal it."""
    child = "trap 'echo stopped >kept/child; exit 0' TERM; echo began; sleep 999 & wait"
    process = begin(where, "app", f"setsid sh -c {shlex.quote(child)} & wait")
    assert line(process) == "began"
    os.killpg(process.pid, signal.SIGKILL)
    until(lambda: not one_offs(where), "the end of what the command started")
    kept = where.home / "data" / "shop" / "local" / "volume.data"
    assert [p.read_text() for p in kept.rglob("child")] == ["stopped\n"]
    homes = where.home / "environments" / "shop" / "local" / "homes"
    until(lambda: not [*homes.glob("*/run-*")], "the removal of the home folder of the command")


def test_terminal_is_that_of_the_caller(where: Installation) -> None:
    """The command reads the terminal, and Ctrl-C interrupts the command, not `lapwing run`."""
    code = """
import os, signal, sys
signal.signal(signal.SIGINT, lambda *_: print("interrupted", flush=True))
print("tty", os.isatty(0), flush=True)
print("read", sys.stdin.readline(), flush=True)
sys.exit(5)
"""
    arguments = [str(LAPWING), "run", "app", "python", "-c", code]
    with terminal(arguments, where.folder, where.environ) as shell:
        shell.shows(b"tty True")
        shell.type(b"\x03")
        shell.shows(b"interrupted")
        shell.type(b"abc\n")
        shell.shows(b"read abc")
        assert shell.wait() == 5


def test_log_without_lines_is_no_error(where: Installation) -> None:
    done = where.run("logs", "pages")
    assert done.stdout == ""
    assert "pages has printed nothing" in done.stderr


def test_unsupported_services_are_refused(where: Installation) -> None:
    said = where.run("run", "pages", "ls", status=2).stderr
    assert "pages is static" in said
    said = where.run("run", "ap", "ls", status=2).stderr
    assert "Did you mean" in said
    assert "COMMAND" in where.run("run", "app", status=2).stderr


def test_down_ends_the_command(where: Installation) -> None:
    process = begin(where, "app", "trap 'echo stopped; exit 0' TERM; echo began; sleep 99 & wait")
    assert line(process) == "began"
    where.run("down")
    assert process.communicate(timeout=PATIENCE)[0] == "stopped\n"
    assert not one_offs(where)
    said = where.run("run", "app", "ls", status=1).stderr
    assert "shop/local is not running" in said
    assert "lapwing up" in said
