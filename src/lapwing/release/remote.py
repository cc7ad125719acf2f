"""Where a git remote is: host, owner and repository, from the URL that git has. Pure.

    https://git.example:3000/tools/acme/web.git     the sub-path `tools` belongs to the forge
    ssh://git@git.example:2222/acme/web.git
    git@git.example:acme/web.git                    scp-like: no scheme, a colon behind the host

A login in a URL is never kept: nothing that is made from a `Place` can show it. Source of the
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
"""Hosts that exist to reach a forge's ssh at port 443."""


@dataclass(frozen=True, slots=True)
class Place:
    """A repository on a forge. `web` is the forge's address, without a slash at its end."""

    web: str
    owner: str
    name: str

    @property
    def host(self) -> str:
        """The host, with a port that is not its scheme's."""
        return urlsplit(self.web).netloc

    @property
    def page(self) -> str:
        """The address of the repository for people."""
        return f"{self.web}/{self.owner}/{self.name}"

    def __str__(self) -> str:
        return f"{self.host}/{self.owner}/{self.name}"


def parse(url: str, *, web: str | None = None) -> Place:
    """The repository that a remote's URL names; `web` is the forge's address where people gave it.

    Raises ReleaseError if the URL leads to no forge.
    """
    shown = without_login(url)
    scheme, netloc, path = _split(url)
    if scheme is None:
        raise ReleaseError(
            f"The remote is a folder ({shown}), not a repository on a forge.",
            hint="Releases need a remote on Gitea or GitHub; `forge: none` makes only the tag.",
        )
    parts = [part for part in path.removesuffix("/").removesuffix(".git").split("/") if part]
    if len(parts) < 2 or not all(_PART.fullmatch(p) and p.strip(".") for p in parts):
        raise ReleaseError(
            f"The remote {shown} does not name an owner and a repository.",
            hint="It should end like `/owner/name.git`.",
        )
    if web is None:
        above = "".join(f"/{part}" for part in parts[:-2])
        web = f"{scheme}://{netloc}{above}"
    return Place(web.rstrip("/"), parts[-2], parts[-1])


def kind_of(remote: Place) -> ForgeKind:
    """Which forge serves a host: GitHub by its names, else Gitea (which Forgejo is, too)."""
    host = urlsplit(remote.web).hostname or ""
    return "github" if host == "github.com" or host.endswith(".ghe.com") else "gitea"


def registry_of(remote: Place, kind: ForgeKind) -> str:
    """The forge's own registry of images, with the owner's folder, in lower case as OCI demands."""
    host = remote.host
    if kind == "github":
        host = "ghcr.io" if host == "github.com" else f"containers.{host}"
    return f"{host}/{remote.owner}".lower()


def _split(url: str) -> tuple[str | None, str, str]:
    """The web scheme, the host (with a port where it is the web's, too) and the path; no scheme
    for a folder."""
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
