"""What is released: a stack, or a project that is none and has a release file.

    lapwing.yaml           a stack; `registry`, `release` and `mirror` are sections of it
    lapwing-release.yaml   any other project: its name, and the same sections

The nearest one counts, looking up from a folder; in one folder, the stack file.
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
    """A thing that is released. `stacks` is the stack in each environment, empty for a project that
    is none."""

    name: str
    path: Path
    delivery: Stack | Project
    stacks: tuple[LoadedStack, ...] = ()

    @property
    def folder(self) -> Path:
        """The folder of the file; paths in it are relative to this."""
        return self.path.parent


def find(start: Path) -> Path:
    """The file that says what is released from a folder. Raises UsageError."""
    hint = (
        "`lapwing init` writes a stack file. For a project that is no stack, write "
        f"`project: NAME` into {RELEASE_FILE}."
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
        hint = "It begins with `project: NAME`."
        problems = [Problem("The file has to be a mapping.", written.where(()), hint)]
        raise StackFileError(problems)
    project = validate(written, problems, Project)
    if project is None:
        raise StackFileError(problems)
    for rule in RULES:
        for breach in rule(project):
            where = written.where(breach.path, key=breach.key)
            problems.append(Problem(breach.message, where, breach.hint))
    if problems:
        raise StackFileError(problems)
    return Released(project.project, path, project)
