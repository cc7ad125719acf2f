"""The desired state is rewritten, deleted, damaged: what runs goes on, `status` and `doctor` say
what is wrong, and it can be mended without a request failing."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import pytest

from lapwing.agent import processes
from lapwing.desired.git_objects import BRANCH
from lapwing.load.record import now
from tests.deployed import until
from tests.installation import LAPWING
from tests.integration.faults.ship import Ship, Watchers

pytestmark = pytest.mark.xdist_group("faults-desired")


def git(ship: Ship, *arguments: str) -> str:
    """Do something to the desired state behind everybody's back."""
    return ship.repository.git.text(*arguments)


def tree_of(ship: Ship, text: bytes) -> str:
    """A tree in which the document of this stack is `text`."""
    blob = ship.repository.git.text("hash-object", "-w", "--stdin", given=text)
    tree = f"100644 blob {blob}\tdocument.json\n"
    for name in ("local", ship.name):
        made = ship.repository.git.text("mktree", given=tree.encode())
        tree = f"040000 tree {made}\t{name}\n"
    return ship.repository.git.text("mktree", given=tree.encode())


def doctor(ship: Ship, *arguments: str, status: int) -> dict[str, Any]:
    """What the doctor says of the desired state."""
    done = subprocess.run(
        [LAPWING, "doctor", *arguments, "--output", "json"],
        cwd=ship.where.folder, env=ship.where.environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = {f["check"]: f for f in json.loads(done.stdout)}
    others = [n for n, f in found.items() if not f["ok"] and n not in ("desired state", "disk")]
    assert others == []
    assert found["desired state"]["ok"] is (status == 0), done.stdout + done.stderr
    verdict: dict[str, Any] = found["desired state"]
    return verdict


def problem(ship: Ship) -> str:
    """What the status says is wrong, once it says so."""
    found: str = until(lambda: ship.status()["problem"], "a word in the status")
    assert ship.where.run("status", status=1).stdout.count("Problem: ") == 1
    return found


def mend(ship: Ship) -> None:
    """`doctor --repair`, after which everything is whole, with the processes that there were."""
    before = ship.pids("active")
    doctor(ship, "--repair", status=0)
    until(lambda: ship.status()["problem"] is None, "the end of the problem")
    ship.whole()
    assert ship.pids("active") == before
    ship.deploy()
    ship.whole()


def test_force_push_to_an_older_commit_is_followed(ship: Ship, watched: Watchers) -> None:
    older, old = ship.version, ship.pids("active")
    target = ship.repository.head()
    ship.deploy()
    newer = ship.repository.head()
    assert target is not None
    assert newer is not None
    git(ship, "update-ref", BRANCH, target)
    until(lambda: ship.pids("active") == old, "the older release")
    ship.version = older
    until(lambda: ship.status()["rollout"] is None)
    ship.whole()
    assert git(ship, "rev-parse", f"refs/lapwing/rewritten/{newer[:12]}") == newer
    events = ship.where.settings.environment(ship.name, "local") / "events.jsonl"
    assert "The history of the desired state was rewritten" in events.read_text()
    ship.deploy()
    ship.whole()


def test_force_push_to_nothing_is_reported_and_repaired(ship: Ship, watched: Watchers) -> None:
    before = ship.pids("active")
    empty = ship.repository.git.text("mktree", given=b"")
    git(ship, "update-ref", BRANCH, git(ship, "commit-tree", empty, "-m", "Nothing"))
    assert "no longer has a document for faults/local" in problem(ship)
    assert "faults/local" in doctor(ship, status=1)["seen"]
    assert ship.pids("active") == before
    mend(ship)


def test_deleted_branch_is_reported(ship: Ship, watched: Watchers) -> None:
    git(ship, "update-ref", "-d", BRANCH)
    assert "has no branch `main`" in problem(ship)
    assert "main" in doctor(ship, status=1)["seen"]
    mend(ship)


def test_invalid_document_is_reported(ship: Ship, watched: Watchers) -> None:
    before = ship.pids("active")
    head = ship.repository.head()
    assert head is not None
    tree = tree_of(ship, b'{"format": 1, "services": "none"}')
    git(ship, "update-ref", BRANCH, git(ship, "commit-tree", tree, "-p", head, "-m", "By hand"))
    assert "is invalid" in problem(ship)
    assert "is invalid" in doctor(ship, status=1)["seen"]
    assert ship.pids("active") == before
    # Its hint says that a deployment puts it right; the history shows it and goes on.
    ship.deploy()
    ship.whole()
    assert [e["outcome"] for e in ship.history()[:1]] == ["succeeded"]
    before = ship.version
    ship.deploy()
    ship.where.run("rollback")
    ship.version = before
    ship.whole()


def test_missing_git_objects_are_repaired(ship: Ship, watched: Watchers) -> None:
    shutil.rmtree(ship.where.settings.desired / "objects")
    (ship.where.settings.desired / "objects").mkdir()
    assert doctor(ship, status=1)["seen"]
    ship.next()
    said = ship.where.run("deploy", status=1).stderr
    assert "Traceback" not in said
    assert "`lapwing doctor`" in said
    mend(ship)


def test_invalid_repository_is_reported(ship: Ship, watched: Watchers) -> None:
    desired = ship.where.settings.desired
    shutil.rmtree(desired)
    desired.write_text("no repository\n")
    ship.next()
    said = ship.where.run("deploy", status=1).stderr
    assert "Traceback" not in said
    assert doctor(ship, status=1)["seen"]
    mend(ship)


def test_damaged_state_is_restored_from_its_copy(ship: Ship, watched: Watchers) -> None:
    before = ship.pids("active")
    folder = ship.where.settings.environment(ship.name, "local")
    ship.where.run("agent", "stop")
    (folder / "state.json").write_bytes(b'{"garbage')
    ship.where.run("agent", "start")
    until(lambda: ship.status()["agent"]["running"])
    ship.whole()
    assert ship.pids("active") == before
    assert list(folder.glob("state.damaged-*.json"))
    ship.deploy()
    ship.whole()


def test_missing_state_is_rebuilt(ship: Ship, clients: Watchers) -> None:
    """With both copies of the memory gone nobody can say which process is what: everything is
    started again from the desired state, and nothing is left over."""
    folder = ship.where.settings.environment(ship.name, "local")
    old = ship.pids("active")
    ship.where.run("agent", "stop")
    for copy in folder.glob("state*.json"):
        copy.write_bytes(b"garbage")
    began = now()
    ship.where.run("agent", "start")
    until(
        lambda: (
            (status := ship.status())["rollout"] is None
            and [service["phase"] for service in status["services"]] == ["running"]
        )
    )
    ship.whole()
    until(lambda: ship.version in clients.answered(began))
    assert not any(processes.started(p) for p in old)
