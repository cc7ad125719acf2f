"""What an SSH key may ask of a server."""

from __future__ import annotations

import functools
import shlex
import subprocess
from pathlib import Path

import pytest

from lapwing import server
from lapwing.errors import ServerError
from lapwing.server import branch_lock
from lapwing.server import receive as receive_module
from lapwing.server.receive import LIMITED, Limit, Request, check, encode, receive
from lapwing.server.source import Snapshot
from lapwing.settings import Settings

LIMIT = Limit("shop", "vps")


def request(*arguments: str, stack: str = "shop", environment: str = "vps") -> Request:
    return Request(arguments=list(arguments), stack=stack, environment=environment)


@pytest.mark.parametrize("verb", sorted(server.VERBS))
def test_key_of_a_person_may_run_every_verb(verb: str) -> None:
    check(request(verb, "--any", "thing"), None)


@pytest.mark.parametrize(
    "arguments",
    [
        ["deploy"], ["deploy", "api", "web", "--hold"], ["deploy", "--dry-run", "--output", "json"],
        ["status", "--output", "json"], ["history", "-n", "5"],
    ],
)  # fmt: skip
def test_key_for_deployments_may_deploy(arguments: list[str]) -> None:
    check(request(*arguments), LIMIT)


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["deploy"], "vps_fix"), (["status"], "vps_fix"), (["history"], "vps_fix"),
        (["down", "--volumes", "--output", "json"], "vps_fix"), (["branches"], "vps"),
    ],
)  # fmt: skip
def test_key_of_a_template_may_deploy_and_remove_branches(
    arguments: list[str], environment: str
) -> None:
    check(request(*arguments, environment=environment), LIMIT)


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["down", "--volumes"], "vps"), (["down"], "vps"), (["down"], "production"),
        (["down", "--gone"], "vps_fix"), (["branches", "--stack", "other"], "vps"),
        (["deploy"], "production_fix"), (["branches"], "production"), (["deploy"], "vps-2"),
        (["deploy"], "vps_"), (["deploy"], "vps_a_b"), (["deploy"], "vps_../production"),
        (["run", "api"], "vps_fix"), (["secret", "list"], "vps_fix"),
    ],
)  # fmt: skip
def test_key_of_a_template_may_do_nothing_else(arguments: list[str], environment: str) -> None:
    with pytest.raises(ServerError):
        check(request(*arguments, environment=environment), LIMIT)


@pytest.mark.parametrize(
    "arguments",
    [
        *([verb] for verb in sorted(server.VERBS - set(LIMITED))),
        ["deploy", "-C", "/etc"], ["deploy", "-C/etc"], ["deploy", "-e", "production"],
        ["deploy", "--env=production"], ["deploy", "--image", "api=x"], ["deploy", "../x"],
        ["deploy", "--backup", "id"], ["deploy", "$(id)"], ["history", "-fe", "production"],
        ["status", "--all"], ["agent", "stop"], ["server", "setup"], ["receive"], [],
    ],
    ids=" ".join,
)  # fmt: skip
def test_key_for_deployments_may_do_nothing_else(arguments: list[str]) -> None:
    with pytest.raises(ServerError):
        check(request(*arguments), LIMIT)


@pytest.mark.parametrize(
    ("stack", "environment"), [("shop", "production"), ("other", "vps"), ("../shop", "vps")]
)
def test_key_for_deployments_is_for_one_environment(stack: str, environment: str) -> None:
    with pytest.raises(ServerError):
        check(request("deploy", stack=stack, environment=environment), LIMIT)


@pytest.mark.parametrize("limit", [None, LIMIT])
@pytest.mark.parametrize(
    "command",
    [
        "", "id", "sh -c id", "lapwing", "lapwing '{}'", "lapwing not-json", "git-upload-pack shop",
        "git-receive-pack ../../etc", "git-receive-pack '/a b'", "git-receive-pack --help", "'",
        "scp -t /", "lapwing '{\"arguments\": [\"deploy\"]}' ; id",
    ],
)  # fmt: skip
def test_other_commands_are_refused(command: str, limit: Limit | None, tmp_path: Path) -> None:
    with pytest.raises(ServerError):
        receive(command, Settings(home=tmp_path / "home"), limit)
    assert not (tmp_path / "home").exists()


def test_key_for_deployments_sends_the_source_of_its_stack_only(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="may not send"):
        receive("git-receive-pack '/other'", Settings(home=tmp_path / "home"), LIMIT)


