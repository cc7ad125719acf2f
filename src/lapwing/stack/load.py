"""Load a stack file: a valid stack, or every problem with its position.

    source (data and positions) -> environment overlay -> models -> rules -> folders on disk

A command on one environment is stopped only by the errors of that environment. `environments`
without a name, which `lapwing check` uses, reports those of all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lapwing.errors import Location, Problem, StackFileError, UsageError, check_name
from lapwing.stack import branch_names, source
from lapwing.stack.cloud import registry_of
from lapwing.stack.overlays import overlay
from lapwing.stack.source import Source

if TYPE_CHECKING:
    from lapwing.stack.environment import Environment
    from lapwing.stack.fields import StrictModel
    from lapwing.stack.model import Stack

_Model = TypeVar("_Model", bound="StrictModel")

FILE = "lapwing.yaml"
LOCAL = "local"


@dataclass(frozen=True, slots=True)
class LoadedStack:
    """A stack in one environment; `settings` are the environment's, `path` is the stack file."""

    stack: Stack
    environment: str
    settings: Environment
    path: Path
    source: Source | None = field(default=None, repr=False, compare=False)

    @property
    def folder(self) -> Path:
        """The folder of the file; paths in the file are relative to it."""
        return self.path.parent

    def read(self, file: str, what: str) -> str:
        """Return the text of a file that a key of the stack file names. Raises UsageError."""
        path = self.folder / file
        try:
            return path.read_text()
        except (OSError, ValueError) as error:
            raise UsageError(
                f"{path}, {what}, cannot be read.",
                hint="Correct its path, relative to the stack file.",
            ) from error

    @property
    def registry(self) -> str | None:
        """Where images of services are, as HOST/FOLDER; None if it is not set."""
        return registry_of(self.stack, self.settings)

    @property
    def basic_auth(self) -> list[str]:
        """The names of the secrets with users of basic authentication."""
        given = [self.settings.access, *(s.access for s in self.stack.services.values())]
        return sorted({a.basic_auth for a in given if a is not None and a.basic_auth is not None})


