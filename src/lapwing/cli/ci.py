"""`lapwing ci init`: write the workflow that runs Lapwing in a forge's CI."""

from __future__ import annotations

import difflib
import json
import os
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import click

from lapwing import DISTRIBUTION
from lapwing.cli.context import Context
from lapwing.cli.options import environment_named
from lapwing.errors import LapwingError, UnmanagedFileError, UsageError, check_name
from lapwing.system.files import write_atomic
from lapwing.system.git import Git, without_login

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lapwing.design.pipeline import Forge, Pipeline
    from lapwing.settings import Settings
    from lapwing.stack.model import Stack
    from lapwing.stack.project import Released


_PINNED = re.compile(
    rf"{DISTRIBUTION}==[0-9A-Za-z.+!]+"
    r"|https://[^\s@$?]+\.whl#sha256=[0-9a-f]{64}"
    r"|git\+(?:https://|ssh://(?:[\w-]+@)?)[^\s@$?]+@(?:[0-9a-f]{40}|[0-9a-f]{64})"
)
"""Sources whose content cannot change. Their URLs have no login and no query, because the workflow
is committed."""
_SCP = re.compile(r"^([\w.-]+@[\w.-]+):(?!/)(.+)$")
"""git's short form of an SSH address, `git@HOST:PATH`, which pip does not read."""
_REGISTRY_LOGIN = "LAPWING_REGISTRY_TOKEN"
_SIGNING_KEY = "LAPWING_SIGNING_KEY"
_SSH_USER = re.compile(r"ssh://([\w-]+)(?::[^/]*)?@")


@click.group("ci")
def command() -> None:
    """Set up CI workflows for a forge."""


@command.command("init")
@click.option(
    "--forge", type=click.Choice(["gitea", "github"]), required=True, help="The forge that runs CI."
)
@environment_named("The environment to ship to from the main branch.")
@click.option(
    "--install-from",
    metavar="SOURCE",
    help=f"Where the workflow installs Lapwing from: {DISTRIBUTION}==VERSION, the URL of a wheel "
    "with #sha256=DIGEST, git+URL@COMMIT, or a requirements file with hashes in the repository. "
    "Default: where this Lapwing was installed from.",
)
@click.option("--force", is_flag=True, help="Replace a workflow that was edited.")
@click.pass_obj
def init(
    context: Context,
    forge: Forge,
    environment: str | None,
    install_from: str | None,
    force: bool,
) -> None:
    """Write the workflow: check every change, ship and release the release branches.

    An edited file is not replaced; the difference is shown. Default for --environment: the first
    environment of the stack file with `target: machine`.
    """
    from lapwing.design.pipeline import FILES, unchanged, workflow
    from lapwing.stack import project

    released = project.read(project.find(context.directory))
    top = _repository_root(released.folder.resolve())
    source = install_from or _installed_from()
    branch = _unlisted_branch(released, context.settings, top)
    install = _pip_arguments(source, top, keyless=_is_keyless(released, forge))
    pipeline = _pipeline(released, forge, environment, install, top, branch)
    wanted = workflow(pipeline)
    path = top / FILES[forge]
    found = path.read_text(encoding="utf-8") if path.is_file() else None
    if found == wanted:
        context.printer.say(f"{path} is up to date.")
        return
    if found is not None and not force and not unchanged(found):
        lines = difflib.unified_diff(
            found.splitlines(), wanted.splitlines(), "existing", "new", lineterm=""
        )
        raise UnmanagedFileError(
            f"{path} was edited, or was not written by Lapwing.",
            hint="Apply the difference by hand, or replace the file with `--force`.",
            detail="\n".join(lines),
        )
    try:
        write_atomic(path, wanted.encode(), None)
    except OSError as error:
        raise LapwingError(f"Cannot write {path}: {error.strerror}.") from error
    context.printer.say(f"Wrote {path}. It installs Lapwing from {source}.")
    if branch is not None:
        context.printer.say(
            f"The default branch is {branch}: add `release: {{branches: [{branch}]}}` to "
            f"{released.path.name}, so that `lapwing release` accepts it.",
            style="yellow",
        )
    if source.startswith(DISTRIBUTION):
        context.printer.say(
            "Check that your package index has this version, or use --install-from with a git "
            "commit or a wheel.",
            style="yellow",
        )
    if _REGISTRY_LOGIN in pipeline.secrets:
        context.printer.say(
            "The workflow pushes images or charts, and the job's token has no permission for that. "
            f"Create the secret {_REGISTRY_LOGIN} with a token that can write to the registry."
        )
    if _SIGNING_KEY in pipeline.secrets:
        context.printer.say(
            f"The release signs charts and mirrored images: create the secret {_SIGNING_KEY} with "
            "the private key of `signing` (PEM)."
        )
    if pipeline.pull_secrets:
        context.printer.say(f"Create the secrets {', '.join(pipeline.pull_secrets)}.")
    elif pipeline.over_ssh:
        context.printer.say(
            "Create an SSH key, allow it with "
            f"`lapwing server key -e {pipeline.shipped} FILE.pub`, and create the secrets "
            "LAPWING_SSH_KEY (the private key) and LAPWING_KNOWN_HOSTS (the line of the server in "
            "~/.ssh/known_hosts)."
        )
    if pipeline.stack and pipeline.shipped is None:
        context.printer.say(
            "The stack has no environment with `target: machine`: the workflow only checks and "
            "releases."
        )


