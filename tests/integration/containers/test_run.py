"""`lapwing run` in a service that runs in containers: a container with its settings and limits."""

from __future__ import annotations

import json
import signal
import subprocess

import pytest

from tests.deployed import PATIENCE, until
from tests.installation import LAPWING
from tests.integration.faults.ship import STACK
from tests.integration.image.docker import Docker
from tests.terminal import terminal

from .conftest import ContainerShip

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("containers")]
LIMITED = STACK.replace("replicas: 2\n", "replicas: 1\n    resources: {memory: 128Mi}\n")
READING = """
import os, signal, sys
signal.signal(signal.SIGINT, lambda *_: print("interrupted", flush=True))
signal.signal(signal.SIGWINCH, lambda *_: print(*os.get_terminal_size(), flush=True))
print("tty", os.isatty(0), *os.get_terminal_size(), flush=True)
print("read", sys.stdin.readline(), flush=True)
sys.exit(5)
"""
WAITING = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (print("got", flush=True), sys.exit(3)))
print("began", flush=True)
time.sleep(999)
"""


@pytest.fixture(scope="module")
def limited(ship: ContainerShip) -> ContainerShip:
    """The stack with a memory limit."""
    ship.stack(LIMITED)
    ship.deploy()
    return ship


def begin(ship: ContainerShip, code: str) -> subprocess.Popen[str]:
    """Start Python in a one-off container, and wait until it prints `began`."""
    process = subprocess.Popen(
        [LAPWING, "run", "api", "python", "-c", code],
        cwd=ship.where.folder,
        env=ship.where.environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "began\n"
    return process


def one_offs(ship: ContainerShip, docker: Docker) -> list[str]:
    return [name for name in ship.containers(docker) if "-run-" in name]


def test_command_has_files_variables_and_volumes_of_the_service(
    limited: ContainerShip, docker: Docker
) -> None:
    shown = "echo $MARKS $LAPWING_SERVICE $(pwd); echo kept >/marks/run; echo no >&2"
    done = limited.where.run("run", "api", f"{shown}; exit 7", status=7)
    assert (done.stdout, done.stderr) == ("/marks api /app\n", "no\n")
    assert (limited.marks / "run").read_text() == "kept\n"
    assert one_offs(limited, docker) == []


def test_standard_input_is_that_of_the_caller(limited: ContainerShip) -> None:
    code = "import sys; print('began', flush=True); print(len(sys.stdin.read()))"
    assert begin(limited, code).communicate("x" * 1_000_000, timeout=PATIENCE)[0] == "1000000\n"


def test_container_has_the_limits_and_labels_of_a_replica(
    limited: ContainerShip, docker: Docker
) -> None:
    process = begin(limited, WAITING)
    [name] = one_offs(limited, docker)
    [found] = json.loads(docker("inspect", name))
    host = found["HostConfig"]
    assert (host["Memory"], host["ReadonlyRootfs"], host["CapDrop"]) == (2**27, True, ["ALL"])
    assert found["Config"]["Labels"]["dev.lapwing.owner"].startswith("faults/local/api/run-")
    shown = limited.where.json("status")["services"][0]["active"]
    assert (shown["replicas"], shown["ready"]) == (1, 1)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=PATIENCE)[0] == "got\n"
    assert process.returncode == 3
    assert one_offs(limited, docker) == []


def test_terminal_has_the_size_of_that_of_the_caller(limited: ContainerShip) -> None:
    """Keys reach the command, not `lapwing run`."""
    arguments = [str(LAPWING), "run", "api", "python", "-c", READING]
    sized = ["/bin/sh", "-c", 'stty rows 33 cols 77; exec "$@"', "sh", *arguments]
    with terminal(sized, limited.where.folder, limited.where.environ) as shell:
        shell.shows(b"tty True")
        shell.shows(b"77 33")
        shell.type(b"\x03")
        shell.shows(b"interrupted")
        shell.type(b"abc\n")
        shell.shows(b"read abc")
        assert shell.wait() == 5


def test_container_of_a_killed_caller_is_removed(limited: ContainerShip, docker: Docker) -> None:
    process = begin(limited, WAITING)
    process.kill()
    process.communicate(timeout=PATIENCE)
    until(lambda: not one_offs(limited, docker), "the removal of the container")
    homes = limited.environment / "homes"
    until(lambda: not [*homes.glob("*/run-*")], "the removal of the folder of the command")


def test_program_that_is_not_in_the_image_is_reported(
    limited: ContainerShip, docker: Docker
) -> None:
    said = limited.where.run("run", "api", "no-such-program", status=1).stderr
    assert "no-such-program" in said
    assert one_offs(limited, docker) == []


def test_down_ends_the_command(limited: ContainerShip, docker: Docker) -> None:
    process = begin(limited, WAITING)
    limited.where.run("down")
    assert process.communicate(timeout=PATIENCE)[0] == "got\n"
    until(lambda: not limited.containers(docker), "the removal of all containers")
