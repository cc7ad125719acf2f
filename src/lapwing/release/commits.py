"""Commit messages: the branches that a merge names, and Conventional Commits.

The branches of a commit are those of its pull request, if the forge was asked and knows one: so a
squash, a fast-forward and an edited message count. Otherwise the message decides, for commits with
two parents or more. The subjects of merges are those that git and forges generate:

    Merge branch 'feature/x'                                     git; ` into main` and ` of URL` may
    Merge branches 'feature/a' and 'feature/b'                   follow
    Merge remote-tracking branch 'origin/feature/x'              git
    Merge branch 'feature/x' into 'main'                         GitLab
    Merge pull request #3 from owner/feature/x                   GitHub
    Merge pull request 'Title' (#3) from feature/x into main     Gitea; or `!3`
    Merge pull request 'Title' (#3) from owner/name:feature/x into main      Gitea, from a fork
    Merge pull request 3 from feature/x into main                Azure DevOps
    Merged in feature/x (pull request #3)                        Bitbucket, also for a squash
    Pull request #3: Title                                       Bitbucket Data Center; in its body
        Merge in PROJECT/name from feature/x to main

Sources: git's builtin/fmt-merge-msg.c; Gitea 1.26, services/pull/merge.go; GitHub's documentation
("About pull request merges"); Atlassian's and Microsoft's documentation of merges; Conventional
Commits 1.0.0 (the header, and item 16: a breaking change's footer is in capitals).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_GITEA = re.compile(r"Merge pull request '.*' \([#!]\d+\) from (?:\S+:)?(\S+) into (\S+)")
_GITHUB = re.compile(r"Merge pull request #\d+ from [^/\s]+/(\S+)")
_AZURE = re.compile(r"Merge pull request \d+ from (\S+) into (\S+)")
_BITBUCKET = re.compile(r"Merged in (\S+) \(pull request #\d+\)")
_BITBUCKET_SERVER = re.compile(r"^Merge in \S+ from (\S+) to (\S+)$", re.M)
_GIT = re.compile(
    r"Merge (remote-tracking )?branch(?:es)? ('.*?'(?:(?:, | and )'.*?')*)"
    r"(?: of \S+)?(?: into '?(\S+?)'?)?"
)
_QUOTED = re.compile(r"'(.*?)'")

_HEADER = re.compile(r"([A-Za-z][A-Za-z0-9-]*)(?:\(([^()]*)\))?(!)?: +(\S.*)")
_BREAKING = re.compile(r"^BREAKING[ -]CHANGE: +(.*)$", re.MULTILINE)
_RELEASE_AS = re.compile(r"^Release-As: *(.*?) *$", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit: its hash, those of its parents, and its message.

    `branches` are those of its merged pull requests, where the forge knows any.
    """

    sha: str
    parents: tuple[str, ...]
    message: str
    branches: tuple[str, ...] = ()

    @property
    def subject(self) -> str:
        """The first line."""
        return self.message.strip().partition("\n")[0].strip()

    @property
    def body(self) -> str:
        """The text after the first line."""
        return self.message.strip().partition("\n")[2].strip()

    @property
    def is_merge(self) -> bool:
        """Whether the commit is a merge."""
        return len(self.parents) > 1


@dataclass(frozen=True, slots=True)
class Conventional:
    """A message that follows Conventional Commits. `breaking` describes a breaking change."""

    kind: str
    scope: str | None
    description: str
    breaking: str | None


def merged_branches(commit: Commit) -> tuple[str, ...]:
    """Return the branches that a commit merged, by the forge, else by its message.

    A branch that is merged into itself (a `git pull`) does not count.
    """
    if commit.branches:
        return commit.branches
    found = _BITBUCKET.fullmatch(commit.subject)
    if found:
        return (found[1],)
    if not commit.is_merge:
        return ()
    found = _BITBUCKET_SERVER.search(commit.body)
    if found and commit.subject.startswith("Pull request #"):
        return _except((found[1],), found[2])
    found = _GITEA.fullmatch(commit.subject)
    if found:
        return _except((found[1],), found[2])
    found = _GITHUB.fullmatch(commit.subject)
    if found:
        return (found[1],)
    found = _AZURE.fullmatch(commit.subject)
    if found:
        return _except((found[1],), found[2])
    found = _GIT.fullmatch(commit.subject)
    if not found:
        return ()
    names = _QUOTED.findall(found[2])
    if found[1]:
        names = [name.partition("/")[2] for name in names]  # Without the name of the remote.
    return _except(tuple(names), found[3])


def title(commit: Commit) -> str:
    """Return the title of a merge.

    Gitea has the title of the pull request in the subject, GitHub in the body; else it is the
    branches.
    """
    found = re.fullmatch(r"Merge pull request '(.*)' \([#!](\d+)\) from .*", commit.subject)
    if found:
        return f"{found[1]} (#{found[2]})"
    found = re.fullmatch(r"Merge pull request #(\d+) from .*", commit.subject)
    if found and commit.body:
        return f"{commit.body.partition(chr(10))[0].strip()} (#{found[1]})"
    merged = ", ".join(merged_branches(commit)) if commit.is_merge else ""
    return merged or commit.subject


def conventional(commit: Commit) -> Conventional | None:
    """Parse a message as a Conventional Commit; None if it is not one."""
    found = _HEADER.fullmatch(commit.subject)
    if found is None:
        return None
    kind, scope, mark, description = found.groups()
    footer = _BREAKING.search(commit.body)
    breaking = (footer[1].strip() or description) if footer else (description if mark else None)
    return Conventional(kind.lower(), scope or None, description, breaking)


def release_as(commit: Commit) -> str | None:
    """Return the version in a footer such as `Release-As: 1.0.0`."""
    found = _RELEASE_AS.search(commit.body)
    return found[1] if found else None


def _except(names: tuple[str, ...], target: str | None) -> tuple[str, ...]:
    return tuple(name for name in names if name != target)