def workflow_of(directory: Path) -> str:
    """Return the workflow that `init` writes for a project: for the forge of an existing one."""
    from lapwing.design.pipeline import FILES, workflow
    from lapwing.stack import project

    released = project.read(project.find(directory))
    top = released.folder.resolve()
    roots = (top, *top.parents)
    forge: Forge = "gitea" if any((r / FILES["gitea"]).is_file() for r in roots) else "github"
    return workflow(_pipeline(released, forge, None, DISTRIBUTION, top, None))


def _repository_root(folder: Path) -> Path:
    """Return the root of the git repository of a folder. Raises UsageError if there is none."""
    for parent in (folder, *folder.parents):
        if (parent / ".git").exists():
            return parent
    raise UsageError(f"{folder} is not in a git repository.", hint="Run `git init` first.")


def _unlisted_branch(released: Released, settings: Settings, top: Path) -> str | None:
    """Return the default branch unless it is a release branch, or these are set.

    It is the one of the remote repository, else the current one.
    """
    release = released.delivery.release
    if "branches" in release.model_fields_set:
        return None
    git = Git(top, settings.environ)
    found = git.ask("symbolic-ref", "--short", "refs/remotes/origin/HEAD")
    found = (found or "").removeprefix("origin/") or git.ask("symbolic-ref", "--short", "HEAD")
    names = [branch.name for branch in release.branches]
    return found if found and found not in names else None


def _pipeline(
    released: Released,
    forge: Forge,
    environment: str | None,
    install: str,
    top: Path,
    branch: str | None,
) -> Pipeline:
    """Return what the workflow of a project depends on."""
    from lapwing.design.pipeline import Pipeline, ignored_paths
    from lapwing.release.chart import chart_missing
    from lapwing.stack.release_rules import prerelease_of, range_of

    environments = released.stacks[0].stack.environments if released.stacks else {}
    targets = {name: settings.target for name, settings in environments.items()}
    shipped = _shipped(targets, environment)
    is_built = all(
        service.build is not None
        for loaded in released.stacks[:1]
        for service in loaded.stack.services.values()
    )
    release = released.delivery.release
    return Pipeline(
        forge,
        install,
        bool(released.stacks),
        shipped or ("local" if released.stacks and is_built else None),
        shipped,
        (branch,) if branch else tuple(each.name for each in release.branches),
        ignored_paths(release.docs),
        secrets=_secrets(released, forge),
        others=tuple(
            each.name for each in release.branches if prerelease_of(each) or range_of(each)
        ),
        folder=released.folder.resolve().relative_to(top).as_posix(),
        over_ssh=shipped is not None and environments[shipped].host is not None,
        pull_secrets=() if shipped is None else _pull_secrets(released.stacks[0].stack, shipped),
        has_chart=any(chart_missing(project) is None for project in released.projects()),
        is_keyless=_signs(released) and _is_keyless(released, forge),
    )


def _secrets(released: Released, forge: Forge) -> tuple[str, ...]:
    """Return the names of the secrets that the release reads.

    The job's token of GitHub can push to ghcr.io, that of Gitea to no registry.
    """
    registry, found = released.delivery.registry, []
    mirrors = any(project.delivery.mirror for project in released.projects())
    is_pushed = registry is not None and (forge == "gitea" or not registry.startswith("ghcr.io/"))
    if is_pushed or (forge == "gitea" and mirrors):
        found.append(_REGISTRY_LOGIN)
    if _signs(released) and not _is_keyless(released, forge):
        found.append(_SIGNING_KEY)
    return tuple(found)


def _signs(released: Released) -> bool:
    """Return whether a release signs charts or mirrored images."""
    pushes = released.delivery.registry or any(p.delivery.mirror for p in released.projects())
    return bool(pushes and released.stacks and released.stacks[0].stack.signing)


def _is_keyless(released: Released, forge: Forge) -> bool:
    """Return whether the identity of a job signs. Raises UsageError where jobs have none."""
    signing = released.stacks[0].stack.signing if released.stacks else None
    if signing is None or signing.keyless is None:
        return False
    if forge == "gitea":
        raise UsageError(
            "Jobs of Gitea have no identity token for `signing: {keyless: ...}`.",
            hint="Set `signing: {key: ...}`, and create the secret LAPWING_SIGNING_KEY.",
        )
    return True


