"""The only command that the SSH keys of a server may run: `lapwing receive`.

Each key of the `lapwing` user is limited to it in authorized_keys (`command="..."`), so whatever a
client asks for arrives here as the text of SSH_ORIGINAL_COMMAND. Two things are accepted: git's
receive-pack for the source of a stack, and a `Request`: one verb of Lapwing for one environment.

A key for CI (`--only STACK/ENVIRONMENT`) may only send the source of that environment, deploy it,
and read its status and history, with options that are listed here. If the environment has
`branches`, the key may do so for those of its branches, list them, and remove them.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import msgspec

from lapwing import __version__
from lapwing.errors import ServerError
from lapwing.server import VERBS, branch_lock, source
from lapwing.server.source import Snapshot, reference
from lapwing.settings import Settings
from lapwing.stack.branch_names import MAX_NAME_LENGTH, SEPARATOR, split
from lapwing.stack.load import FILE, StackFile
from lapwing.system import home, locks
from lapwing.system.git import Git

NAME = r"[a-z](?:[a-z0-9-]{0,38}[a-z0-9])?"
ENVIRONMENT = rf"{NAME}(?:_[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)?"
"""The name of an environment: one of the stack file, or that of a branch."""
LIMITED = {
    "deploy": {"--hold", "--dry-run", "--output", "--yes"},
    "status": {"--output"},
    "history": {"--output", "-n", "--lines", "--limit"},
    "branches": set(),
    "down": {"--volumes", "--output"},
}
"""What a key for CI may run, with these options; `down` only for the environment of a branch."""
WITHOUT_STACK = {"doctor", "branches"}
"""Verbs that need no stack file, so no source is sent."""
GROUPS = {"secret", "agent"}
"""Verbs with subcommands, which have the options."""
GREETING = "hello"
LOCK = ".lock"
"""The suffix of lock files: a command that uses the files of a snapshot holds one."""
COMMITS = {"deploy", "up", "rollback"}
"""Verbs after which a removed environment would exist again."""


class Request(msgspec.Struct, kw_only=True):
    """One verb for one environment, as the client sends it.

    `arguments` begin with the verb and contain neither `-C` nor `-e`. `snapshot` is the source
    that was sent before; without it the newest one is used. `folder` is that of the stack file.
    """

    arguments: list[str]
    stack: str
    environment: str
    snapshot: Snapshot | None = None
    actor: str = ""
    color: bool = False


@dataclass(frozen=True, slots=True)
class Limit:
    """The environment that a key is limited to."""

    stack: str
    environment: str

    @classmethod
    def parse(cls, text: str) -> Limit:
        """Read `STACK/ENVIRONMENT`. Raises ServerError."""
        found = re.fullmatch(f"({NAME})/({NAME})", text)
        if found is None:
            raise ServerError(f"{text!r} is not STACK/ENVIRONMENT.")
        return cls(found[1], found[2])


def encode(request: Request) -> str:
    """Return the command for the server."""
    return f"lapwing {shlex.quote(msgspec.json.encode(request).decode())}"


def receive(command: str, settings: Settings, limit: Limit | None) -> int:
    """Carry out what a client asks for; returns the exit status. Raises ServerError."""
    try:
        words = shlex.split(command)
    except ValueError:
        words = []
    if words == [GREETING]:
        print(msgspec.json.encode({"lapwing": __version__}).decode())
        return 0
    if len(words) == 2 and words[0] == "git-receive-pack":
        return _receive_pack(words[1], settings, limit)
    if len(words) == 2 and words[0] == "lapwing":
        try:
            request = msgspec.json.decode(words[1], type=Request)
        except msgspec.MsgspecError as error:
            raise ServerError(f"The request is invalid: {error}.") from error
        check(request, limit)
        return _run(request, settings, limit)
    raise ServerError(
        "This SSH key is only for Lapwing: it opens no shell.",
        hint="Use Lapwing's commands with `-e ENVIRONMENT`, or log in as another user.",
    )


def check(request: Request, limit: Limit | None) -> None:
    """Check that a key may run a request. Raises ServerError."""
    verb = request.arguments[0] if request.arguments else ""
    for name, pattern in ((request.stack, NAME), (request.environment, ENVIRONMENT)):
        if not re.fullmatch(pattern, name) or len(name) > MAX_NAME_LENGTH:
            raise ServerError(f"{name!r} is not the name of a stack or an environment.")
    if any("\0" in word for word in request.arguments):
        raise ServerError("An argument has a NUL character.")
    if request.snapshot is not None:
        _check_snapshot(request.snapshot)
    if verb not in VERBS:
        raise ServerError(f"{verb!r} cannot be run on a server.")
    if limit is None:
        return
    template, branch = split(request.environment)
    if (request.stack, template) != (limit.stack, limit.environment):
        raise ServerError(
            f"This SSH key is for {limit.stack}/{limit.environment} only.",
            hint=f"Use another key, or create one and run `lapwing server key -e {template} FILE`.",
        )
    if verb not in LIMITED or (verb == "down" and branch is None):
        raise ServerError(f"This SSH key may not run `lapwing {verb}`: it is for deployments only.")
    for word in request.arguments[1:]:
        if word not in LIMITED[verb] and not re.fullmatch(r"[a-z0-9][a-z0-9-]*", word):
            raise ServerError(f"This SSH key may not use {word!r} with `lapwing {verb}`.")


def _check_snapshot(snapshot: Snapshot) -> None:
    """Check that a snapshot names two commits and a folder in them. Raises ServerError."""
    for commit in (snapshot.head, snapshot.files):
        if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", commit):
            raise ServerError(f"{commit!r} is not a commit.")
    folder = PurePosixPath(snapshot.folder)
    if folder.is_absolute() or ".." in folder.parts or "\0" in snapshot.folder:
        raise ServerError(f"{snapshot.folder!r} is not a folder of the source.")


def _actor(request: Request, limit: Limit | None) -> str:
    """Return who acts, on one line; a key for CI is shown as one."""
    name = "".join(c for c in request.actor if c.isprintable())[:100].strip() or "unknown"
    return f"{name} (key for {limit.stack}/{limit.environment})" if limit else name


def _receive_pack(path: str, settings: Settings, limit: Limit | None) -> int:
    """Let git receive a snapshot: only into the namespace of snapshots, and only with its limit."""
    stack = path.strip("/")
    if not re.fullmatch(NAME, stack) or (limit is not None and limit.stack != stack):
        raise ServerError(f"This SSH key may not send the source of {stack!r}.")
    home.prepare(settings.home)
    repository = _repository(settings, stack)
    if not (repository / "HEAD").exists():
        repository.mkdir(parents=True, exist_ok=True)
        Git(repository, None, ServerError).data("init", "--quiet", "--bare", str(repository))
    allowed = [reference("").rstrip("/")]
    if limit is not None:  # A reference and those below it, as git compares them.
        allowed = [reference(limit.environment + end).rstrip("/") for end in ("", SEPARATOR)]
    settings_of_git = {
        "receive.fsckObjects": "true",
        "receive.shallowUpdate": "true",
        "receive.denyDeletes": "true",
        "core.hooksPath": os.devnull,
        "gc.auto": "256",
    }
    entries = [*settings_of_git.items(), ("receive.hideRefs", "refs")]
    entries += [("receive.hideRefs", f"!{name}") for name in allowed]
    options = [word for k, v in entries for word in ("-c", f"{k}={v}")]
    return subprocess.call(["git", *options, "receive-pack", str(repository)], env=_git_environ())


def _run(request: Request, settings: Settings, limit: Limit | None) -> int:
    """Run a verb; one that removes the environment of a branch waits for its deployments."""
    verb, *rest = request.arguments
    removal = verb == "down" and "--volumes" in rest
    if split(request.environment)[1] is None or not (removal or verb in COMMITS):
        return _run_in_source(request, settings, limit)
    sources = settings.sources / request.stack
    with branch_lock.hold(sources, request.environment, removal=removal) as lock:
        if removal and not (sources / request.environment).exists():
            status = 0  # Another command has removed it meanwhile.
        else:
            status = _run_in_source(request, settings, limit)
        if removal and status == 0:
            _remove_source(request, settings)
            lock.unlink(missing_ok=True)
        return status


def _run_in_source(request: Request, settings: Settings, limit: Limit | None) -> int:
    """Run a verb in the files of its snapshot, which stay until it ends."""
    verb, *rest = request.arguments
    without_stack = verb in WITHOUT_STACK
    files = contextlib.nullcontext(Path("/")) if without_stack else _files(request, settings)
    with files as folder:
        program = [shutil.which("lapwing", path=os.environ.get("PATH")) or "lapwing"]
        environment = [] if verb == "doctor" else ["-e", request.environment]
        environment += ["--stack", request.stack] if verb == "branches" else []
        group = [rest.pop(0)] if verb in GROUPS and rest else []
        words = [*program, verb, *group, *environment, *rest]
        environ = {**os.environ, "LAPWING_ACTOR": _actor(request, limit), "LAPWING_SERVER": "yes"}
        environ.pop("SSH_ORIGINAL_COMMAND", None)
        if not request.color:
            environ["NO_COLOR"] = "1"
        if verb == "run":
            return _wait(subprocess.Popen(words, cwd=folder, env=environ))
        try:
            return subprocess.call(words, cwd=folder, env=environ)
        except KeyboardInterrupt:
            return 130


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Wait for a command that handles the signals of our common terminal itself."""
    while True:
        with contextlib.suppress(KeyboardInterrupt):
            return process.wait()


