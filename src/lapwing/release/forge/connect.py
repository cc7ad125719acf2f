"""Connecting to the forge of a repository."""

from __future__ import annotations

from lapwing.release.forge import github
from lapwing.release.forge.api import Api
from lapwing.release.forge.gitea import Gitea
from lapwing.release.forge.github import GitHub
from lapwing.release.forge.model import Forge
from lapwing.release.remote import ForgeKind, Place
from lapwing.settings import Settings


def connect(settings: Settings, place: Place, kind: ForgeKind) -> tuple[Api, Forge]:
    """Return the REST API of a repository's forge, to be closed at the end, and its releases."""
    token = settings.forge_token(kind)
    if kind == "github":
        base, headers = github.api_of(place.web), github.headers(token)
    else:
        base = f"{place.web}/api/v1"
        headers = {"Authorization": f"token {token}"} if token else {}
    api = Api(base, str(place), token, headers, settings.environ)
    return api, (GitHub if kind == "github" else Gitea)(api, place.owner, place.name)