def _pull_secrets(stack: Stack, environment: str) -> tuple[str, ...]:
    """Return the variables with which `lapwing ship` pushes to a registry and a repository."""
    from lapwing.stack.image import parse

    desired = stack.environments[environment].desired
    if desired is None or stack.registry is None:
        return ()
    host = re.sub(r"[^A-Z0-9]", "_", parse(f"{stack.registry}/any", lower=True).api.upper())
    names = ["LAPWING_DESIRED_TOKEN", f"LAPWING_REGISTRY_{host}_USER"]
    names += [f"LAPWING_REGISTRY_{host}_TOKEN"]
    return (*names, *(("LAPWING_DESIRED_SIGNING_KEY",) if desired.require_signed else ()))


def _shipped(targets: Mapping[str, str], name: str | None) -> str | None:
    """Return the environment to ship to: the given one, or the first one on a machine."""
    machines = [each for each, target in targets.items() if target == "machine"]
    if name is None:
        return next((machine for machine in machines if machine != "local"), None)
    if name in machines:
        return name
    check_name("environment", name, targets, "the stack file")
    raise UsageError(
        f"Environment {name!r} has `target: {targets[name]}`; CI ships to machines only.",
        hint=f"Environments on a machine: {', '.join(machines) or 'none'}.",
    )


def _installed_from() -> str:
    """Return the source of this installation. Raises UsageError as `source_of` does."""
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        return source_of(distribution(DISTRIBUTION).read_text("direct_url.json"))
    except PackageNotFoundError as error:
        raise _no_source("is not installed") from error


def source_of(direct_url: str | None) -> str:
    """Return the source that an installation states, else its version on an index.

    A clone that Lapwing is installed from counts as the pushed commit of its remote repository.
    Raises UsageError if CI could not install from it. Source: PEP 610 (direct_url.json).
    """
    from lapwing import __version__

    if not direct_url:
        return f"{DISTRIBUTION}=={__version__}"
    stated = json.loads(direct_url)
    url, commit = stated.get("url", ""), stated.get("vcs_info", {}).get("commit_id")
    digest = stated.get("archive_info", {}).get("hashes", {}).get("sha256")
    for source in (f"git+{_address(url)}@{commit}", f"{url}#sha256={digest}"):
        if _PINNED.fullmatch(source):
            return source
    path = Path(unquote(urlsplit(url).path))
    if url.startswith("file://") and path.is_dir():
        return remote_of(path)
    raise _no_source(f"is installed from {without_login(url)}, which CI cannot install")


def remote_of(clone: Path) -> str:
    """Return the remote of a clone with its commit. Raises UsageError if it has other content."""
    git = Git(clone, os.environ, UsageError)
    url, head = git.ask("remote", "get-url", "origin") or "", git.ask("rev-parse", "HEAD")
    source = f"git+{_address(url)}@{head}"
    if not url:
        problem = "which is no git clone with a remote `origin`"
    elif not _PINNED.fullmatch(source):
        problem = f"whose remote is {without_login(url)}: neither https nor ssh"
    elif git.changes():
        problem = "which has uncommitted changes"
    elif not git.ask("branch", "--remotes", "--contains", "HEAD"):
        problem = "whose commit is not pushed"
    else:
        return source
    raise _no_source(f"is installed from {clone}, {problem}")


def _address(remote: str) -> str:
    """Return the URL of a remote as pip reads it, without a password or token.

    An SSH address keeps its user, such as `git`, which is no secret.
    """
    url = _SCP.sub(r"ssh://\1/\2", remote)
    user = _SSH_USER.match(url)
    address = without_login(url).partition("#")[0]
    return address.replace("://", f"://{user[1]}@", 1) if user else address


def _no_source(why: str) -> UsageError:
    return UsageError(
        f"Lapwing {why}, so the workflow has nothing to install it from.",
        hint=f"Give the source with `--install-from`: {DISTRIBUTION}==VERSION, the URL of a wheel "
        "with #sha256=DIGEST, git+URL@COMMIT, or a requirements file with hashes.",
    )


def _pip_arguments(source: str, top: Path, *, keyless: bool = False) -> str:
    """Return pip's arguments for a source, quoted for a shell; `keyless`: with this extra.

    A requirements file has to list what the extra needs. Raises UsageError.
    """
    if _PINNED.fullmatch(source):
        extra, version = f"{DISTRIBUTION}[keyless]", source.removeprefix(f"{DISTRIBUTION}==")
        if keyless:
            source = f"{extra}=={version}" if version != source else f"{extra} @ {source}"
        return shlex.quote(source)
    file = top / source
    if file.is_file() and file.resolve().is_relative_to(top):
        return f'--require-hashes -r "$GITHUB_WORKSPACE"/{shlex.quote(source)}'
    raise UsageError(
        f"--install-from {without_login(source)!r} is neither a pinned source nor a file in {top}.",
        hint=f"Use {DISTRIBUTION}==VERSION, https://HOST/FILE.whl#sha256=DIGEST, "
        "git+https://HOST/REPOSITORY@COMMIT with the whole commit, or a requirements file.",
    )