@contextlib.contextmanager
def _files(request: Request, settings: Settings) -> Iterator[Path]:
    """Yield the folder of the stack file: of a new snapshot, or of the newest one.

    A folder of files is removed when a newer one exists and no command uses it.
    """
    parent = settings.sources / request.stack
    newest = parent / request.environment
    if request.snapshot is None:
        if not newest.exists():
            raise ServerError(
                f"{request.stack}/{request.environment} has never been deployed to this server.",
                hint=f"Run `lapwing deploy -e {request.environment}`.",
            )
        with _in_use(newest.resolve().parent) as top:
            yield top / (top / "folder").read_text()
        return
    folder = parent / f"{request.environment}.{request.snapshot.files[:12]}.{os.getpid()}"
    repository = _repository(settings, request.stack)
    with _in_use(folder):
        try:
            folder.mkdir()
            source.check_out(repository, request.snapshot, folder / "files")
            stack_folder = folder / "files" / request.snapshot.folder
            _check_stack(stack_folder, folder / "files", request)
        except BaseException:
            shutil.rmtree(folder)
            raise
        (folder / "folder").write_text(f"files/{request.snapshot.folder}")
        link = parent / f"{folder.name}.link"
        link.symlink_to(f"{folder.name}/files")
        link.replace(newest)
        _remove_unused(parent, newest)
        yield stack_folder


