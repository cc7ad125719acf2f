"""What every target shares."""

from __future__ import annotations

import getpass
from pathlib import Path

from lapwing.errors import UsageError
from lapwing.settings import Settings
from lapwing.system.git import Git


def actor_name(settings: Settings, folder: Path) -> str:
    """Return who acts: LAPWING_ACTOR, else git's `user.name`, else the login name."""
    if settings.actor:
        return settings.actor
    try:
        found = Git(folder, settings.environ).ask("config", "user.name")
    except UsageError:
        found = None  # git is not installed.
    try:
        return found or getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
