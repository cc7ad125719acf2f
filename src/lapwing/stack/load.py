"""Loading: from a file to a stack that is right, or every problem it has with its place.

    source (data and places) -> overlay of the environment -> models -> rules -> folders on disk

All environments are checked each time, so a mistake in the overlay for production is found today
and not on the day of the first deployment there.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lapwing.errors import Problem, StackFileError, UsageError, Where
from lapwing.stack import source
from lapwing.stack.source import Path_, Source

if TYPE_CHECKING:
    from lapwing.stack.model import Environment, Stack
    from lapwing.stack.parts import Part

_Part = TypeVar("_Part", bound="Part")

FILE = "lapwing.yaml"
LOCAL = "local"
_SHORT = {"build": "path", "health": "path", "replicas": "min"}
"""The field of a service's part that its short form stands for, as in the models."""


@dataclass(frozen=True, slots=True)
class LoadedStack:
    """A stack as it is in one environment. `path` is the file, `settings` the environment's."""

    stack: Stack
    environment: str
    settings: Environment
    path: Path

    @property
    def folder(self) -> Path:
        """The folder of the file; paths in it are relative to this."""
        return self.path.parent


def find(
    start: Path, names: tuple[str, ...] = (FILE,), hint: str = "`lapwing init` writes a first one."
) -> Path:
    """The stack file of a folder: there, or in a folder above it. Of several `names`, the nearest
    file counts, and in one folder the first name. Raises UsageError, with the hint."""
    begin = start.absolute()
    if not begin.is_dir():
        raise UsageError(f"{start} is not a folder.", hint="Give the folder of a stack with -C.")
    for folder in (begin, *begin.parents):
        for name in names:
            if (folder / name).exists():
                return folder / name
    raise UsageError(f"There is no {' or '.join(names)} in {begin} or above it.", hint=hint)


def read_name(path: Path) -> str:
    """Only the stack's name, quickly: for verbs that ask about what runs.

    Raises StackFileError if the file cannot be read at all or has no name.
    """
    read = source.read(path)
    name = read.data.get("stack") if isinstance(read.data, dict) else None
    if not isinstance(name, str) or not name.replace("-", "a").isalnum():
        raise StackFileError(
            [
                Problem(
                    "The file has no `stack: NAME`.",
                    Where(path, 1, 1),
                    "`lapwing check` tells more.",
                )
            ]
        )
    return name


def read_environment(path: Path, environment: str) -> Mapping[str, Any]:
    """What the file says of an environment, quickly and unchecked: for verbs that only ask where it
    runs. Empty where it says nothing.

    Raises StackFileError if the file cannot be read at all.
    """
    found: Any = source.read(path).data
    for key in ("environments", environment):
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def load(path: Path, environment: str = LOCAL, *, folders: bool = True) -> LoadedStack:
    """Load a stack file for an environment; without `folders`, what it says is not compared with
    the disk. Raises StackFileError with every problem found."""
    from lapwing.stack.model import Environment, Stack

    read = source.read(path)
    if not isinstance(read.data, dict):
        where = read.where(())
        hint = "It begins with `stack: NAME`."
        raise StackFileError([Problem("The file has to be a mapping.", where, hint)])
    problems: list[Problem] = []
    base = validate(read, problems, Stack)
    if base is None:
        raise StackFileError(_sorted(problems))
    names = list(dict.fromkeys([LOCAL, *base.environments]))
    if environment not in names:
        raise _unknown(read, environment, names)
    loaded: dict[str, LoadedStack] = {}
    for name in names:
        settings = base.environments.get(name) or Environment()
        merged = _overlay(read, name, settings, problems)
        found: list[Problem] = []
        stack = validate(merged, found, Stack) if merged is not read else base
        if stack is not None:
            found += _breaches(merged, stack, name, settings)
            loaded[name] = LoadedStack(stack, name, settings, path)
        problems += _named(found, name, problems) if merged is not read else found
    if folders and not problems:
        problems += _folders(read, loaded[environment])
    if problems:
        raise StackFileError(_sorted(problems))
    return loaded[environment]


def names(path: Path) -> list[str]:
    """The environments of a stack file, `local` first. Raises StackFileError."""
    return list(dict.fromkeys([LOCAL, *load(path, folders=False).stack.environments]))


def environments(path: Path, only: str | None = None, *, folders: bool = True) -> list[LoadedStack]:
    """The stack in one environment, or in all but `local` (in that, where there is no other).

    Raises StackFileError.
    """
    if only is not None:
        return [load(path, only, folders=folders)]
    wanted = names(path)[1:] or [LOCAL]
    return [load(path, name, folders=folders) for name in wanted]


def validate(read: Source, problems: list[Problem], model: type[_Part]) -> _Part | None:
    """The data as a model; None if it is not one, with the problems added to the list."""
    from pydantic import ValidationError

    from lapwing.stack.explain import explain

    try:
        return model.model_validate(read.data)
    except ValidationError as failed:
        for error in failed.errors(include_url=False):
            details: dict[str, Any] = {**error, "loc": read.written(error["loc"])}
            message, hint, key = explain(details)
            path = tuple(p for p in error["loc"] if p != "[key]")
            if error["type"] == "missing":
                path, key = path[:-1], True
            problems.append(Problem(message, read.where(path, key=key), hint))
        return None


