"""What the repository tells of damage, and how it begins anew: nothing is ever deleted."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from lapwing.agent import state
from lapwing.agent.state import EnvironmentState
from lapwing.commands import doctor
from lapwing.desired.history import history
from lapwing.desired.recovery import restore_references
from lapwing.desired.repository import DesiredRepository
from lapwing.errors import DesiredStateError
from lapwing.plan.model import Deployment
from lapwing.settings import Settings
from tests.unit.agent.samples import document, service


@pytest.fixture(scope="module")
def pattern(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with three deployments."""
    made = DesiredRepository(tmp_path_factory.mktemp("pattern") / "desired.git")
    newest = None
    for number in (1, 2, 3):
        newest = made.commit(document(api=service(f"api-{number}")), expected=newest)
        made.record_outcome(newest, "succeeded")
    return made.path


@pytest.fixture
def repository(pattern: Path, tmp_path: Path) -> DesiredRepository:
    """A copy of it, to be damaged."""
    shutil.copytree(pattern, tmp_path / "desired.git")
    return DesiredRepository(tmp_path / "desired.git")


def no_objects(repository: DesiredRepository) -> None:
    shutil.rmtree(repository.path / "objects")
    (repository.path / "objects").mkdir()


def one_object(repository: DesiredRepository) -> None:
    path = repository.git.text("rev-parse", "HEAD:shop/local/document.json")
    (repository.path / "objects" / path[:2] / path[2:]).unlink()


def garbled_object(repository: DesiredRepository) -> None:
    head = repository.head()
    assert head is not None
    path = repository.path / "objects" / head[:2] / head[2:]
    path.chmod(0o600)
    path.write_bytes(b"\0garbage")


def no_head(repository: DesiredRepository) -> None:
    (repository.path / "HEAD").unlink()


def branch_to_nowhere(repository: DesiredRepository) -> None:
    (repository.path / "refs" / "heads" / "main").write_text("0" * 39 + "1\n")


def branch_of_garbage(repository: DesiredRepository) -> None:
    (repository.path / "refs" / "heads" / "main").write_bytes(b"\xff\0oops\n")


def empty_branch(repository: DesiredRepository) -> None:
    (repository.path / "refs" / "heads" / "main").write_bytes(b"")


DAMAGES = (
    no_objects,
    one_object,
    garbled_object,
    no_head,
    branch_to_nowhere,
    branch_of_garbage,
    empty_branch,
)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda d: d.__name__)
def test_damage_is_told_and_mended(
    repository: DesiredRepository, damage: Callable[[DesiredRepository], None]
) -> None:
    running = repository.read("shop", "local")
    assert running is not None
    assert repository.verify() == []
    damage(repository)
    assert repository.verify() != []
    before = sorted(p.relative_to(repository.path) for p in repository.path.rglob("*"))
    aside = repository.recover([running])
    assert aside is not None
    assert sorted(p.relative_to(aside) for p in aside.rglob("*")) == before
    assert repository.verify() == []
    assert repository.read("shop", "local") == running


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda d: d.__name__)
def test_damage_is_an_error_in_words_for_whoever_reads_or_writes(
    repository: DesiredRepository, damage: Callable[[DesiredRepository], None]
) -> None:
    """Reading may answer that nothing is there, where the branch is empty; nothing else but
    DesiredStateError comes out, and a write never makes it worse than it is."""
    damage(repository)
    acts: list[Callable[[], object]] = [
        repository.head,
        lambda: repository.read("shop", "local"),
        repository.environments,
        lambda: repository.newest("shop", "local"),
        lambda: history(repository, "shop", "local"),
        lambda: repository.commit(document(api=service("api-4")), expected="0" * 40),
    ]
    hints = []
    for act in acts:
        try:
            act()
        except DesiredStateError as error:
            hints.append(error.hint)
    assert hints, "the write at least is refused"
    assert all(hints)


def no_branch(repository: DesiredRepository) -> None:
    (repository.path / "refs" / "heads" / "main").unlink()


def empty_notes(repository: DesiredRepository) -> None:
    (repository.path / "refs" / "notes" / "lapwing").write_bytes(b"")


@pytest.mark.parametrize(
    ("damage", "restored"),
    [
        (empty_branch, ["refs/heads/main"]),
        (branch_of_garbage, ["refs/heads/main"]),
        (branch_to_nowhere, ["refs/heads/main"]),
        (no_branch, ["refs/heads/main"]),
        (empty_notes, ["refs/notes/lapwing"]),
        (no_head, []),
    ],
)
def test_references_are_restored_from_the_commits(
    repository: DesiredRepository,
    damage: Callable[[DesiredRepository], None],
    restored: list[str],
) -> None:
    """The whole history and its outcomes are there again, not only what runs."""
    before, head = history(repository, "shop", "local"), repository.head()
    damage(repository)
    assert restore_references(repository) == restored
    assert repository.head() == head
    assert repository.verify() == []
    assert history(repository, "shop", "local") == before
    assert restore_references(repository) == []


def test_branch_is_restored_to_the_newest_whole_commit(repository: DesiredRepository) -> None:
    """The power failed while the last commit was written."""
    entries = history(repository, "shop", "local")
    one_object(repository)
    empty_branch(repository)
    assert restore_references(repository) == ["refs/heads/main"]
    assert repository.head() == entries[1].commit


