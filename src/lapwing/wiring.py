"""Wiring: the only place that chooses implementations.

The command line and the console ask here for what they need by its role, and get the one thing that
plays it. Everything is made when it is asked for, so a verb imports only what it uses.
"""

from __future__ import annotations

import getpass
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from lapwing.settings import Settings

if TYPE_CHECKING:
    from lapwing.build.release import ReleaseStore
    from lapwing.desired.remote import Remote
    from lapwing.desired.repository import DesiredRepository
    from lapwing.desired.secrets import SecretStore
    from lapwing.registry.client import Client
    from lapwing.release.chart import ChartMaker
    from lapwing.release.forge.api import Api
    from lapwing.release.forge.model import Forge
    from lapwing.release.git import Checkout
    from lapwing.release.remote import ForgeKind, Place
    from lapwing.stack.project import Released


def desired(settings: Settings) -> DesiredRepository:
    """The desired-state repository of this machine."""
    from lapwing.desired.repository import DesiredRepository

    return DesiredRepository(settings.desired)


def desired_at(settings: Settings, url: str) -> Remote:
    """A desired-state repository that lives elsewhere."""
    from lapwing.desired.remote import Remote

    return Remote(url, settings.remotes, settings.environ)


def revision(settings: Settings, folder: Path) -> str:
    """The commit of a folder, `-dirty` if it has changes; empty where it is in no repository."""
    from lapwing.build.source import revision

    return revision(folder, settings.environ)


def releases(settings: Settings) -> ReleaseStore:
    """The releases on this machine."""
    from lapwing.build.release import ReleaseStore

    return ReleaseStore(settings.releases)


def secrets(settings: Settings) -> SecretStore:
    """The encrypted secrets of this machine."""
    from lapwing.desired.secrets import SecretStore

    return SecretStore(settings.secrets)


def registries(settings: Settings, *, plain_http: bool = False) -> Client:
    """The client of OCI registries, as an async context."""
    from lapwing.registry.client import Client

    return Client(settings, plain_http=plain_http)


def checkout(settings: Settings, folder: Path) -> Checkout:
    """The git repository that a folder is in."""
    from lapwing.release.git import Checkout

    return Checkout(folder, settings.environ)


def forge_api(settings: Settings, place: Place, kind: ForgeKind) -> Api:
    """The REST API of a repository's forge; close it in the end."""
    from lapwing.release.forge import github
    from lapwing.release.forge.api import Api

    token = settings.forge_token(kind)
    if kind == "github":
        base, headers = github.api_of(place.web), github.headers(token)
    else:
        base = f"{place.web}/api/v1"
        headers = {"Authorization": f"token {token}"} if token else {}
    return Api(base, str(place), token, headers, settings.environ)


def forge(api: Api, place: Place, kind: ForgeKind) -> Forge:
    """The releases of a repository on its forge."""
    from lapwing.release.forge.gitea import Gitea
    from lapwing.release.forge.github import GitHub

    chosen = GitHub if kind == "github" else Gitea
    return chosen(api, place.owner, place.name)


def chart(
    settings: Settings, released: Released, source: Checkout, commit: str
) -> ChartMaker | str:
    """What makes the chart of a release; where there is none, why."""
    from lapwing.release.chart import FolderChart, StackChart

    wanted = released.delivery.release.chart
    if wanted is False:
        return "the file says `chart: false`"
    if wanted is not None:
        return FolderChart(source, commit, wanted, settings.environ)
    if not released.stacks:
        return "the project names no `chart`"
    clusters = [s for s in released.stacks if s.settings.target == "kubernetes"]
    if not clusters:
        return "no environment of the stack is a cluster"
    if any(service.image is None for c in clusters for service in c.stack.services.values()):
        return "not every service names its `image`"
    return StackChart(clusters, settings.environ)


def file_at(settings: Settings, path: Path, revision: str) -> bytes:
    """A file of a git repository as it was at a revision."""
    from lapwing.build.source import file_at

    return file_at(path, revision, settings.environ)


def actor(settings: Settings, folder: Path) -> str:
    """Who acts: LAPWING_ACTOR, else git's user.name, else the login name."""
    if settings.actor:
        return settings.actor
    try:
        found = subprocess.run(
            ["git", "-C", str(folder), "config", "user.name"],
            capture_output=True,
            text=True,
            check=False,
        ).stdout.strip()
    except OSError:
        found = ""
    if found:
        return found
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
