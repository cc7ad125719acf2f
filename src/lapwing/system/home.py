"""The state folder (LAPWING_HOME): created for its user only, and never anybody else's folder.

A marker file tells it from a folder that was named by mistake, whose permissions and content must
not change. Homes of versions without the marker are known by files that every one of them has.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from lapwing.errors import UsageError

MARKER = ".lapwing-home"
EARLIER = ("agent/lock", "desired.git/HEAD", "secrets/lock")
"""Files by which a home without the marker is known."""
BUILT = {"logs", "layers", "releases", "images", "toolchains", "remotes"}
"""The folders of a home without the marker that only builds have used."""


def prepare(home: Path) -> None:
    """Create a state folder, or make an existing one private (0700).

    Raises UsageError, and changes nothing, if it is a folder for something else; OSError.
    """
    problem = find_problem(home)
    if problem is not None:
        hint = "Set LAPWING_HOME to a new or empty folder. Nothing was changed."
        raise UsageError(problem, hint=hint)
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    if home.stat().st_mode & 0o077:
        home.chmod(0o700)
    with contextlib.suppress(OSError):  # A full disk: the next command tries again.
        (home / MARKER).touch(mode=0o600)


def find_problem(home: Path) -> str | None:
    """Return why a path cannot be a state folder; None if it can, or does not exist."""
    try:
        found = home.stat()
        names = sorted(p.name for p in home.iterdir())
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        return f"LAPWING_HOME is {home}, which is not a folder."
    except PermissionError:
        return f"Permission denied: cannot read LAPWING_HOME {home}."
    if found.st_uid != os.geteuid():
        return f"LAPWING_HOME {home} belongs to another user (uid {found.st_uid})."
    ours = MARKER in names or any((home / name).exists() for name in EARLIER)
    foreign = [name for name in names if name != "lost+found"]
    ours = ours or (BUILT.issuperset(foreign) and (home / "logs/build").is_dir())
    if foreign and not ours:
        return f"LAPWING_HOME is {home}, which contains other files ({foreign[0]})."
    return None
