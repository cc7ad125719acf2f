"""Volumes: files of an application that are kept across its releases.

A volume is a folder below `data/` of LAPWING_HOME, shared by the services of an environment that
name it. A release has a link to it at each relative path (`build/builder.py` creates it); an
absolute path becomes a link of the machine, where the agent is permitted to create one.

What an application writes into its release instead is lost with the next one. `written` finds it.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from lapwing.build.release import RECORD
from lapwing.errors import ReplicaError
from lapwing.settings import SQLITE
from lapwing.system import locks
from lapwing.system.files import remove_tree

MAX_REPORTED = 5
"""Files of one release that are reported."""
_UPLOADS = ("uploads", "upload", "media", "user_uploads", "attachments")
_REFUSED = re.compile(
    r"PermissionError|EACCES|EROFS|readonly database|unable to open database file"
)
"""How Python, Node.js and SQLite report it."""
_GENERATED = ("__pycache__", "node_modules")


def variable(name: str) -> str:
    """Return the environment variable with the place of a volume."""
    return f"LAPWING_VOLUME_{name.upper().replace('-', '_')}"


def ensure(place: Path, initial: Path | None = None) -> None:
    """Create a volume, with the content that the source has at its path. Raises OSError.

    A volume is complete when its folder exists: the content is copied under another name first.
    Replicas that start at the same time wait for the one that creates the volume.
    """
    folder = place if place.name.startswith("volume.") else place.parent
    if not folder.is_dir():
        with locks.hold(folder.with_name(".volumes.lock")):
            if not folder.is_dir():
                _create(place, folder, initial)


def _create(place: Path, folder: Path, initial: Path | None) -> None:
    temporary = folder.with_name(f".{folder.name}.new")
    remove_tree(temporary)
    if initial is not None and initial.is_dir():
        shutil.copytree(initial, temporary, symlinks=True)
    else:
        temporary.mkdir()
        if initial is not None and initial.is_file() and folder != place:
            shutil.copyfile(initial, temporary / place.name)
    temporary.chmod(0o700)
    temporary.rename(folder)


def change_owner(place: Path, user: int, service: str) -> None:
    """Change the owner of a volume to the user of a container. Raises ReplicaError."""
    if place.stat().st_uid == user:
        return
    try:
        for path in (place, *place.rglob("*")):
            os.chown(path, user, user, follow_symlinks=False)
    except OSError as error:
        raise ReplicaError(
            f"{place} belongs to user {place.stat().st_uid}, and {service} runs as user {user}.",
            hint=f"Set `user: {os.getuid()}` of {service}, or run the agent as root.",
        ) from error


def link(path: Path, place: Path, name: str) -> None:
    """Create the link of a volume at an absolute path. Raises ReplicaError."""
    problem = "the path exists and is not a link to this volume"
    try:
        if path.is_symlink() and path.readlink() == place:
            return
        if path.is_symlink() and not path.exists() and _is_volume(path.readlink()):
            path.unlink()  # Its volume was removed, for instance with its home.
        if not path.is_symlink() and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(place)
            return
    except OSError as error:
        problem = error.strerror or str(error)
    raise ReplicaError(
        f"Volume {name} cannot be linked at {path}: {problem}.",
        hint="Use a path relative to the source folder, such as `./uploads`, and read the folder "
        f"from {variable(name)} in the application.",
    )


def _is_volume(place: Path) -> bool:
    return any(folder.name.startswith("volume.") for folder in (place, place.parent))


def refused(log: str) -> str | None:
    """Return the last line of a log in which a process reports that it was not permitted to write.

    Files of a release are read-only for it, so it may have tried to write into its release.
    """
    return next(
        (line.strip() for line in reversed(log.splitlines()) if _REFUSED.search(line)), None
    )


def written(release: Path) -> list[str]:
    """Return files that a process has written into its release. Walks it: call it in a thread."""
    found: list[str] = []
    try:
        built = (release / RECORD).stat().st_mtime
    except OSError:
        return found
    app = release / "app"
    for folder, folders, names in os.walk(app):
        folders[:] = [name for name in folders if name not in _GENERATED]
        for name in names:
            path = Path(folder, name)
            try:
                status = path.lstat()
            except OSError:  # Deleted meanwhile.
                continue
            if not stat.S_ISLNK(status.st_mode) and status.st_mtime > built:
                found.append(str(path.relative_to(app)))
    return sorted(found)[:MAX_REPORTED]


def advice(service: str, used: Mapping[str, str], app: Path, files: Iterable[str]) -> str:
    """Return how to keep files that a service wrote; `used` are its volumes."""
    taken, sentences = set(used), dict[PurePosixPath, str]()
    for file in files:
        path, name, move = _volume_for(app, file)
        if path not in sentences:
            free = next(n for n in (name, *(f"{name}-{i}" for i in range(2, 99))) if n not in taken)
            taken.add(free)
            add = "add" if move else "Add"
            sentences[path] = f"{move}{add} `{free}: ./{path}` to `volumes` of {service}."
    return " ".join(sentences.values())


def _volume_for(app: Path, file: str) -> tuple[PurePosixPath, str, str]:
    """Return path and name of a volume for a file, and what to change in the application first.

    A database is a separate volume, and so is a folder without source code. Another file has to
    be written elsewhere: as a volume it would be a folder, and code in a volume stays as it is.
    """
    path = PurePosixPath(re.sub(r"-(wal|shm|journal)$", "", file))
    usual = [p for p in path.parents if p.name in _UPLOADS]
    folder = usual[-1] if usual else path.parent
    move = ""
    if path.suffix in SQLITE:
        name = "data"
    elif folder.name and not any((app / folder).glob("*.py")):
        path, name = folder, re.sub(r"[^a-z0-9]+", "-", folder.name.lower()).strip("-0123456789")
    else:
        path, name, move = PurePosixPath("data"), "data", "Write it to a folder such as `data`: "
    return path, (name or "data")[:37].rstrip("-"), move
