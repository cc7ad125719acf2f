"""What every target shares."""

from __future__ import annotations

import getpass
import subprocess
from pathlib import Path

from lapwing.settings import Settings


def actor_name(settings: Settings, folder: Path) -> str:
    """Return who acts: LAPWING_ACTOR, else git's `user.name`, else the login name."""
    if settings.actor:
        return settings.actor
    try:
        found = subprocess.run(
            ["git", "-C", str(folder), "config", "user.name"],
            capture_output=True,
            text=True,
            check=False,
        ).stdout.strip()
        return found or getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
