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