@pytest.mark.parametrize(
    ("head", "files", "folder"),
    [
        ("--force", "a" * 40, "."), ("a" * 40, "HEAD", "."), ("a" * 40, "b" * 40, "/etc"),
        ("a" * 40, "b" * 40, "../.."), ("a" * 40, "b" * 40, "a/../../x"),
        ("a" * 40, "b" * 40, "a\0"),
    ],
)  # fmt: skip
def test_snapshot_is_two_commits_and_a_folder_in_them(head: str, files: str, folder: str) -> None:
    sent = request("deploy")
    sent.snapshot = Snapshot(head, files, folder)
    for limit in (None, LIMIT):
        with pytest.raises(ServerError):
            check(sent, limit)


def test_actor_is_one_line_and_shows_a_key_for_ci() -> None:
    sent = request("deploy")
    sent.actor = "The CEO <ceo@x>\n\nOutcome: succeeded\0"
    assert receive_module._actor(sent, LIMIT) == (
        "The CEO <ceo@x>Outcome: succeeded (key for shop/vps)"
    )
    assert "\n" not in receive_module._actor(sent, None)


def commit(folder: Path, stack: str) -> str:
    """Commit a stack file into the server's repository of the stack `shop`."""
    repository = folder / "home" / "sources" / "shop.git"
    work = folder / "work"
    run = functools.partial(subprocess.run, check=True, capture_output=True, text=True)
    run(["git", "init", "-q", "--bare", str(repository)])
    run(["git", "clone", "-q", str(repository), str(work)])
    (work / "lapwing.yaml").write_text(f"stack: {stack}\n")
    run(["git", "-C", str(work), "add", "-A"])
    name = ["-c", "user.name=a", "-c", "user.email=a@b"]
    run(["git", "-C", str(work), *name, "commit", "-qm", "x"])
    run(["git", "-C", str(work), "push", "-q", "origin", "HEAD:refs/lapwing/vps"])
    return run(["git", "-C", str(work), "rev-parse", "HEAD"]).stdout.strip()


@pytest.mark.parametrize(("stack", "folder"), [("other", "."), ("shop", "missing")])
def test_source_of_another_stack_is_refused_and_changes_nothing(
    tmp_path: Path, stack: str, folder: str
) -> None:
    head = commit(tmp_path, stack)
    sent = request("deploy")
    sent.snapshot = Snapshot(head, head, folder)
    with pytest.raises(ServerError):
        receive(encode(sent), Settings(home=tmp_path / "home"), LIMIT)
    left = sorted(p.name for p in (tmp_path / "home" / "sources" / "shop").iterdir())
    assert left == []


def branch_source(folder: Path, name: str) -> Path:
    """A folder of files of the branch `fix`, as the server has one for each deployment."""
    made = folder / "home" / "sources" / "shop" / f"vps_fix.{name}.1"
    made.mkdir(parents=True)
    (made / "folder").write_text("files/.")
    return made


def test_removal_and_deployment_of_a_branch_wait_for_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(branch_lock, "TIMEOUT_S", 0.0)
    settings, sent = Settings(home=tmp_path / "home"), request("down", "--volumes")
    sent.environment = "vps_fix"
    left = branch_source(tmp_path, "a")
    with branch_lock.hold(left.parent, "vps_fix", removal=False):
        with branch_lock.hold(left.parent, "vps_fix", removal=False):
            pass  # Deployments do not exclude each other.
        with pytest.raises(ServerError, match="still being deployed"):
            receive(encode(sent), settings, LIMIT)
        assert left.exists()
    deployed = request("deploy", environment="vps_fix")
    with (
        branch_lock.hold(left.parent, "vps_fix", removal=True),
        pytest.raises(ServerError, match="still being removed"),
    ):
        receive(encode(deployed), settings, LIMIT)
    assert receive(encode(sent), settings, LIMIT) == 0
    assert list(left.parent.iterdir()) == []


def test_removal_keeps_the_files_and_the_reference_that_are_in_use(tmp_path: Path) -> None:
    settings, sent = Settings(home=tmp_path / "home"), request("down", environment="vps_fix")
    commit(tmp_path, "shop")
    repository = settings.sources / "shop.git"
    git = functools.partial(subprocess.run, check=True, capture_output=True, text=True)
    git(["git", "-C", str(repository), "update-ref", "refs/lapwing/vps_/fix", "refs/lapwing/vps"])
    used, unused = branch_source(tmp_path, "a"), branch_source(tmp_path, "b")
    with receive_module._in_use(used):
        receive_module._remove_source(sent, settings)
    assert (used.exists(), unused.exists()) == (True, False)
    assert git(["git", "-C", str(repository), "for-each-ref"]).stdout.count("refs/") == 1


def test_request_is_one_word_of_the_command() -> None:
    sent = request("logs", "it's; $(id) `id`")
    words = shlex.split(encode(sent))
    assert words[0] == "lapwing"
    assert len(words) == 2