def _check_stack(folder: Path, top: Path, request: Request) -> None:
    """Check that a snapshot has the stack of the request, before it becomes the newest one.

    The folder may be a link in the source: what counts is where it leads. Raises ServerError.
    """
    file = folder / FILE
    if not file.resolve().is_relative_to(top.resolve()) or not file.is_file():
        raise ServerError(f"The source has no {FILE} in that folder.")
    name = StackFile(file).stack
    if name != request.stack:
        raise ServerError(
            f"The stack file is of {name!r}, and the request is for {request.stack!r}.",
            hint="Nothing was changed.",
        )


@contextlib.contextmanager
def _in_use(folder: Path) -> Iterator[Path]:
    """Keep a folder from being removed by another command."""
    lock = folder.with_name(f"{folder.name}.{os.getpid()}{LOCK}")
    with locks.hold(lock):
        try:
            yield folder
        finally:
            lock.unlink(missing_ok=True)


def _remove_unused(parent: Path, newest: Path) -> None:
    """Remove the folders of earlier snapshots of an environment that no command uses."""
    used = newest.resolve().parent
    for folder in parent.glob(f"{newest.name}.*"):
        is_used = folder == used or any(map(locks.is_held, parent.glob(f"{folder.name}.*{LOCK}")))
        if folder.is_dir() and not folder.is_symlink() and not is_used:
            shutil.rmtree(folder, ignore_errors=True)


def _remove_source(request: Request, settings: Settings) -> None:
    """Remove the source of the environment of a branch, after the environment was removed."""
    git = Git(_repository(settings, request.stack), None, ServerError, bare=True)
    name = reference(request.environment)
    sent = git.ask("rev-parse", "--verify", "--quiet", name)
    newest = settings.sources / request.stack / request.environment
    newest.unlink(missing_ok=True)
    _remove_unused(newest.parent, newest)
    if sent is not None:
        git.run("update-ref", "-d", name, sent)  # A newer one that was sent meanwhile stays.
        git.data("worktree", "prune")


def _repository(settings: Settings, stack: str) -> Path:
    return settings.sources / f"{stack}.git"


def _git_environ() -> Mapping[str, str]:
    """Return the environment of git's receive-pack: without any configuration."""
    kept = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG", "GIT_PROTOCOL")}
    return {**kept, "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
