"""Reading a source folder runs no program that its git repository configures."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from lapwing.build.source import read_source
from lapwing.errors import LapwingError, SourceError
from lapwing.release.git import Checkout
from lapwing.system.git import find_revision, read_file_at, read_revision

CONFIG = """
[core]
    fsmonitor = {program}
    hooksPath = {hooks}
    sshCommand = {program}
    pager = {program}
    editor = {program}
[filter "evil"]
    clean = {program}
    smudge = {program}
    process = {program}
    required = true
[diff]
    external = {program}
[diff "evil"]
    textconv = {program}
    command = {program}
[log]
    showSignature = true
[gpg]
    program = {program}
[alias]
    status = "!{program}"
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": str(tmp_path / "gitconfig"),
        "GIT_AUTHOR_NAME": "Ada",
        "GIT_AUTHOR_EMAIL": "ada@example.com",
        "GIT_COMMITTER_NAME": "Ada",
        "GIT_COMMITTER_EMAIL": "ada@example.com",
    }


@pytest.fixture
def hostile(tmp_path: Path) -> str:
    """Configuration that runs a program, which leaves the file `ran`, wherever git allows it."""
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\necho $0 $@ >> {tmp_path}/ran\ncat\n")
    program.chmod(0o755)
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    for name in ("post-index-change", "reference-transaction", "pre-auto-gc", "fsmonitor-watchman"):
        (hooks / name).symlink_to(program)
    return CONFIG.format(program=program, hooks=hooks)


def git(environ: dict[str, str], folder: Path, *arguments: str) -> None:
    subprocess.run(
        ["git", "-C", str(folder), *arguments], env=environ, check=True, capture_output=True
    )


def repository(environ: dict[str, str], folder: Path, *names: str) -> Path:
    """A repository with one commit, whose files have the attributes of the hostile filter."""
    folder.mkdir(parents=True, exist_ok=True)
    git(environ, folder, "init", "-q", "-b", "main")
    (folder / ".gitattributes").write_text("* filter=evil diff=evil\n")
    for name in ("app.py", *names):
        (folder / name).write_text("print(1)\n")
    git(environ, folder, "add", "-A")
    git(environ, folder, "commit", "-q", "-m", "First")
    return folder


def touch(path: Path) -> None:
    """Make git read the content again: it is the same, but its time is not."""
    os.utime(path, (1, 1))


def read_everything(folder: Path, environ: dict[str, str]) -> str:
    """Read a folder as `deploy` and `release` do; returns its revision."""
    read_source(folder, environ)
    read_file_at(folder / "app.py", "HEAD", environ)
    found = Checkout(folder, environ)
    found.uncommitted()
    found.commits(None, found.head())
    found.changed(None, found.head())
    return read_revision(folder, environ)


def test_configuration_of_the_repository_runs_nothing(
    environ: dict[str, str], hostile: str, tmp_path: Path
) -> None:
    folder = repository(environ, tmp_path / "source")
    with (folder / ".git/config").open("a") as file:
        file.write(hostile)
    touch(folder / "app.py")
    assert not read_everything(folder, environ).endswith("-dirty")
    assert not (tmp_path / "ran").exists()
    (folder / "app.py").write_text("print(2)\n")
    assert read_everything(folder, environ).endswith("-dirty")
    assert not (tmp_path / "ran").exists()


def test_configuration_of_a_submodule_runs_nothing(
    environ: dict[str, str], hostile: str, tmp_path: Path
) -> None:
    inner = repository(environ, tmp_path / "inner")
    folder = repository(environ, tmp_path / "source")
    git(environ, folder, "-c", "protocol.file.allow=always", "submodule", "add", str(inner), "sub")
    git(environ, folder, "commit", "-q", "-m", "Submodule")
    with (folder / ".git/modules/sub/config").open("a") as file:
        file.write(hostile)
    touch(folder / "sub/app.py")
    assert not read_everything(folder, environ).endswith("-dirty")
    (folder / "sub/app.py").write_text("print(2)\n")
    assert read_everything(folder, environ).endswith("-dirty")
    assert not (tmp_path / "ran").exists()


def test_embedded_bare_repository_is_no_repository(
    environ: dict[str, str], hostile: str, tmp_path: Path
) -> None:
    """Its files may be those of a commit: a clone brings them, with their configuration."""
    inner = repository(environ, tmp_path / "inner")
    bare = repository(environ, tmp_path / "source") / "service"
    shutil.copytree(inner / ".git", bare)
    (bare / "config").write_text(f"[core]\n bare = false\n worktree = {bare}\n{hostile}")
    (bare / "app.py").write_text("print(1)\n")
    for read in (read_source, read_revision):
        with pytest.raises(LapwingError, match="bare repository"):
            read(bare, environ)
    assert find_revision(bare, environ) == ""
    assert not (tmp_path / "ran").exists()


def test_filters_of_the_user_are_kept(environ: dict[str, str], tmp_path: Path) -> None:
    """Large files are kept by a filter (Git LFS); without it they would look changed."""
    (tmp_path / "gitconfig").write_text('[filter "evil"]\n clean = tr 1 2\n required = true\n')
    folder = repository(environ, tmp_path / "source")
    git(environ, folder, "config", "filter.evil.clean", "false")
    touch(folder / "app.py")
    assert not read_revision(folder, environ).endswith("-dirty")


def test_error_of_a_folder_without_a_repository(environ: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is not in a git repository"):
        read_revision(tmp_path, environ)