class StackFile:
    """A stack file that is read from disk once, for a command that asks several things of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._source: Source | None = None

    @property
    def source(self) -> Source:
        """The data of the file with positions. Raises StackFileError."""
        if self._source is None:
            self._source = source.read(self.path)
        return self._source

    @property
    def stack(self) -> str:
        """The name of the stack, without validation. Raises StackFileError."""
        return _read_name(self.source)

    def environment(self, name: str) -> Mapping[str, Any]:
        """Return an environment's settings without validation; empty if there are none.

        Those of a branch are the settings of the environment with `branches`.
        """
        return _read_environment(self.source, branch_names.template_of(name))

    def names(self, section: str) -> list[str]:
        """List the names in `services`, `resources` or `environments`, without validation."""
        found = self.source.data.get(section)
        return [str(name) for name in found] if isinstance(found, dict) else []

    @property
    def environments(self) -> list[str]:
        """The names of the environments, without validation; `local` always is one."""
        return list(dict.fromkeys([LOCAL, *self.names("environments")]))

    def load(self, environment: str = LOCAL, *, folders: bool = True) -> LoadedStack:
        """Validate the file for an environment; see the function `load`."""
        declared = _load(self.source, branch_names.template_of(environment), folders=folders)
        return _for_branch(declared, environment)


def find(
    start: Path, names: tuple[str, ...] = (FILE,), hint: str = "Run `lapwing init` to create it."
) -> Path:
    """Find the stack file in a folder or its parents. Raises UsageError with the hint.

    Of several `names`, the nearest file counts, and in one folder the first name.
    """
    begin = start.absolute()
    if not begin.is_dir():
        raise UsageError(f"{start} is not a folder.", hint="Pass the folder of a stack: -C DIR.")
    for folder in (begin, *begin.parents):
        for name in names:
            if (folder / name).exists():
                return folder / name
    raise UsageError(f"No {' or '.join(names)} found in {begin} or its parent folders.", hint=hint)


def _read_name(read: Source) -> str:
    name = read.data.get("stack")
    if not isinstance(name, str) or not name.replace("-", "a").isalnum():
        from lapwing.stack.model import Stack

        problems: list[Problem] = []
        if name is not None and validate(read, problems, Stack) is None:
            raise StackFileError(_sorted(problems))
        message = "The file has no `stack: NAME`."
        hint = "Run `lapwing check` to list all problems."
        raise StackFileError([Problem(message, Location(read.path, 1, 1), hint)])
    return name


def _read_environment(read: Source, environment: str) -> Mapping[str, Any]:
    found: Any = read.data
    for key in ("environments", environment):
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def load(path: Path, environment: str = LOCAL, *, folders: bool = True) -> LoadedStack:
    """Load a stack file for an environment. Raises StackFileError with every problem there.

    Without `folders`, source folders on disk are not checked.
    """
    return _load(source.read(path), environment, folders=folders)


def _load(read: Source, environment: str, *, folders: bool) -> LoadedStack:
    loaded = _with_variables(_load_all(read, environment)[environment])
    if folders:
        refuse(_on_disk(read, loaded))
    return _with_migrations(loaded)


def _for_branch(loaded: LoadedStack, environment: str) -> LoadedStack:
    """Return the stack in the environment of a branch, with its host name. Raises UsageError."""
    settings, branch = loaded.settings, branch_names.split(environment)[1]
    if branch is None:
        return loaded
    branch_names.check_chosen(environment, settings.branches)
    if settings.branches is not None and settings.branches.domain is not None:
        domain = f"{branch}.{settings.branches.domain}"
        settings = settings.model_copy(update={"domain": domain})
    return replace(loaded, environment=environment, settings=settings)


def environments(
    path: Path, only: str | None = None, *, folders: bool = True, env_files: bool = True
) -> list[LoadedStack]:
    """Load one environment, or all except `local`. Raises StackFileError.

    Without `only`, `local` is checked as well, and loaded if there is no other environment. Without
    `env_files`, their variables are left out.
    """
    read = source.read(path)
    stacks = _load_all(read, only)
    loaded = [s for name, s in stacks.items() if only or name != LOCAL] or [stacks[LOCAL]]
    if env_files:
        loaded = [_with_variables(each) for each in loaded]
    if folders:
        refuse(problem for each in loaded for problem in _on_disk(read, each))
    return [_with_migrations(each) for each in loaded]


def _with_variables(loaded: LoadedStack) -> LoadedStack:
    from lapwing.stack.env_files import add_variables
    from lapwing.stack.folders import check_env_files

    if loaded.environment != LOCAL and loaded.source is not None:
        refuse(check_env_files(loaded.source, loaded.stack, loaded.environment))
    return replace(loaded, stack=add_variables(loaded.stack, loaded.settings, loaded.folder))


def _with_migrations(loaded: LoadedStack) -> LoadedStack:
    from lapwing.stack.migrations import add_jobs

    if loaded.settings.target != "machine":
        return loaded
    return replace(loaded, stack=add_jobs(loaded.stack))


def _load_all(given: Source, only: str | None = None) -> dict[str, LoadedStack]:
    """Load the stack in one environment, or in every environment, `local` first.

    Source folders are not looked at. An unknown environment is reported before problems of
    overlays.
    """
    from lapwing.stack.environment import Environment
    from lapwing.stack.model import Stack

    problems: list[Problem] = []
    read, base = given, validate(given, problems, Stack)
    if base is None and only is not None:
        problems, read = [], _without_invalid(given, only)
        base = validate(read, problems, Stack)
    if base is None:
        raise StackFileError(_sorted(problems))
    names = list(dict.fromkeys([LOCAL, *base.environments]))
    if only is not None:
        check_name("environment", only, names, read.path)
    local = base.environments.get(LOCAL) or Environment()
    problems, in_base = [], list(_violations(read, base, LOCAL, local))
    loaded: dict[str, LoadedStack] = {}
    for name in names if only is None else [only]:
        settings = base.environments.get(name) or Environment()
        merged = overlay(read, name, settings, problems)
        found: list[Problem] = []
        stack = validate(merged, found, Stack) if merged is not read else base
        if stack is not None:
            found += _violations(merged, stack, name, settings)
            loaded[name] = LoadedStack(stack, name, settings, read.path, given)
        problems += _in_environment(found, name, in_base) if merged is not read else found
    refuse(problems)
    return loaded


def _without_invalid(read: Source, wanted: str) -> Source:
    """Replace other environments by empty ones where their settings are invalid."""
    from pydantic import ValidationError

    from lapwing.stack.environment import Environment

    given, kept = read.data.get("environments"), dict[str, Any]()
    for name, settings in given.items() if isinstance(given, dict) else ():
        kept[name] = settings
        if name != wanted:
            try:
                Environment.model_validate(settings)
            except ValidationError:
                kept[name] = {}
    return Source(read.path, {**read.data, "environments": kept}, read.positions)


def refuse(problems: Iterable[Problem]) -> None:
    """Raise StackFileError with the problems, if there are any."""
    found = list(problems)
    if found:
        raise StackFileError(_sorted(found))


def _on_disk(read: Source, loaded: LoadedStack) -> Iterator[Problem]:
    from lapwing.stack import folders

    yield from folders.check_sources(read, loaded.stack)
    yield from folders.check_projects(read, loaded.stack)


def validate(read: Source, problems: list[Problem], model: type[_Model]) -> _Model | None:
    """Validate the data as a model; append problems and return None if it is invalid."""
    from pydantic import ValidationError

    from lapwing.stack.explain import explain

    try:
        return model.model_validate(read.data)
    except ValidationError as failed:
        for error in failed.errors(include_url=False):
            details: dict[str, Any] = {**error, "loc": read.written(error["loc"])}
            message, hint, key = explain(details, model)
            path = tuple(p for p in error["loc"] if p != "[key]")
            if error["type"] == "missing":
                path, key = path[:-1], True
            problems.append(Problem(message, read.where(path, key=key), hint))
        return None


def _in_environment(
    found: list[Problem], environment: str, in_base: list[Problem]
) -> list[Problem]:
    """Prefix problems of an overlay with the name of its environment."""
    return [
        p if p in in_base else Problem(f"In `{environment}`: {p.message}", p.where, p.hint)
        for p in found
    ]


def check_machine(loaded: LoadedStack) -> None:
    """Check that a machine can run the stack, which `load` skips for an implied `local`.

    Raises StackFileError.
    """
    from lapwing.stack.service_rules import check_machine_sources

    read = loaded.source or source.read(loaded.path)
    refuse(
        Problem(f"In `{loaded.environment}`: {v.message}", read.where(v.path), v.hint)
        for v in check_machine_sources(loaded.stack, loaded.settings)
    )


def _violations(read: Source, stack: Stack, name: str, settings: Environment) -> Iterator[Problem]:
    """Yield rule violations in one environment.

    A file with environments but without `local` need not run on a machine: it may use images.
    """
    from lapwing.stack import release_rules
    from lapwing.stack.rules import RULES
    from lapwing.stack.service_rules import check_machine_sources

    implied = name == LOCAL and LOCAL not in stack.environments and bool(stack.environments)
    for rule in RULES:
        if implied and rule is check_machine_sources:
            continue
        for violation in rule(stack, settings):
            path = violation.path
            if path[0] == "environments" and path[1:2] not in ((), (name,)):
                continue  # It is reported for the other environment.
            keys = set(type(settings).model_fields) - {"services", "resources"}
            if path[0] in keys and rule not in release_rules.RULES:
                path = ("environments", name, *path)
            yield Problem(violation.message, read.where(path, key=violation.key), violation.hint)


def _sorted(problems: list[Problem]) -> list[Problem]:
    """Sort by position and remove duplicates."""
    unique = {(p.message, str(p.where)): p for p in problems}
    return sorted(unique.values(), key=lambda p: (p.where.line or 0, p.where.column or 0))
