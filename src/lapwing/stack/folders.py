"""Check paths that a file names: sources and `env_file` of services, folders of released projects.

The rules (`rules.py`) only read the file; these checks also read the disk.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lapwing.errors import Problem, did_you_mean
from lapwing.stack.source import KeyPath, Source
from lapwing.system.files import real_path

if TYPE_CHECKING:
    from lapwing.stack.delivery import Delivery
    from lapwing.stack.model import Stack


def check_sources(read: Source, stack: Stack) -> Iterator[Problem]:
    """Yield a problem for each source folder that is missing or outside of the repository."""
    top = read.path.parent
    for name, service in stack.services.items():
        if service.build is None:
            continue
        where = read.where(("services", name, "build", "path"))
        folder = top / service.build.path
        if not folder.is_dir():
            hint = _similar(folder)
            yield Problem(f"The folder {service.build.path!r} does not exist.", where, hint)
        elif not real_path(folder).is_relative_to(_repository_root(top)):
            yield Problem(f"The folder {service.build.path!r} is outside of the repository.", where)


def check_env_files(read: Source, stack: Stack, environment: str) -> Iterator[Problem]:
    """Yield a problem for each `env_file` outside of the repository or behind a symbolic link.

    Their content is not part of the deployed commit.
    """
    top = real_path(read.path.parent)
    for name, service in stack.services.items():
        own: KeyPath = ("services", name, "env_file")
        overlay: KeyPath = ("environments", environment, *own)
        for index, file in enumerate(service.env_file):
            where = read.where((*(overlay if overlay in read.positions else own), index))
            path = Path(os.path.normpath(top / file))
            if not path.is_relative_to(_repository_root(top)):
                hint = "Copy it into the repository and commit it."
                yield Problem(f"The file {file!r} is outside of the repository.", where, hint)
            elif real_path(path) != path:
                hint = "Name the file that it links to, or replace the link by a file."
                yield Problem(f"The path {file!r} contains a symbolic link.", where, hint)


def check_projects(read: Source, delivery: Delivery) -> Iterator[Problem]:
    """Yield a problem for each missing folder of a project, and for what it includes."""
    top = read.path.parent
    for name, project in delivery.release.projects.items():
        at: KeyPath = ("release", "projects", name)
        if not (top / project.path).is_dir():
            hint = _similar(top / project.path)
            message = f"The folder {project.path!r} does not exist."
            yield Problem(message, read.where((*at, "path")), hint)
        for index, included in enumerate(project.include):
            if not (top / included).exists():
                where = read.where((*at, "include", index))
                yield Problem(f"{included!r} does not exist.", where, _similar(top / included))


def _similar(path: Path) -> str | None:
    """Return a hint with similar names in the folder of a missing path."""
    beside = path.parent.iterdir() if path.parent.is_dir() else ()
    return did_you_mean(path.name, sorted(found.name for found in beside))


def _repository_root(folder: Path) -> Path:
    """Return the root of the git repository, or the folder itself."""
    resolved = real_path(folder)
    for candidate in (resolved, *resolved.parents):
        if (candidate / ".git").exists():
            return candidate
    return resolved