def _named(found: list[Problem], environment: str, known: list[Problem]) -> list[Problem]:
    """Problems that only an overlay makes, with the name of its environment."""
    return [
        Problem(f"In `{environment}`: {p.message}", p.where, p.hint)
        for p in found
        if p not in known
    ]


def _overlay(read: Source, name: str, settings: Environment, problems: list[Problem]) -> Source:
    """The source with an environment's overlay merged in; places lead to where it is written."""
    from lapwing.stack.explain import did_you_mean

    if not settings.services and not settings.resources:
        return read
    merged = Source(read.path, copy.deepcopy(read.data), dict(read.places))
    for room, overlays in (("services", settings.services), ("resources", settings.resources)):
        for target, changes in overlays.items():
            at: Path_ = ("environments", name, room, target)
            known = merged.data.get(room) or {}
            if target not in known:
                kind = room.removesuffix("s")
                hint = did_you_mean(target, known) or f"Known: {', '.join(known) or 'none'}."
                message = f"There is no {kind} `{target}` to change in `{name}`."
                problems.append(Problem(message, read.where(at, key=True), hint))
                continue
            if not isinstance(known[target], dict):
                continue
            known[target] = _merge(merged, known[target], changes, (room, target), at)
    return merged


def _merge(merged: Source, old: Any, new: Any, path: Path_, written: Path_) -> Any:
    """Deep-merge: maps are merged, null removes, anything else replaces."""
    short = _SHORT.get(str(path[-1])) if len(path) == 3 else None
    if short and isinstance(new, dict) and isinstance(old, str | int | float):
        old = {short: old}
    if isinstance(old, dict) and isinstance(new, dict):
        result = dict(old)
        for key, value in new.items():
            if value is None:
                result.pop(key, None)
            else:
                inner = (*path, key)
                result[key] = _merge(merged, old.get(key), value, inner, (*written, key))
        return result
    _move(merged, path, written)
    return new


def _move(merged: Source, path: Path_, written: Path_) -> None:
    """Let the places of a part be those of the part that replaces it."""
    for known in [p for p in merged.places if p[: len(path)] == path]:
        del merged.places[known]
    length = len(written)
    for known, place in list(merged.places.items()):
        if known[:length] == written:
            merged.places[(*path, *known[length:])] = place


def check_machine(loaded: LoadedStack) -> None:
    """What `load` leaves out for a `local` that the file does not speak of: whether one machine can
    run it. For verbs that mean to. Raises StackFileError."""
    from lapwing.stack.rules import machine_runs_sources

    read = source.read(loaded.path)
    problems = [
        Problem(f"In `{loaded.environment}`: {b.message}", read.where(b.path), b.hint)
        for b in machine_runs_sources(loaded.stack, loaded.settings)
    ]
    if problems:
        raise StackFileError(problems)


def _breaches(read: Source, stack: Stack, name: str, settings: Environment) -> Iterator[Problem]:
    """Breaches of the rules in one environment. A file that names its environments and no `local`
    need not run there: a stack of images, for a cluster, is right."""
    from lapwing.stack.rules import RULES, machine_runs_sources

    implied = name == LOCAL and LOCAL not in stack.environments and bool(stack.environments)
    for rule in RULES:
        if implied and rule is machine_runs_sources:
            continue
        for breach in rule(stack, settings):
            path = breach.path
            if path[0] in type(settings).model_fields and path[0] not in ("services", "resources"):
                path = ("environments", name, *path)
            yield Problem(breach.message, read.where(path, key=breach.key), breach.hint)


def _folders(read: Source, loaded: LoadedStack) -> Iterator[Problem]:
    """Sources that are named are there, below the folder of the stack file's repository."""
    for name, service in loaded.stack.services.items():
        if service.build is None:
            continue
        written: Path_ = ("services", name, "build", "path")
        where = read.where(written)
        folder = loaded.folder / service.build.path
        if not folder.is_dir():
            there = sorted(p.name for p in loaded.folder.iterdir() if p.is_dir())
            from lapwing.stack.explain import did_you_mean

            hint = did_you_mean(Path(service.build.path).name, there)
            yield Problem(f"There is no folder {service.build.path!r}.", where, hint)
        elif not folder.resolve().is_relative_to(_top(loaded.folder)):
            yield Problem(f"{service.build.path!r} is outside of the repository.", where)


def _top(folder: Path) -> Path:
    """The folder of the git repository, or the folder itself."""
    resolved = folder.resolve()
    for candidate in (resolved, *resolved.parents):
        if (candidate / ".git").exists():
            return candidate
    return resolved


def _unknown(read: Source, environment: str, names: list[str]) -> StackFileError:
    from lapwing.stack.explain import did_you_mean

    hint = did_you_mean(environment, names) or f"Environments of this stack: {', '.join(names)}."
    where = read.where(("environments",), key=True)
    return StackFileError([Problem(f"There is no environment `{environment}`.", where, hint)])


def _sorted(problems: list[Problem]) -> list[Problem]:
    """In the order of the file, each once."""
    unique = {(p.message, str(p.where)): p for p in problems}
    return sorted(unique.values(), key=lambda p: (p.where.line or 0, p.where.column or 0))
