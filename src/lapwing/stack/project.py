"""Load what `lapwing release` releases: a stack, or another project with a release file.

    lapwing.yaml           a stack; `registry`, `release` and `mirror` are sections of it
    lapwing-release.yaml   any other project: its name, and the same sections

The nearest file in a folder or its parents counts; in one folder, the stack file. With `release:
{projects: ...}` each project is released as if it had a file: the same value (`Released`), with its
folder, the prefix of its tags, and only the services that are built in that folder.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from lapwing.errors import Problem, StackFileError
from lapwing.stack import source
from lapwing.stack.delivery import Parts, Project, ReleasedProject
from lapwing.stack.folders import check_projects
from lapwing.stack.load import FILE, LoadedStack, environments, load, refuse, validate
from lapwing.stack.load import find as nearest

if TYPE_CHECKING:
    from lapwing.stack.model import Stack

RELEASE_FILE = "lapwing-release.yaml"


@dataclass(frozen=True, slots=True)
class Released:
    """A stack or project to release; `stacks` is the stack in each environment, if it is one.

    `prefix` is what its tags begin with. `paths` are empty for a whole repository; of a project in
    a repository of several, the first is its folder.
    """

    name: str
    path: Path
    delivery: Stack | Project
    stacks: tuple[LoadedStack, ...] = ()
    prefix: str = "v"
    paths: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """The folder of the file; paths in the file are relative to it."""
        return self.path.parent

    def projects(self) -> list[Released]:
        """Return what is released separately: the projects of the file, or the only one."""
        release = self.delivery.release
        if not release.projects:
            return [replace(self, prefix=_prefix(release))]
        return [self._project(name, entry) for name, entry in release.projects.items()]

    def _project(self, name: str, entry: ReleasedProject) -> Released:
        parts = {field: getattr(entry, field) for field in Parts.model_fields}
        release = self.delivery.release.model_copy(update={**parts, "projects": {}})
        delivery = self.delivery.model_copy(update={"release": release, "mirror": entry.mirror})
        stacks = tuple(_within(loaded, entry.path) for loaded in self.stacks)
        paths = (entry.path, *entry.include)
        return Released(name, self.path, delivery, stacks, _prefix(entry, name), paths)


def find(start: Path) -> Path:
    """Find the stack file or release file for a folder. Raises UsageError."""
    hint = (
        "Run `lapwing init` to create a stack file. For a project without a stack, write "
        f"`project: NAME` to {RELEASE_FILE}."
    )
    return nearest(start, (FILE, RELEASE_FILE), hint)


def read(path: Path) -> Released:
    """Read a stack file or a release file. Raises StackFileError with every problem found."""
    if path.name == FILE:
        loaded = load(path, folders=False)
        stacks = tuple(environments(path, folders=False))
        stack = loaded.stack
        refuse(check_projects(loaded.source or source.read(path), stack))
        return Released(stack.stack, path, stack, stacks)
    from lapwing.stack.release_rules import RULES

    written = source.read(path, "project")
    problems: list[Problem] = []
    project = validate(written, problems, Project)
    if project is None:
        raise StackFileError(problems)
    for rule in RULES:
        for violation in rule(project):
            where = written.where(violation.path, key=violation.key)
            problems.append(Problem(violation.message, where, violation.hint))
    refuse([*problems, *check_projects(written, project)])
    return Released(project.project, path, project)


def _prefix(parts: Parts, name: str | None = None) -> str:
    from lapwing.stack.release_rules import tag_form

    return tag_form(parts, name).removesuffix("{version}")


def _within(loaded: LoadedStack, folder: str) -> LoadedStack:
    """Return a stack with only the services that are built in a folder; all, in the top one."""
    top = PurePosixPath(folder)
    services = {
        name: service
        for name, service in loaded.stack.services.items()
        if top == PurePosixPath(".")
        or (service.build is not None and PurePosixPath(service.build.path).is_relative_to(top))
    }
    stack = loaded.stack.model_copy(update={"services": services})
    return replace(loaded, stack=stack)