def test_packed_reference_is_not_taken_for_the_newest(repository: DesiredRepository) -> None:
    repository.git.text("pack-refs", "--all")
    newest = repository.commit(document(api=service("api-4")), expected=repository.head())
    empty_branch(repository)
    assert restore_references(repository) == ["refs/heads/main"]
    assert repository.head() == newest


def test_doctor_commits_again_what_the_restored_branch_lacks(repository: DesiredRepository) -> None:
    """The newest commit is incomplete, and it is the one that runs."""
    home = repository.path.parent
    running = repository.read("shop", "local")
    memory = EnvironmentState(
        stack="shop", environment="local", commit=repository.head(), document=running
    )
    state.save(Settings(home=home).environment("shop", "local"), memory)
    one_object(repository)
    empty_branch(repository)
    assert doctor.repair(Settings(home=home)) == [
        "restored refs/heads/main from its commits",
        "committed the running state of shop/local again",
    ]
    assert repository.read("shop", "local") == running
    assert len(history(repository, "shop", "local")) == 3


def test_doctor_keeps_a_repository_that_it_can_repair(repository: DesiredRepository) -> None:
    empty_branch(repository)
    done = doctor.repair(Settings(home=repository.path.parent))
    assert done == ["restored refs/heads/main from its commits"]
    assert [p.name for p in repository.path.parent.iterdir()] == ["desired.git"]


def test_something_else_in_its_place(tmp_path: Path) -> None:
    place = tmp_path / "desired.git"
    place.mkdir()
    (place / "precious.txt").write_text("mine")
    repository = DesiredRepository(place)
    with pytest.raises(DesiredStateError, match="not a git repository"):
        repository.ensure()
    aside = repository.recover([document(api=service("api-1"))])
    assert aside is not None
    assert (aside / "precious.txt").read_text() == "mine"
    assert repository.environments() == [("shop", "local")]


def test_a_rewritten_history_is_told_from_a_longer_one(repository: DesiredRepository) -> None:
    head = repository.head()
    assert head is not None
    newer = repository.commit(document(api=service("api-4")), expected=head)
    assert repository.is_descendant(newer, head)
    assert not repository.is_descendant(head, newer)
    assert not repository.is_descendant("1" * 40, head)
    repository.pin(newer, "rewritten/here")
    repository.git.text("update-ref", "refs/heads/main", head)
    repository.git.text("reflog", "expire", "--expire=now", "--all")
    repository.git.text("gc", "--quiet", "--prune=now")
    assert repository.read("shop", "local", newer) is not None, "what is kept outlives gc"


def test_packing_loses_nothing_and_is_read_as_before(
    repository: DesiredRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = history(repository, "shop", "local")
    head, traces = repository.head(), repository.fingerprint()
    repository.maintain()
    assert repository.fingerprint() == traces, "three deployments are not worth it"
    monkeypatch.setattr("lapwing.desired.repository.LOOSE_OBJECTS", 1)
    repository.maintain()
    assert repository.git.text("count-objects") == "0 objects, 0 kilobytes"
    assert not (repository.path / "refs" / "heads" / "main").exists()
    assert repository.head() == head
    assert history(repository, "shop", "local") == before
    repository.commit(document(api=service("api-4")), expected=head)
    assert len(history(repository, "shop", "local")) == 4


def test_nobody_can_forge_an_outcome_or_an_actor(repository: DesiredRepository) -> None:
    """Names and reasons come from outside: they stay on their line, in the commit and its note."""
    evil = "x\n\nLapwing-Actor: root\nLapwing-Kind: rollback\n\0\x1b[31m"
    act = Deployment(actor=evil, reason=evil, revision=evil)
    wanted = msgspec.structs.replace(document(api=service("api-4", revision=evil)), deployment=act)
    commit = repository.commit(wanted, expected=repository.head())
    repository.record_outcome(commit, "failed", "succeeded\nsucceeded\x1b[0m\nfatal: x")
    [entry] = history(repository, "shop", "local", limit=1)
    assert entry.kind == "deploy"
    assert entry.actor.startswith("x Lapwing-Actor: root")
    assert entry.outcome == "failed"
    assert entry.reason is not None
    assert "\x1b" not in entry.actor + entry.message + entry.reason
    assert "\n" not in entry.actor + entry.reason
    author = repository.git.text("log", "-1", "--format=%an|%ae", commit)
    assert "\x1b" not in author
    assert author.endswith("|lapwing@localhost")
    assert repository.read("shop", "local") == wanted
    assert repository.verify() == []


def test_the_configuration_of_the_user_has_no_say(
    repository: DesiredRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hooks, signing, another branch name, variables that point git elsewhere."""
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    for name in ("reference-transaction", "post-update", "pre-receive"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\nexit 1\n")
        (hooks / name).chmod(0o755)
    config = tmp_path / "gitconfig"
    config.write_text(
        f"[core]\nhooksPath = {hooks}\n[commit]\ngpgsign = true\n[init]\ndefaultBranch = odd\n"
        "[gc]\nauto = 1\n[user]\nname = Somebody\n"
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(tmp_path / "elsewhere"))
    commit = repository.commit(document(api=service("api-4")), expected=repository.head())
    repository.record_outcome(commit, "succeeded")
    fresh = DesiredRepository(tmp_path / "fresh.git")
    fresh.commit(document(api=service("api-1")), expected=None)
    assert fresh.head() is not None
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "elsewhere").exists()
    assert repository.git.text("log", "-1", "--format=%cn") == "Lapwing"
