"""Running git: the same settings everywhere, tokens in the environment only, one mapping of errors.

Two kinds of repository are used. A user's checkout, or a remote one, is read with the user's git
configuration, because it holds logins, proxies and trusted folders. The desired-state repository
of this machine is used without any configuration. For both, the settings that change what git
prints or runs (signatures, colors, hooks, file monitors) are fixed: they are added to the
environment as `GIT_CONFIG_KEY_n`, which takes precedence over every configuration file.

A token reaches git through its environment, where a credential helper returns it for the address
of its remote only: it is in no URL, no argument and no file. Source: gitcredentials(7); a helper
that begins with `!` is a shell command, and an empty one clears the list.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from lapwing.errors import LapwingError, NoSpaceError, SourceError, UsageError
from lapwing.system.files import use_reserve
from lapwing.system.process import bound_to_caller
from lapwing.system.trust import git_environ

DISK_FULL = ("No space left", "Out of diskspace", "Disk quota exceeded")
"""Messages of git about a full disk; the second is fast-import's."""
MAX_MESSAGE_CHARS = 8000
INSTALL_HINT = "Install git, for instance with `apt-get install git` or `brew install git`."

_SETTINGS = {
    "color.ui": "false",
    "commit.gpgSign": "false",
    "core.fsmonitor": "false",
    "core.hooksPath": os.devnull,
    "core.pager": "cat",
    "i18n.logOutputEncoding": "UTF-8",
    "log.showSignature": "false",
    "push.followTags": "false",
    "push.gpgSign": "false",
    "push.recurseSubmodules": "no",
    # A folder of a commit may look like a bare repository, with a configuration from that commit.
    "safe.bareRepository": "explicit",
    "submodule.recurse": "false",
    "tag.forceSignAnnotated": "false",
    "tag.gpgSign": "false",
}
_VARIABLES = {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
_REPOSITORY_VARIABLES = {
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_CONFIG",
    "GIT_CONFIG_PARAMETERS",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_INDEX_FILE",
    "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
}
"""Set while a git hook or alias runs, and then about another repository."""
_WRITERS = {"commit-tree", "fast-import", "fetch", "gc", "init", "notes", "push", "update-ref"}
"""Commands that end, and remove their lock files, when the process that runs them is killed."""
_NO_CONFIGURATION = {
    "PATH": os.defpath + ":/usr/local/bin:/opt/homebrew/bin",
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_AUTHOR_NAME": "Lapwing",
    "GIT_AUTHOR_EMAIL": "lapwing@localhost",
    "GIT_COMMITTER_NAME": "Lapwing",
    "GIT_COMMITTER_EMAIL": "lapwing@localhost",
}
_HELPER = '!f() { test "$1" = get && printf "username=x-access-token\\npassword=%s\\n" '
_HELPER += '"$LAPWING_GIT_TOKEN"; }; f'


@dataclass(frozen=True, slots=True)
class Output:
    """The result of a git command. Its messages (standard error) hold no login."""

    status: int
    data: bytes
    messages: str

    @property
    def text(self) -> str:
        """Standard output without the last newline; file names keep undecodable bytes."""
        return os.fsdecode(self.data).removesuffix("\n")

    @property
    def disk_is_full(self) -> bool:
        """Whether git failed because the disk is full."""
        return any(sign in self.messages for sign in DISK_FULL)


class Git:
    """The git command in one repository.

    `environ` is the user's environment; None for a repository of ours, which is used without
    anybody's configuration. Failures are raised as `error`, with `hint` where there is no better
    one.
    """

    def __init__(
        self,
        folder: Path,
        environ: Mapping[str, str] | None,
        error: type[LapwingError] = LapwingError,
        *,
        bare: bool = False,
        hint: str | None = None,
        timeout: float | None = None,
    ) -> None:
        self.folder = folder
        self._location = ("--git-dir" if bare else "-C", str(folder))
        self._own_session = environ is None  # Ctrl-C must not end git in the middle of a write.
        given = _NO_CONFIGURATION if environ is None else environ
        kept = {k: v for k, v in given.items() if k not in _REPOSITORY_VARIABLES}
        kept.setdefault("PATH", os.defpath)
        kept |= git_environ(kept)
        self._environ = _add_settings(kept | _VARIABLES, _SETTINGS.items())
        self._token: str | None = None
        self._error = error
        self._hint = hint
        self._timeout = timeout

    def use_token(self, url: str, token: str) -> None:
        """Log in with a token at the remote of this address. Does nothing for SSH and folders."""
        parts = urlsplit(url)
        if parts.scheme in ("http", "https"):
            key = f"credential.{parts.scheme}://{parts.netloc.rpartition('@')[2]}.helper"
            self._environ = _add_settings(self._environ, [(key, ""), (key, _HELPER)])
            self._environ["LAPWING_GIT_TOKEN"] = self._token = token

    def run(
        self, *arguments: str, given: bytes = b"", environ: Mapping[str, str] | None = None
    ) -> Output:
        """Run a git command, whatever its exit status. On a full disk the reserve is used.

        Raises:
            UsageError: git is not installed.
            LapwingError: It did not end in time (as the error of this repository).
        """
        command = ["git", *self._location, *arguments]
        given_environ = {**self._environ, **(environ or {})}
        if arguments[0] in _WRITERS:
            command = bound_to_caller(command, given_environ)
        try:
            done = subprocess.run(
                command,
                input=given,
                capture_output=True,
                env=given_environ,
                start_new_session=self._own_session,
                timeout=self._timeout,
                check=False,
            )
        except FileNotFoundError as error:
            raise UsageError("git is not installed.", hint=INSTALL_HINT) from error
        except subprocess.TimeoutExpired as error:
            raise self._error(
                f"git {arguments[0]} did not end within {self._timeout:g} s.",
                hint="Check the network, then run the command again.",
            ) from error
        output = Output(done.returncode, done.stdout, self.redact(done.stderr))
        if done.returncode and output.disk_is_full and use_reserve(self.folder):
            return self.run(*arguments, given=given, environ=environ)
        return output

    def data(
        self, *arguments: str, given: bytes = b"", environ: Mapping[str, str] | None = None
    ) -> bytes:
        """The standard output of a git command. Raises the error of this repository."""
        return self._checked(arguments[0], self.run(*arguments, given=given, environ=environ)).data

    def text(
        self, *arguments: str, given: bytes = b"", environ: Mapping[str, str] | None = None
    ) -> str:
        """The standard output as text without the last newline. Raises as `data` does."""
        return self._checked(arguments[0], self.run(*arguments, given=given, environ=environ)).text

    def ask(self, *arguments: str) -> str | None:
        """The standard output as text; None if git reports a failure."""
        done = self.run(*arguments)
        return done.text if done.status == 0 else None

    def changes(self, *arguments: str) -> list[str]:
        """The changed files that `git status` lists. Raises the error of this repository.

        A submodule has another configuration, and is asked itself.
        """
        environ = self.without_filters()
        shown = ("status", "--porcelain", "-z", "--no-renames", "--ignore-submodules=dirty")
        listed = self.text(*shown, *arguments, environ=environ)
        files = [entry[3:] for entry in listed.split("\0") if entry]
        for entry in self.text("ls-files", "-z", "--stage").split("\0"):
            name = entry.partition("\t")[2]
            if entry.startswith("160000 ") and (self.folder / name / ".git").exists():
                inner = Git(self.folder / name, self._environ, self._error, timeout=self._timeout)
                files += [f"{name}/{file}" for file in inner.changes(*arguments)]
        return files

    def without_filters(self) -> dict[str, str]:
        """Return an environ for commands that read the working tree.

        Filters of the repository's own configuration would be run, so those of the user replace
        them.
        """
        filters: dict[str, str] = {}
        listed = self.run("config", "--show-scope", "-z", "--get-regexp", r"^filter\.").text
        scopes, entries = listed.split("\0")[::2], listed.split("\0")[1::2]
        for scope, entry in zip(scopes, entries, strict=False):
            key, _, value = entry.partition("\n")
            is_own = scope in ("local", "worktree")
            filters[key] = filters.get(key, "") if is_own else value
        return self.with_settings(filters)

    def with_settings(self, settings: Mapping[str, str]) -> dict[str, str]:
        """Return an environ for commands with these settings of git."""
        return _add_settings(self._environ, settings.items())

    def redact(self, data: bytes) -> str:
        """Text that git printed, without logins and control characters."""
        text = without_login(data.decode(errors="replace"))
        text = text.replace(self._token, "***") if self._token else text
        text = "".join(c if c.isprintable() or c == "\n" else " " for c in text)
        lines = (line.rstrip() for line in text.splitlines())
        return "\n".join(filter(None, lines))[-MAX_MESSAGE_CHARS:]

    def _checked(self, command: str, done: Output) -> Output:
        if done.status == 0:
            return done
        words, hint = done.messages, self._hint
        last = words.splitlines()[-1].rstrip(".") if words else f"exit status {done.status}"
        message = f"git {command} failed in {self.folder}: {last}."
        if done.disk_is_full:
            raise NoSpaceError(
                f"The disk that holds {self.folder} is full.",
                hint="Free some space, then run the command again.",
            )
        if "not a git repository" in words:
            message = f"{self.folder} is not in a git repository."
            hint = hint or (
                "Create one in the top folder of the project: `git init && git add -A && "
                "git commit -m 'First version'`."
            )
        elif "dubious ownership" in words:
            message = f"git does not trust {self.folder}: it belongs to another user."
            hint = f"Run `git config --global --add safe.directory {self.folder}`."
        raise self._error(message, hint=hint, detail=words or None)


def read_revision(folder: Path, environ: Mapping[str, str]) -> str:
    """Read the commit of a folder: twelve digits, then `-dirty` if the folder has changes.

    Raises:
        SourceError: The folder is in no git repository, or in one without a commit.
    """
    git = Git(folder, environ, SourceError)
    head = git.run("rev-parse", "--verify", "--short=12", "HEAD")
    changed = git.changes("--untracked-files=normal", "--", ".")
    if head.status != 0:
        raise SourceError(
            f"The git repository of {folder} has no commit yet.",
            hint="Run `git add -A && git commit -m 'First version'`.",
            detail=head.messages,
        )
    return head.text[:12] + ("-dirty" if changed else "")


@dataclass(frozen=True, slots=True)
class Change:
    """A commit and its time, in Unix time; `shallow` if the history before it is missing."""

    commit: str
    time: int
    shallow: bool


def read_change(folder: Path, environ: Mapping[str, str], left_out: Iterable[str] = ()) -> Change:
    """Read the last commit that changed a folder; in a shallow clone, the commit of the clone.

    Changes of the files `left_out`, relative to the folder, do not count.

    Raises:
        SourceError: The folder is in no git repository, or in one without a commit.
    """
    git = Git(folder, environ, SourceError)
    shallow = git.text("rev-parse", "--is-shallow-repository") == "true"
    format_ = ("log", "-1", "--format=%H %ct")
    excluded = [f":(exclude,literal){file}" for file in left_out]
    found = "" if shallow else git.text(*format_, "--", ".", *excluded)
    commit, time = (found or git.text(*format_)).split()
    return Change(commit, int(time), shallow)


def find_revision(folder: Path, environ: Mapping[str, str]) -> str:
    """Read the commit of a folder as `read_revision` does; an empty string if it has none."""
    try:
        return read_revision(folder, environ)
    except SourceError:
        return ""


def read_file_at(path: Path, revision: str, environ: Mapping[str, str]) -> bytes:
    """Read a file as it was at a revision (a commit, branch or tag).

    Raises:
        UsageError: The text cannot be a revision.
        SourceError: The revision does not exist, or did not have the file.
    """
    if revision.startswith("-") or ":" in revision:
        raise UsageError(f"{revision!r} is not a revision.", hint="Give a commit, branch or tag.")
    git = Git(path.parent, environ, SourceError)
    if git.ask("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}") is None:
        git.text("rev-parse", "--git-dir")
        raise SourceError(
            f"There is no revision {revision!r}.",
            hint="Give a commit, branch or tag; in CI, fetch the history (fetch-depth: 0).",
        )
    found = git.run("cat-file", "blob", f"{revision}:./{path.name}")
    if found.status != 0:
        raise SourceError(
            f"{path.name} was not in {path.parent} at {revision}.", detail=found.messages
        )
    return found.data


def first_names(files: Iterable[str], most: int) -> str:
    """List the first files in order, and how many there are besides: `a, b and 3 more`."""
    names = sorted(files)
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def without_login(text: str) -> str:
    """Remove user names, passwords and queries, which may contain a token, from URLs in a text."""
    return re.sub(r"(://)(?:[^/?#\s]*@)?([^\s?#'\"`]*)(?:\?[^\s#'\"`]*)?", r"\1\2", text)


def _add_settings(
    environ: Mapping[str, str], settings: Iterable[tuple[str, str]]
) -> dict[str, str]:
    """An environment that gives git these settings after those it gives already."""
    count = int(environ.get("GIT_CONFIG_COUNT") or 0)
    added = dict(environ)
    for key, value in settings:
        added[f"GIT_CONFIG_KEY_{count}"], added[f"GIT_CONFIG_VALUE_{count}"] = key, value
        count += 1
    return added | {"GIT_CONFIG_COUNT": str(count)}
