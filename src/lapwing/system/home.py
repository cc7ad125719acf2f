"""The state folder (LAPWING_HOME): private to its user. No other folder is used.

A marker file distinguishes it from a folder named by mistake, whose permissions and content must
not change. Homes of versions without the marker are known by files that every one of them has.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from lapwing.errors import UsageError

MARKER = ".lapwing-home"
EARLIER = ("agent/lock", "desired.git/HEAD", "secrets/lock")
"""Files by which a home without the marker is known."""
BUILT = {"logs", "layers", "releases", "images", "toolchains", "remotes"}
"""The folders of a home without the marker that only builds have used."""


OWN_HOME = "Run the command as its owner, or set LAPWING_HOME to a folder of your own."
NEW_HOME = "Set LAPWING_HOME to a new or empty folder."


def check_access(home: Path) -> None:
    """Raise UsageError for the home of another user, which this one may not use."""
    if not hasattr(os, "geteuid"):
        return  # Windows
    try:
        owner = home.stat().st_uid
    except PermissionError:
        raise UsageError(_denied(home), hint=OWN_HOME) from None
    except OSError:
        return
    if owner != os.geteuid() and not os.access(home, os.R_OK | os.W_OK | os.X_OK):
        raise UsageError(_not_own(home, owner), hint=OWN_HOME)


def check_folder(home: Path) -> None:
    """Raise UsageError if the home, or what is above it, is a file."""
    try:
        is_folder = stat.S_ISDIR(home.stat().st_mode)
    except NotADirectoryError:
        is_folder = False
    except OSError:
        return
    if not is_folder:
        raise UsageError(_no_folder(home), hint=NEW_HOME)


def prepare(home: Path) -> None:
    """Create a state folder, or make an existing one private (0700).

    Raises UsageError, and changes nothing, if it is a folder for something else; OSError.
    """
    problem = find_problem(home)
    if problem is not None:
        raise UsageError(problem, hint=f"{NEW_HOME} Nothing was changed.")
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
        return _no_folder(home)
    except PermissionError:
        return _denied(home)
    if found.st_uid != os.geteuid():
        return _not_own(home, found.st_uid)
    ours = MARKER in names or any((home / name).exists() for name in EARLIER)
    foreign = [name for name in names if name != "lost+found"]
    ours = ours or (BUILT.issuperset(foreign) and (home / "logs/build").is_dir())
    if foreign and not ours:
        return f"LAPWING_HOME is {home}, which contains other files ({foreign[0]})."
    return None


def _denied(home: Path) -> str:
    return f"Permission denied: cannot read LAPWING_HOME {home}."


def _no_folder(home: Path) -> str:
    return f"LAPWING_HOME is {home}, which is not a folder."


def _not_own(home: Path, owner: int) -> str:
    return f"LAPWING_HOME {home} belongs to another user (uid {owner})."
