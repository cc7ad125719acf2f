"""Load what `lapwing release` releases: a stack, or another project with a release file.

    lapwing.yaml           a stack; `registry`, `release` and `mirror` are sections of it
    lapwing-release.yaml   any other project: its name, and the same sections

The nearest file in a folder or its parents counts; in one folder, the stack file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lapwing.errors import Problem, StackFileError
from lapwing.stack import source
from lapwing.stack.delivery import Project
from lapwing.stack.load import FILE, LoadedStack, environments, load, validate
from lapwing.stack.load import find as nearest

if TYPE_CHECKING:
    from lapwing.stack.model import Stack

RELEASE_FILE = "lapwing-release.yaml"


@dataclass(frozen=True, slots=True)
class Released:
    """A stack or project to release; `stacks` is the stack in each environment, if it is one."""

    name: str
    path: Path
    delivery: Stack | Project
    stacks: tuple[LoadedStack, ...] = ()

    @property
    def folder(self) -> Path:
        """The folder of the file; paths in the file are relative to it."""
        return self.path.parent


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
        stack = load(path, folders=False).stack
        return Released(stack.stack, path, stack, tuple(environments(path, folders=False)))
    from lapwing.stack.release_rules import RULES

    written = source.read(path)
    problems: list[Problem] = []
    if not isinstance(written.data, dict):
        hint = "It starts with `project: NAME`."
        raise StackFileError([Problem("The file must be a mapping.", written.where(()), hint)])
    project = validate(written, problems, Project)
    if project is None:
        raise StackFileError(problems)
    for rule in RULES:
        for violation in rule(project):
            where = written.where(violation.path, key=violation.key)
            problems.append(Problem(violation.message, where, violation.hint))
    if problems:
        raise StackFileError(problems)
    return Released(project.project, path, project)
