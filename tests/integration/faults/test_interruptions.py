"""Ctrl-C at any time: before the commit nothing has changed, after it the deployment goes on."""

from __future__ import annotations

import signal
import subprocess
import time

import pytest

from tests.installation import LAPWING

from .conftest import Yard

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.xdist_group("interruptions"),
    pytest.mark.usefixtures("unnoticed"),
]
SLOW_BUILD = """
[build-system]
requires = []
build-backend = "slow"
backend-path = ["."]
[project]
name = "slow"
version = "1"
"""


def interrupted(yard: Yard, after: float) -> tuple[int, str]:
    """A deployment with Ctrl-C some seconds after it began; its exit status and words."""
    process = subprocess.Popen(
        [LAPWING, "deploy"],
        cwd=yard.where.folder,
        env=yard.where.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    return process.returncode, said


@pytest.mark.parametrize("after", [0.02, 0.2, 0.4, 0.6, 0.8, 1.2, 1.8])
def test_ctrl_c(yard: Yard, after: float) -> None:
    yard.good(f"whole before {after}")
    before = yard.released()
    commits = len(yard.where.json("history", "-n", "500"))
    yard.write(f"new after {after}", late=1)
    status, said = interrupted(yard, after)
    assert "Traceback" not in said
    committed = len(yard.where.json("history", "-n", "500")) > commits
    if "Detached" in said:
        assert status == 130
        assert committed
    elif not committed:
        assert status in (130, -signal.SIGINT), said
        assert yard.released() == before
        return
    yard.until(lambda: yard.status()["rollout"] is None and yard.released() == yard.wanted())
    assert yard.get().text == f"new after {after}"


def test_a_build_that_hangs_is_ended(yard: Yard) -> None:
    yard.stack()
    path = yard.where.folder / "lapwing.yaml"
    slow = "build: {path: ./app, timeout: 2s}"
    path.write_text(path.read_text().replace("build: ./app", slow))
    yard.write("hanging")
    yard.where.write({"app/pyproject.toml": SLOW_BUILD, "app/slow.py": "while True: pass\n"})
    said = yard.where.run("deploy", status=1).stderr
    assert "2 s" in said
    assert "whole log" in said
    yard.where.git("rm", "-q", "app/pyproject.toml", "app/slow.py")
    yard.good("after the hanging one")
