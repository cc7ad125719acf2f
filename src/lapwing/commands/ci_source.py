"""Where the workflow installs Lapwing from: a source whose content cannot change."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path
from urllib.parse import unquote, urlsplit

from lapwing import DISTRIBUTION
from lapwing.errors import UsageError
from lapwing.system.git import Git, without_login

_PINNED = re.compile(
    rf"{DISTRIBUTION}==[0-9A-Za-z.+!]+"
    r"|https://[^\s@$?]+\.whl#sha256=[0-9a-f]{64}"
    r"|git\+(?:https://|ssh://(?:[\w-]+@)?)[^\s@$?]+@(?:[0-9a-f]{40}|[0-9a-f]{64})"
)
"""Sources whose content cannot change. Their URLs have no login and no query, because the workflow
is committed."""
_SCP = re.compile(r"^([\w.-]+@[\w.-]+):(?!/)(.+)$")
"""git's short form of an SSH address, `git@HOST:PATH`, which pip does not read."""
_SSH_USER = re.compile(r"ssh://([\w-]+)(?::[^/]*)?@")


def installed_from() -> str:
    """Return the source of this installation. Raises UsageError as `source_of` does."""
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        return source_of(distribution(DISTRIBUTION).read_text("direct_url.json"))
    except PackageNotFoundError as error:
        raise _no_source("is not installed") from error


def source_of(direct_url: str | None) -> str:
    """Return the source that an installation states, else its version on an index.

    A clone that Lapwing is installed from counts as the pushed commit of its remote repository.
    Raises UsageError if CI could not install from it. Source: PEP 610 (direct_url.json).
    """
    from lapwing import __version__

    if not direct_url:
        return f"{DISTRIBUTION}=={__version__}"
    stated = json.loads(direct_url)
    url, commit = stated.get("url", ""), stated.get("vcs_info", {}).get("commit_id")
    digest = stated.get("archive_info", {}).get("hashes", {}).get("sha256")
    for source in (f"git+{_address(url)}@{commit}", f"{url}#sha256={digest}"):
        if _PINNED.fullmatch(source):
            return source
    path = Path(unquote(urlsplit(url).path))
    if url.startswith("file://") and path.is_dir():
        return remote_of(path)
    raise _no_source(f"is installed from {without_login(url)}, which CI cannot install")


def remote_of(clone: Path) -> str:
    """Return the remote of a clone with its commit. Raises UsageError if it has other content."""
    git = Git(clone, os.environ, UsageError)
    url, head = git.ask("remote", "get-url", "origin") or "", git.ask("rev-parse", "HEAD")
    source = f"git+{_address(url)}@{head}"
    if not url:
        problem = "which is no git clone with a remote `origin`"
    elif not _PINNED.fullmatch(source):
        problem = f"whose remote is {without_login(url)}: neither https nor ssh"
    elif git.changes():
        problem = "which has uncommitted changes"
    elif not git.ask("branch", "--remotes", "--contains", "HEAD"):
        problem = "whose commit is not pushed"
    else:
        return source
    raise _no_source(f"is installed from {clone}, {problem}")


def _address(remote: str) -> str:
    """Return the URL of a remote as pip reads it, without a password or token.

    An SSH address keeps its user, such as `git`, which is no secret.
    """
    url = _SCP.sub(r"ssh://\1/\2", remote)
    user = _SSH_USER.match(url)
    address = without_login(url).partition("#")[0]
    return address.replace("://", f"://{user[1]}@", 1) if user else address


def _no_source(why: str) -> UsageError:
    return UsageError(
        f"Lapwing {why}, so the workflow has nothing to install it from.",
        hint=f"Give the source with `--install-from`: {DISTRIBUTION}==VERSION, the URL of a wheel "
        "with #sha256=DIGEST, git+URL@COMMIT, or a requirements file with hashes.",
    )


def pip_arguments(source: str, top: Path, *, keyless: bool = False) -> str:
    """Return pip's arguments for a source, quoted for a shell; `keyless`: with this extra.

    A requirements file has to list what the extra needs. Raises UsageError.
    """
    if _PINNED.fullmatch(source):
        extra, version = f"{DISTRIBUTION}[keyless]", source.removeprefix(f"{DISTRIBUTION}==")
        if keyless:
            source = f"{extra}=={version}" if version != source else f"{extra} @ {source}"
        return shlex.quote(source)
    file = top / source
    if file.is_file() and file.resolve().is_relative_to(top):
        return f'--require-hashes -r "$GITHUB_WORKSPACE"/{shlex.quote(source)}'
    raise UsageError(
        f"--install-from {without_login(source)!r} is neither a pinned source nor a file in {top}.",
        hint=f"Use {DISTRIBUTION}==VERSION, https://HOST/FILE.whl#sha256=DIGEST, "
        "git+https://HOST/REPOSITORY@COMMIT with the whole commit, or a requirements file.",
    )
