"""Which environments of branches are removed, and when there are too many."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import msgspec
import pytest

from lapwing.errors import AgentError, ServerError, SourceError, StateError, UsageError
from lapwing.server import branch_lock
from lapwing.settings import Settings
from lapwing.stack.branches import Branches
from lapwing.stack.load import StackFile
from lapwing.system import files
from lapwing.targets.base import (
    DeployRequest,
    DownRequest,
    EnvironmentRef,
    RollbackRequest,
    Silent,
)
from lapwing.targets.branch_environments import (
    BranchEnvironment,
    branches,
    check_checkout,
    check_disk,
    choose_room,
    gone,
    lock,
    remove,
    with_branches,
)
from lapwing.targets.branch_target import BranchTarget
from tests.installation import GIT

MIB = 2**20
ENTRIES = [
    BranchEnvironment(environment="preview_new", deployed=30, disk=10 * MIB),
    BranchEnvironment(environment="preview_old", deployed=10, disk=20 * MIB),
    BranchEnvironment(environment="preview_oldest", deployed=5, disk=30 * MIB),
]


def known(*existing: str) -> list[BranchEnvironment]:
    return with_branches(ENTRIES, "preview", existing)


def test_environment_of_a_missing_branch_is_gone() -> None:
    found = known("old", "main")
    assert {e.environment: (e.exists, e.branch) for e in found} == {
        "preview_new": (False, None),
        "preview_old": (True, "old"),
        "preview_oldest": (False, None),
    }
    assert [e.environment for e in gone(found)] == ["preview_oldest", "preview_new"]


def test_unknown_branches_are_never_gone() -> None:
    assert gone(ENTRIES) == []
    with pytest.raises(StateError):
        choose_room(ENTRIES, "preview_x", Branches(max=3))


def test_room_is_made_of_the_least_recently_deployed_gone_branch() -> None:
    limits = Branches(max=3)
    chosen = choose_room(known("oldest"), "preview_x", limits)
    assert chosen is not None
    assert chosen.environment == "preview_old"
    assert choose_room(known("oldest"), "preview_new", limits) is None
    assert choose_room(known("oldest"), "preview_x", Branches(max=4)) is None


def test_maximum_is_an_error_that_lists_the_environments() -> None:
    with pytest.raises(StateError) as caught:
        choose_room(known("new", "old", "oldest"), "preview_x", Branches(max=3))
    assert "3 environments of branches exist" in caught.value.message
    assert "preview_old  deployed" in str(caught.value.detail)
    assert "20 MiB" in str(caught.value.detail)
    assert "`lapwing down --gone -e preview`" in str(caught.value.hint)


def test_disk_limit_is_an_error_that_lists_the_environments() -> None:
    check_disk(ENTRIES, Branches(disk=61 * MIB), "preview_new")
    with pytest.raises(StateError, match="use 60 MiB of disk space; the limit is 60 MiB") as caught:
        check_disk(ENTRIES, Branches(disk=60 * MIB), "preview_new")
    assert "preview_oldest" in str(caught.value.detail)


def test_release_of_several_branches_uses_disk_space_once() -> None:
    entries = [
        msgspec.structs.replace(e, disk=e.disk + 50 * MIB, releases={"api/1": 50 * MIB})
        for e in ENTRIES
    ]
    check_disk(entries, Branches(disk=111 * MIB), "preview_new")
    with pytest.raises(StateError, match="use 110 MiB"):
        check_disk(entries, Branches(disk=110 * MIB), "preview_new")


def test_error_at_the_maximum_shows_why_branches_are_not_known() -> None:
    problem = SourceError("git ls-remote failed: authentication required.")
    with pytest.raises(StateError) as caught:
        choose_room(ENTRIES, "preview_x", Branches(max=3), problem)
    assert "authentication required" in str(caught.value.detail)


def test_files_that_cannot_be_removed_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = settings(tmp_path).data / "shop" / "preview_fix"
    folder.mkdir(parents=True)
    monkeypatch.setattr(files, "remove_tree", lambda _folder: None)  # As for another user's files.
    ref = EnvironmentRef("shop", "preview_fix")
    with pytest.raises(AgentError, match="Not all files of shop/preview_fix") as caught:
        remove(settings(tmp_path), ref, "a")
    assert caught.value.detail == str(folder)


def test_removal_and_deployment_wait_for_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a server, `lapwing receive` holds the lock of the command that it runs."""
    monkeypatch.setattr(branch_lock, "TIMEOUT_S", 0.0)
    (tmp_path / "lapwing.yaml").write_text("stack: shop\nenvironments: {preview: {branches: {}}}\n")
    ref = EnvironmentRef("shop", "preview_fix")
    file = StackFile(tmp_path / "lapwing.yaml")
    branch = BranchTarget(file, ref.environment, settings(tmp_path), Silent())
    with lock(settings(tmp_path), ref, removal=True):
        with pytest.raises(ServerError, match="still being removed"):
            branch.deploy(DeployRequest())
        with pytest.raises(ServerError, match="still being removed"):
            branch.rollback(RollbackRequest())
        with lock(dataclasses.replace(settings(tmp_path), server=True), ref, removal=True):
            pass
    with (
        lock(settings(tmp_path), ref, removal=False),
        pytest.raises(ServerError, match="still being deployed"),
    ):
        branch.down(DownRequest(volumes=True))


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=folder, env=ENVIRON, check=True, capture_output=True)


ENVIRON = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", **GIT}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone with the branches main and fix, which are pushed."""
    git(tmp_path, "init", "-q", "--bare", "-b", "main", "remote.git")
    git(tmp_path, "clone", "-q", "remote.git", "clone")
    folder = tmp_path / "clone"
    git(folder, "commit", "-q", "--allow-empty", "-m", "first")
    git(folder, "push", "-q", "-u", "origin", "main")
    git(folder, "switch", "-q", "-c", "fix")
    git(folder, "commit", "-q", "--allow-empty", "-m", "second")
    git(folder, "push", "-q", "-u", "origin", "fix")
    return folder


def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", environ=ENVIRON)


def test_branches_are_those_of_the_remote_and_new_local_ones(clone: Path, tmp_path: Path) -> None:
    assert sorted(branches(clone, settings(tmp_path))) == ["fix", "main"]
    git(tmp_path / "remote.git", "branch", "-D", "fix")
    git(clone, "switch", "-q", "-c", "not-pushed")
    git(clone, "switch", "-q", "-c", "tracks-main", "origin/main")
    assert sorted(branches(clone, settings(tmp_path))) == ["main", "not-pushed", "tracks-main"]


def test_unreadable_or_empty_remote_is_an_error(clone: Path, tmp_path: Path) -> None:
    git(clone, "remote", "set-url", "origin", str(tmp_path / "missing.git"))
    with pytest.raises(SourceError):
        branches(clone, settings(tmp_path))
    git(tmp_path, "init", "-q", "--bare", "missing.git")
    with pytest.raises(SourceError, match="No branch was found"):
        branches(clone, settings(tmp_path))


def test_checkout_of_another_branch_is_refused(clone: Path, tmp_path: Path) -> None:
    check_checkout(clone, "preview_fix", settings(tmp_path))
    with pytest.raises(UsageError, match="has branch fix checked out"):
        check_checkout(clone, "preview_main", settings(tmp_path))
    git(clone, "switch", "-q", "--detach", "origin/main")
    check_checkout(clone, "preview_main", settings(tmp_path))
    git(clone, "commit", "-q", "--allow-empty", "-m", "third")
    with pytest.raises(UsageError, match="has a detached commit checked out"):
        check_checkout(clone, "preview_main", settings(tmp_path))
