"""What an SSH key may ask of a server."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from lapwing import server
from lapwing.errors import ServerError
from lapwing.server.receive import LIMITED, Limit, Request, check, encode, receive
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


def test_request_is_one_word_of_the_command() -> None:
    sent = request("logs", "it's; $(id) `id`")
    words = shlex.split(encode(sent))
    assert words[0] == "lapwing"
    assert len(words) == 2
