"""No configuration of a user changes what git prints or runs, and no login is printed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lapwing.errors import LapwingError, NoSpaceError, SourceError, UsageError
from lapwing.system.git import Git, without_login

HOSTILE = """
[user]
    name = Ada
    email = ada@example.com
[color]
    ui = always
[commit]
    gpgSign = true
[tag]
    gpgSign = true
[gpg]
    program = /nonexistent/gpg
[log]
    showSignature = true
[core]
    fsmonitor = {program}
    hooksPath = {hooks}
    pager = {program}
[push]
    followTags = true
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """The environment of a user whose configuration signs, colors and runs programs."""
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    program.chmod(0o755)
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    for name in ("pre-commit", "post-commit", "post-checkout", "reference-transaction"):
        (hooks / name).symlink_to(program)
    config = tmp_path / "gitconfig"
    config.write_text(HOSTILE.format(program=program, hooks=hooks))
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "GIT_CONFIG_GLOBAL": str(config),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_DIR": "/nonexistent",
        "LC_ALL": "de_DE.UTF-8",
    }


@pytest.fixture
def git(tmp_path: Path, environ: dict[str, str]) -> Git:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "file").write_text("x")
    made = Git(folder, environ, SourceError)
    made.text("init", "-q", "-b", "main")
    made.text("add", "-A")
    made.text("commit", "-q", "-m", "First")
    return made


def test_user_configuration_changes_no_output_and_runs_nothing(git: Git, tmp_path: Path) -> None:
    assert git.text("log", "--format=%s") == "First"
    assert git.text("status", "--porcelain") == ""
    git.text("tag", "-a", "-m", "One", "v1")
    assert git.text("branch", "--list") == "* main"
    assert not (tmp_path / "ran").exists()


def test_user_name_is_read_from_user_configuration(git: Git) -> None:
    assert git.ask("config", "user.name") == "Ada"
    assert git.ask("config", "user.nickname") is None


def test_settings_of_the_environment_are_kept(git: Git, environ: dict[str, str]) -> None:
    more = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "a.b", "GIT_CONFIG_VALUE_0": "c"}
    assert Git(git.folder, environ | more).text("config", "a.b") == "c"


def test_own_repository_ignores_all_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    bare = Git(tmp_path / "bare", None, bare=True)
    bare.text("init", "-q", "--bare", str(tmp_path / "bare"))
    assert bare.ask("config", "user.name") is None
    assert "Lapwing <lapwing@localhost>" in bare.text("var", "GIT_COMMITTER_IDENT")


def test_token_is_used_for_its_remote_only(tmp_path: Path, environ: dict[str, str]) -> None:
    git = Git(tmp_path, {**environ, "GIT_ASKPASS": "/bin/false"})
    git.use_token("https://user@git.example.com:8443/a/b.git", "t0p-secret")
    asked = b"protocol=https\nhost=git.example.com:8443\n\n"
    assert "password=t0p-secret" in git.run("credential", "fill", given=asked).data.decode()
    asked = b"protocol=https\nhost=other.example.com\n\n"
    assert b"t0p-secret" not in git.run("credential", "fill", given=asked).data


def test_token_and_logins_are_redacted(tmp_path: Path, environ: dict[str, str]) -> None:
    git = Git(tmp_path, environ)
    git.use_token("https://git.example.com/a", "t0p-secret")
    assert git.redact(b"\x1b[31mfatal: https://me:pw@h/x: t0p-secret\n\n") == (
        " [31mfatal: https://h/x: ***"
    )
    assert without_login("https://me:pw@h/x ssh://git@h/y") == "https://h/x ssh://h/y"
    assert without_login("fatal: 'https://me:p@w@h/x?token=a' and http://h?b=c#d: no") == (
        "fatal: 'https://h/x' and http://h#d: no"
    )


def test_missing_repository_is_reported_with_next_step(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    with pytest.raises(SourceError) as caught:
        Git(tmp_path, environ, SourceError).text("status")
    assert str(caught.value) == f"{tmp_path} is not in a git repository."
    assert "git init" in str(caught.value.hint)


def test_failure_is_reported_with_message_of_git(git: Git) -> None:
    with pytest.raises(SourceError) as caught:
        git.text("checkout", "nowhere")
    assert str(caught.value).startswith(f"git checkout failed in {git.folder}: ")
    assert "nowhere" in str(caught.value.detail)


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("echo 'error: write error: No space left on device' >&2; exit 128", NoSpaceError),
        ("exec sleep 20", LapwingError),
    ],
)
def test_full_disk_and_timeout_are_reported(
    tmp_path: Path, script: str, error: type[LapwingError]
) -> None:
    program = tmp_path / "git"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    git = Git(tmp_path, {"PATH": f"{tmp_path}:{os.environ['PATH']}"}, timeout=1)
    with pytest.raises(error) as caught:
        git.text("status")
    assert type(caught.value) is error


def test_missing_git_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="git is not installed"):
        Git(tmp_path, {"PATH": str(tmp_path)}).text("status")


def test_own_git_is_not_interrupted_with_the_terminal(tmp_path: Path) -> None:
    """Ctrl-C goes to the process group of the terminal; git on our own repository has another."""
    alias = "!ps -o pgid= -p $$"
    assert int(Git(tmp_path, None).text("-c", f"alias.group={alias}", "group")) != os.getpgrp()
    user = Git(tmp_path, dict(os.environ))
    assert int(user.text("-c", f"alias.group={alias}", "group")) == os.getpgrp()
