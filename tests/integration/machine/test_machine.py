"""What is wrong with the machine or the folder: said in words, with nothing half done."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.installation import Installation, installation
from tests.needs import require

from .conftest import NAME, Yard

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("machine")]


def test_the_port_is_taken(tmp_path: Path) -> None:
    with installation(tmp_path) as where:
        yard = Yard(where)
        yard.stack()
        yard.write("first")
        with socket.create_server(("127.0.0.1", where.port)):
            said = where.run("up", status=1).stderr
            assert f"Port {where.port} is taken by python" in said.replace("python3", "python")
            assert f"(process {os.getpid()})" in said
            assert "LAPWING_PORT" in said
            assert "WRONG  port" in where.run("doctor", status=1).stdout
        where.run("up")
        assert yard.get().text == "first"


def test_a_port_that_is_none(tmp_path: Path) -> None:
    where = Installation(tmp_path, LAPWING_PORT="eighty")
    said = where.run("status", status=2).stderr
    assert "LAPWING_PORT is 'eighty', which is not a port number" in said


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 64 MiB."""
    require("tmpfs")
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "lapwing-test", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_the_disk_is_full(small_disk: Path, tmp_path: Path) -> None:
    with installation(tmp_path, LAPWING_HOME=str(small_disk / "home")) as where:
        where.home = small_disk / "home"
        yard = Yard(where)
        yard.stack()
        yard.write("first")
        where.run("up")
        filler = small_disk / "filler"
        with contextlib.suppress(OSError), filler.open("wb") as file:
            while True:
                file.write(bytes(1 << 20))
                file.flush()
        with contextlib.suppress(OSError), filler.open("ab", buffering=0) as file:
            while True:
                file.write(bytes(512))
        yard.write("second")
        said = where.run("deploy", status=1).stderr
        assert "full" in said or "No space" in said
        assert "Traceback" not in said
        assert yard.get().text == "first"
        filler.unlink()
        where.run("deploy")
        assert yard.get().text == "second"


def test_not_a_git_repository(tmp_path: Path) -> None:
    import shutil

    with installation(tmp_path) as where:
        yard = Yard(where)
        yard.stack()
        yard.write("first")
        shutil.rmtree(where.folder / ".git")
        done = where.call("up")
        assert "Traceback" not in done.stderr
        if done.returncode != 0:
            assert "git" in done.stderr
        else:
            assert yard.get().text == "first"


class TestWhileItServes:
    """A stack that serves, and a folder that is not as it should be."""

    def test_changes_that_are_not_committed_go_to_local_and_are_marked(self, yard: Yard) -> None:
        yard.good("committed")
        (yard.where.folder / "app" / "VERSION").write_text("changed")
        yard.where.run("deploy")
        assert yard.get().text == "changed"
        assert yard.service()["active"]["revision"].endswith("-dirty")
        assert yard.where.json("history")[0]["services"]["app"]["revision"].endswith("-dirty")

    def test_and_go_nowhere_else(self, yard: Yard) -> None:
        yard.stack(more="environments: {staging: {}}")
        yard.write("clean")
        (yard.where.folder / "app" / "VERSION").write_text("dirty")
        said = yard.where.run("deploy", "-e", "staging", status=2).stderr
        assert "not committed" in said
        assert yard.get().text != "dirty"
        yard.good("clean again")

    def test_a_broken_stack_file_changes_nothing(self, yard: Yard) -> None:
        yard.good("steady")
        commits = len(yard.where.json("history", "-n", "500"))
        path = yard.where.folder / "lapwing.yaml"
        text = path.read_text()
        path.write_text(text.replace("replicas: 2", "replicas: two"))
        said = yard.where.run("deploy", status=2).stderr
        assert "lapwing.yaml:9:15: error" in said
        path.write_text(text.replace("health:", "helth:"))
        said = yard.where.run("deploy", status=2).stderr
        assert "Did you mean `health`" in said
        path.write_text(text)
        assert len(yard.where.json("history", "-n", "500")) == commits
        assert yard.get().text == "steady"

    def test_a_folder_without_a_stack(self, yard: Yard, tmp_path: Path) -> None:
        for verb in ("status", "deploy", "up", "down", "history", "logs", "verify", "check"):
            done = yard.where.run("-C", str(tmp_path), verb, status=2)
            assert "There is no lapwing.yaml" in done.stderr

    def test_two_stacks_in_one_home(self, yard: Yard) -> None:
        yard.good("one of two")
        assert yard.get(host="localhost").text == "one of two"
        other = Yard(yard.where.beside("other"), "other")
        other.stack()
        other.write("two of two")
        other.where.run("up")
        assert other.get().text == "two of two"
        assert yard.get().text == "one of two"
        answer = yard.get(host="localhost")
        assert answer.status_code == 404
        assert "lapwing status" in answer.text
        other.where.run("down")
        yard.until(lambda: yard.get(host="localhost").status_code == 200)
        assert yard.get(host=f"{NAME}.localhost").text == "one of two"

    def test_a_memory_that_is_garbage_comes_back(self, yard: Yard) -> None:
        """From the desired state. Who was started is forgotten, so it is started again: the one
        fault here that clients notice, for as long as that takes."""
        yard.good("newer")
        yard.where.run("agent", "stop")
        (yard.environment / "state.json").write_bytes(b"\x00garbage")
        yard.where.run("agent", "start")
        yard.until(lambda: yard.status()["services"] and yard.service()["phase"] == "running")
        assert yard.get().text == "newer"
        assert list(yard.environment.glob("state.damaged-*"))
