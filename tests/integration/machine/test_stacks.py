"""Two stacks in one home, and folders that hold none."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deployed import until
from tests.installation import Installation

from .conftest import NAME, Yard

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("stacks")]


def test_invalid_port_is_reported(tmp_path: Path) -> None:
    where = Installation(tmp_path, LAPWING_PORT="eighty")
    said = where.run("status", status=2).stderr
    assert "LAPWING_PORT is 'eighty', which is not a port number" in said


def test_folder_without_a_stack_file_is_reported(yard: Yard, tmp_path: Path) -> None:
    for verb in ("status", "deploy", "up", "down", "history", "logs", "verify", "check"):
        done = yard.where.run("-C", str(tmp_path), verb, status=2)
        assert "No lapwing.yaml found in" in done.stderr


def test_same_stack_name_in_another_folder_is_refused(yard: Yard) -> None:
    yard.good("the first")
    other = Yard(yard.where.beside("copy"), NAME)
    other.stack()
    other.write("the second")
    for arguments in (["up"], ["deploy"], ["rollback"], ["down"], ["deploy", "--dry-run"]):
        refused = other.where.run(*arguments, status=1)
        assert str(yard.where.folder) in refused.stderr
        assert str(other.where.folder) in refused.stderr
        assert "building" not in refused.stderr
    assert yard.get().text == "the first"
    moved = (yard.where.folder / "lapwing.yaml").rename(yard.where.folder / "moved.yaml")
    other.where.run("deploy")
    assert yard.get().text == "the second"
    moved.rename(yard.where.folder / "lapwing.yaml")
    assert str(other.where.folder) in yard.where.run("deploy", status=1).stderr
    other.where.run("down")
    yard.where.run("up")
    assert yard.get().text == "the first"


def test_two_stacks_in_one_home(yard: Yard) -> None:
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
    assert "there is no site with this host name" in answer.text
    listed = yard.where.json("status", "--all")["environments"]
    assert [(e["stack"], e["state"], e["folder"]) for e in listed] == [
        (NAME, "running", str(yard.where.folder)),
        ("other", "running", str(other.where.folder)),
    ]
    assert {e["url"] for e in listed} == {yard.status()["url"], other.status()["url"]}
    other.where.run("down")
    nowhere = yard.where.run("-C", "/", "status", "--all").stdout.splitlines()
    assert [line.split()[:3] for line in nowhere[1:]] == [
        [NAME, "local", "running"],
        ["other", "local", "stopped"],
    ]
    refused = Yard(yard.where.beside("refused"), "refused")
    refused.stack()
    refused.write("never ran", exit=1)
    refused.where.run("up", status=1)
    until(lambda: not refused.status()["running"], "the end of its processes")
    listed = yard.where.json("status", "--all")["environments"]
    assert [e["stack"] for e in listed] == [NAME, "other"]
    until(lambda: yard.get(host="localhost").status_code == 200)
    assert yard.get(host=f"{NAME}.localhost").text == "one of two"
