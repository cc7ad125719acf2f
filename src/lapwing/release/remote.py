"""The repository of a git remote: host, owner and name, from the remote's URL.

    https://git.example:3000/tools/acme/web.git     the sub-path `tools` belongs to the forge
    ssh://git@git.example:2222/acme/web.git
    git@git.example:acme/web.git                    scp-like: no scheme, a colon behind the host

A login in a URL is dropped: nothing made from a `RemoteRepository` can show it. Source of the
forms: git's documentation, "Git URLs".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from lapwing.errors import ReleaseError
from lapwing.system.git import without_login

ForgeKind = Literal["gitea", "github"]

_SCP = re.compile(r"(?:[^@/:\s]+@)?(\[[0-9a-fA-F:]+\]|[^/:\[\]\s]+):(?!//)(.+)")
_PART = re.compile(r"[A-Za-z0-9_.-]+")
_OTHER_NAMES = {"ssh.github.com": "github.com", "altssh.gitlab.com": "gitlab.com"}
"""Hosts for a forge's SSH at port 443."""


@dataclass(frozen=True, slots=True)
class RemoteRepository:
    """A repository on a forge. `web` is the forge's address, without a trailing slash."""

    web: str
    owner: str
    name: str

    @property
    def host(self) -> str:
        """The host, with a port that is not the scheme's default."""
        return urlsplit(self.web).netloc

    @property
    def page(self) -> str:
        """The address of the repository's web page."""
        return f"{self.web}/{self.owner}/{self.name}"

    def __str__(self) -> str:
        return f"{self.host}/{self.owner}/{self.name}"


def parse_remote(url: str, *, web: str | None = None) -> RemoteRepository:
    """Parse a remote's URL; `web` is the forge's address if the file has one.

    Raises ReleaseError if the URL is not a repository on a forge.
    """
    shown = without_login(url)
    scheme, netloc, path = _split(url)
    if scheme is None:
        raise ReleaseError(
            f"The remote is a folder ({shown}), not a repository on a forge.",
            hint="Releases need a remote on Gitea or GitHub; `forge: none` creates only the tag.",
        )
    parts = [part for part in path.removesuffix("/").removesuffix(".git").split("/") if part]
    if len(parts) < 2 or not all(_PART.fullmatch(p) and p.strip(".") for p in parts):
        raise ReleaseError(
            f"The remote {shown} has no owner and repository.",
            hint="Its URL has to end like `/owner/name.git`.",
        )
    if web is None:
        above = "".join(f"/{part}" for part in parts[:-2])
        web = f"{scheme}://{netloc}{above}"
    return RemoteRepository(web.rstrip("/"), parts[-2], parts[-1])


def forge_kind(remote: RemoteRepository) -> ForgeKind:
    """Return the forge of a host: GitHub by its names, else Gitea (and Forgejo)."""
    host = urlsplit(remote.web).hostname or ""
    return "github" if host == "github.com" or host.endswith(".ghe.com") else "gitea"


def forge_registry(remote: RemoteRepository, kind: ForgeKind) -> str:
    """Return the forge's own image registry with the owner's folder, in lower case (OCI)."""
    host = remote.host
    if kind == "github":
        host = "ghcr.io" if host == "github.com" else f"containers.{host}"
    return f"{host}/{remote.owner}".lower()


def _split(url: str) -> tuple[str | None, str, str]:
    """Return the web scheme, the host (with the port of an http URL) and the path.

    A folder has no scheme.
    """
    found = re.match(r"(?:git\+)?(https?|ssh|git)(?:\+(?:ssh|git))?://", url)
    if found:
        parts = urlsplit(url[found.start(1) :])
        host = _bracketed((parts.hostname or "").lower())
        host = _OTHER_NAMES.get(host, host)
        if found[1] not in ("http", "https"):
            return "https", host, parts.path  # Its port is ssh's.
        standard = {"http": 80, "https": 443}[found[1]]
        port = _port(parts.netloc)
        return found[1], host if port in (None, standard) else f"{host}:{port}", parts.path
    scp = _SCP.fullmatch(url)
    if scp and "://" not in url and not re.match(r"[A-Za-z]:[\\/]", url):
        host = scp[1].lower()
        return "https", _OTHER_NAMES.get(host, host), scp[2]
    return None, "", url


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _port(netloc: str) -> int | None:
    found = re.search(r":(\d{1,5})$", netloc)
    return int(found[1]) if found else None
