"""The git repository that is released, read with the user's configuration and logins.

Only `push_tag` changes something that others see; `fetch_tag` and `create_tag` add objects to the
clone, without a reference.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lapwing.errors import ForgeLoginError, ReleaseError
from lapwing.release.commits import Commit
from lapwing.system.git import Git

TIMEOUT_S = 300.0
_REFUSED = re.compile(r"\[remote rejected\]|pre-receive hook declined|GH0\d\d|protected", re.I)
_LOGIN = re.compile(
    r"Authentication failed|could not read Username|Permission denied|HTTP Basic: Access denied"
    r"|returned error: 40[13]|terminal prompts disabled",
    re.I,
)


@dataclass(frozen=True, slots=True)
class Refs:
    """The branches and tags of a remote, with their commits."""

    branches: Mapping[str, str]
    tags: Mapping[str, str]
    objects: Mapping[str, str]
    """The object of each tag: an annotated tag, or the commit."""


class Checkout:
    """The repository of a folder. Every method raises ReleaseError with git's message."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self._git = Git(folder, environ, ReleaseError, timeout=TIMEOUT_S)

    def use_token(self, url: str, token: str) -> None:
        """Log in with a token at the remote of this address. Does nothing for SSH."""
        self._git.use_token(url, token)

    def is_shallow(self) -> bool:
        """Return whether the clone is shallow."""
        return self._git.text("rev-parse", "--is-shallow-repository") == "true"

    def head(self) -> str:
        """Return the commit that is checked out."""
        try:
            return self._git.text("rev-parse", "--verify", "HEAD^{commit}")
        except ReleaseError as error:
            raise ReleaseError(
                "The repository has no commit yet.",
                hint="Run `git add -A && git commit -m 'First version'`, and push it.",
            ) from error

    def branch(self) -> str | None:
        """Return the branch that is checked out; None for a detached HEAD."""
        return self._git.ask("symbolic-ref", "--quiet", "--short", "HEAD")

    def uncommitted(self) -> list[str]:
        """Return the tracked files that differ from the commit."""
        return self._git.changes("--untracked-files=no")

    def remote(self, branch: str | None) -> str | None:
        """Return the remote to release to: the branch's own, else `origin`, else the only one."""
        own = self._git.ask("config", f"branch.{branch}.remote") if branch else None
        names = self._git.text("remote").splitlines()
        if own in names:
            return own
        return "origin" if "origin" in names else (names[0] if len(names) == 1 else None)

    def url(self, remote: str) -> str:
        """Return the URL that is pushed to, after the user's rewriting of URLs."""
        return self._git.text("remote", "get-url", "--push", remote)

    def refs(self, remote: str) -> Refs:
        """List the branches and tags of a remote."""
        branches: dict[str, str] = {}
        tags: dict[str, str] = {}
        objects: dict[str, str] = {}
        for line in self._contact("ls-remote", "--heads", "--tags", remote).splitlines():
            commit, _, name = line.partition("\t")
            if name.startswith("refs/heads/"):
                branches[name.removeprefix("refs/heads/")] = commit
            elif name.startswith("refs/tags/"):
                # An annotated tag is listed twice; the second, peeled one is the commit.
                tag = name.removeprefix("refs/tags/").removesuffix("^{}")
                tags[tag] = commit
                objects.setdefault(tag, commit)
        return Refs(branches, tags, objects)

    def fetch_tag(self, remote: str, tag: str) -> None:
        """Fetch the objects of a tag, without creating it in the clone."""
        given = ("--quiet", "--no-tags", "--no-write-fetch-head", remote, f"refs/tags/{tag}")
        self._contact("fetch", *given)

    def message(self, tag: str) -> str:
        """Return the message of an annotated tag, by its object; "" for another object."""
        found = self._git.run("cat-file", "tag", tag)
        return found.data.decode(errors="replace").partition("\n\n")[2]

    def tags(self) -> dict[str, str]:
        """Return the local tags and their commits."""
        form = "--format=%(refname:strip=2)%00%(objectname)%00%(*objectname)"
        lines = self._git.text("for-each-ref", form, "refs/tags").splitlines()
        parts = (line.split("\0") for line in lines)
        return {name: peeled or commit for name, commit, peeled in parts}

    def has(self, commit: str) -> bool:
        """Return whether a commit is in this clone."""
        return self._git.ask("cat-file", "-e", f"{commit}^{{commit}}") is not None

    def is_ancestor(self, older: str, newer: str) -> bool:
        """Return whether a commit, which is in this clone, is another one or in its history."""
        return self._git.ask("merge-base", "--is-ancestor", older, newer) is not None

    def resolve(self, ref: str) -> str | None:
        """Return the commit of a reference; None if there is none."""
        return self._git.ask("rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")

    def commits(
        self, since: str | None, until: str, paths: Sequence[str] = ()
    ) -> tuple[Commit, ...]:
        """Return the commits after one (all, with None) up to another, newest first.

        With paths, only those that touch them, and the merges that brought such changes.
        """
        form = ("--topo-order", "--format=%H%x1f%P%x1f%B")
        limited = ("--full-history", "--show-pulls") if paths else ()
        reach = _reach(since, until)
        listed = self._git.data("log", "-z", *form, *limited, *reach, "--", *paths)
        entries = listed.decode(errors="replace").split("\0")
        parts = (entry.split("\x1f", 2) for entry in entries if entry.strip())
        return tuple(
            Commit(sha.strip(), tuple(parents.split()), text) for sha, parents, text in parts
        )

    def mainline(self, since: str | None, until: str) -> frozenset[str]:
        """Return the commits between two that are first parents, from the later one on."""
        listed = self._git.text("rev-list", "--first-parent", *_reach(since, until), "--")
        return frozenset(listed.splitlines())

    def changed(self, since: str | None, until: str, paths: Sequence[str] = ()) -> tuple[str, ...]:
        """Return the files that differ between two commits; all of the later one, with None.

        With paths, only those below them; those below the first one without its name.
        """
        base = since or self._git.text("hash-object", "-t", "tree", os.devnull)
        form = ("--name-only", "--no-renames", "-z")
        listed = self._git.text("diff", *form, base, until, "--", *paths)
        folder = ""
        if paths:
            folder = posixpath.normpath(self._git.text("rev-parse", "--show-prefix") + paths[0])
        return tuple(name.removeprefix(f"{folder}/") for name in listed.split("\0") if name)

    def committed_at(self, commit: str) -> int:
        """Return the time of a commit in seconds since 1970."""
        return int(self._git.text("show", "-s", "--format=%ct", commit))

    def files(self, commit: str, folder: str) -> list[str]:
        """Return the files of a commit below a folder, relative to it."""
        tree = f"{commit}:./{folder}"
        listed = self._git.text("ls-tree", "-r", "-z", "--full-tree", "--name-only", tree)
        return [name for name in listed.split("\0") if name]

    def content(self, commit: str, path: str) -> bytes | None:
        """Return a file of a commit, by its path from the folder; None if there is none."""
        done = self._git.run("cat-file", "blob", f"{commit}:./{path}")
        return done.data if done.status == 0 else None

    def create_tag(self, tag: str, commit: str, message: str, before: str | None = None) -> str:
        """Create an annotated tag without a reference to it; return its object.

        It has the time of its commit, so that the same release has the same tag; but it is older
        than the commit `before`, because Gitea's latest release is the one with the newest tag.
        """
        time = self.committed_at(commit)
        if before is not None:
            time = min(time, self.committed_at(before) - 1)
        at = f"{time} +0000"
        ident = self._git.ask("var", "GIT_COMMITTER_IDENT")
        who = ident.rsplit(" ", 2)[0] if ident else "Lapwing <lapwing@localhost>"
        text = f"object {commit}\ntype commit\ntag {tag}\ntagger {who} {at}\n\n{message}"
        return self._git.text("mktag", given=text.encode())

    def push_tag(self, remote: str, tag: str, found: str) -> None:
        """Push an object as a tag, never with force."""
        self._contact("push", "--porcelain", remote, f"{found}:refs/tags/{tag}")

    def check_push(self, remote: str, commit: str) -> None:
        """Log in for a push, and push nothing."""
        self._contact("push", "--porcelain", "--dry-run", remote, f"{commit}:refs/lapwing/check")

    def _contact(self, *arguments: str) -> str:
        """Return the output of a command that contacts the remote."""
        done = self._git.run(*arguments)
        if done.status == 0:
            return done.text
        messages = f"{done.messages}\n{self._git.redact(done.data)}"
        remote = arguments[-1] if arguments[0] == "ls-remote" else arguments[-2]
        if _LOGIN.search(messages):
            raise ForgeLoginError(
                f"Authentication failed at the remote `{remote}`.",
                hint="Set LAPWING_FORGE_TOKEN to a valid token.",
                detail=messages,
            )
        if arguments[0] == "push" and _REFUSED.search(messages):
            raise ReleaseError(
                f"The remote `{remote}` refuses the tag.",
                hint="If tags are protected there, allow the owner of the token to create `v*`.",
                detail=messages,
            )
        what = {"push": "push to", "fetch": "fetch from"}.get(arguments[0], "read")
        raise ReleaseError(
            f"Cannot {what} the remote `{remote}`.",
            hint="Check the network and `git remote -v`, then run the command again: completed "
            "steps are not repeated.",
            detail=messages,
        )


def _reach(since: str | None, until: str) -> list[str]:
    """Return git's arguments for the commits after one (all, with None) up to another."""
    return [until] if since is None else [until, f"^{since}"]
