"""Arguments that are sent to a server, and the source before them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from lapwing import __version__, server
from lapwing.cli import remote
from lapwing.cli.main import cli
from lapwing.cli.remote import PLACE, identity_from_stdin, without_place
from lapwing.cli.run import options_first
from lapwing.errors import LapwingError
from tests.installation import GIT

ROOT = click.Context(cli)


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("deploy -e vps", "deploy"),
        ("deploy api --env vps --hold -C shop", "deploy api --hold"),
        ("up shop --output json -e vps", "up --output json"),
        ("status -evps --output json", "status --output json"),
        ("logs --environment=vps api -Cshop -f", "logs api -f"),
        ("secret set -e vps NAME", "secret set NAME"),
        ("run api -e vps -- tool -e x -C y", "run api -- tool -e x -C y"),
        ("logs -fe vps api -fCshop", "logs -f api -f"),
        ("logs -fevps -n 5 -- -e", "logs -f -n 5 -- -e"),
        ("up --output json shop", "up --output json"),
        ("deploy shop -e", "deploy shop"),
    ],
)
def test_folder_and_environment_are_left_out(given: str, sent: str) -> None:
    assert without_place(ROOT, given.split(), Path("shop")) == sent.split()


def options_of_forwarded_verbs() -> Iterator[tuple[str, str]]:
    """Every option with a value of the verbs that run on a server, but those left out."""
    for verb in sorted(server.VERBS):
        command = cli.get_command(ROOT, verb)
        assert command is not None
        inner = command.commands.values() if isinstance(command, click.Group) else ()
        for option in (p for c in (command, *inner) for p in c.params):
            if isinstance(option, click.Option) and not option.is_flag:
                yield from ((verb, name) for name in option.opts if name not in PLACE)


@pytest.mark.parametrize("value", ["-e", "-C shop", "-evps", "--env=x"])
@pytest.mark.parametrize(("verb", "option"), sorted(set(options_of_forwarded_verbs())))
def test_value_of_an_option_is_kept(verb: str, option: str, value: str) -> None:
    given = [verb, option, value]
    assert without_place(ROOT, [*given, "-e", "vps"], Path("shop")) == given


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("api ls", "-- api ls"),
        ("api -e vps ls -e x", "-e vps -- api ls -e x"),
        ("-e vps api -C shop -- -e", "-e vps -C shop -- api -e"),
        ("-evps --env=vps api sh -c x", "-evps --env=vps -- api sh -c x"),
        ("-- api ls -- -e", "-- api ls -- -e"),
        ("-e vps -- api ls", "-e vps -- api ls"),
        ("--help", "--help --"),
        ("api -e", "-e -- api"),
    ],
)
def test_options_after_the_command_belong_to_it(given: str, sent: str) -> None:
    valued = {"-e", "--env", "--environment", "-C", "--context"}
    assert options_first(given.split(), valued) == sent.split()
    assert (
        without_place(ROOT, ["run", *sent.split()], Path("shop"))[-1] == sent.rsplit(maxsplit=1)[-1]
    )


@pytest.mark.parametrize("given", ["--identity key", "--identity=key", "--identity -"])
def test_identity_is_sent_as_standard_input(given: str) -> None:
    sent = identity_from_stdin(["restore", "db", *given.split(), "--yes"])
    assert " ".join(sent).replace("=", " ") == "restore db --identity - --yes"


STACK = """\
stack: shop
services: {web: {build: ., static: ., route: /}}
environments: {vps: {host: root@vps, domain: shop.example.com}}
"""


@pytest.mark.parametrize(
    ("receive", "message", "hint", "is_lost"),
    [
        (
            "git -c receive.maxInputSize=10 receive-pack {}",
            "lapwing@vps refused the source of shop.",
            "Nothing was deployed. If git names no other cause, check the free space",
            False,
        ),
        (
            "touch gone; exit 255",
            "The connection to lapwing@vps was lost.",
            "Nothing was deployed. Run the command again.",
            True,
        ),
    ],
    ids=["refused", "lost"],
)
def test_failed_sending_of_the_source_is_explained(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    receive: str,
    message: str,
    hint: str,
    is_lost: bool,
) -> None:
    """With a program in place of ssh that greets once, and runs git as a server would."""
    folder, repository, program = tmp_path / "stack", tmp_path / "shop.git", tmp_path / "bin/ssh"
    for name, value in {**GIT, "LAPWING_HOME": str(tmp_path / "home")}.items():
        monkeypatch.setenv(name, value)
    subprocess.run(["git", "init", "-q", "--bare", str(repository)], check=True)
    folder.mkdir()
    (folder / "lapwing.yaml").write_text(STACK)
    (folder / "index.html").write_text("Hello")
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "First"]):
        subprocess.run(["git", "-C", str(folder), *words], check=True)
    program.parent.mkdir()
    program.write_text(
        f"#!/bin/sh\ncd {tmp_path}\ntest ! -e gone || exit 255\nfor last; do :; done\n"
        f'case $last in hello) echo \'{{"lapwing": "{__version__}"}}\';;\n'
        f"*) {receive.format(repository)};; esac\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(remote, "RECONNECT_S", 0.1)
    monkeypatch.setattr(remote, "RECONNECT_INTERVAL_S", 0.01)
    done = CliRunner().invoke(cli, ["-C", str(folder), "deploy", "-e", "vps"])
    assert isinstance(done.exception, LapwingError)
    assert done.exception.message == message
    assert (done.exception.hint or "").startswith(hint)
    assert ("Connecting again ..." in done.output) is is_lost
