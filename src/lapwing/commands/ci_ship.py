"""The environment that CI ships to, and what its job needs from the forge.

A cluster that Lapwing applies itself (`delivery: direct`) is shipped to from a runner of the team:
its desired state, history and secrets are in one LAPWING_HOME, which a new runner for each job
would not have.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal
from urllib.parse import urlsplit

from lapwing.commands.ci_registry import ship_login
from lapwing.design.pipeline import (
    KNOWN_HOSTS,
    SIGNING_KEY,
    SSH_KEY,
    Forge,
    Setting,
    ShipJob,
)
from lapwing.errors import UsageError, check_name
from lapwing.stack.load import LOCAL, LoadedStack
from lapwing.system.git import without_login


def job_of(
    stacks: Sequence[LoadedStack], forge: Forge, name: str | None, branches: Sequence[str]
) -> ShipJob | None:
    """Return the job that ships to an environment; None if there is none to ship to.

    `branches` are the release branches, whose jobs log in at the registry.

    By default it is the first machine other than `local`, else the first cluster whose Argo CD has
    a `repository`. Raises UsageError.
    """
    loaded = _chosen(stacks, name)
    if loaded is None:
        return None
    job = _job(loaded, forge, branches)
    settings = (*job.settings, *_build_secrets(loaded))
    scans = "scan" in loaded.stack.model_fields_set
    return dataclasses.replace(job, settings=settings, scans=scans)


def _build_secrets(loaded: LoadedStack) -> list[Setting]:
    builds = [s.build for s in loaded.stack.services.values() if s.build is not None]
    names = sorted({name for build in builds for name in build.secrets})
    return [Setting(name, "a secret of `build: {secrets: [...]}`.") for name in names]


def _job(loaded: LoadedStack, forge: Forge, branches: Sequence[str]) -> ShipJob:
    environment, settings = loaded.environment, loaded.settings
    if settings.target == "machine":
        if settings.desired is not None and loaded.stack.registry is not None:
            return _to_registry(loaded, forge, "pull", settings.desired.url, branches)
        if settings.host is None:
            return ShipJob(environment, "home")
        allow = f"`lapwing server key -e {environment} FILE.pub`"
        key = f"a private SSH key, whose public key {allow} allows."
        return ShipJob(environment, "ssh", _ssh_settings(key, "the server"))
    if not settings.uses_argo_cd:
        return ShipJob(environment, "direct")
    if settings.repository is None:
        raise UsageError(
            f"`repository` is not set for `{environment}`, so CI has nothing to commit to.",
            hint="Add `repository:` with the git URL that Argo CD reads.",
        )
    return _to_registry(loaded, forge, "argo", settings.repository, branches)


def _chosen(stacks: Sequence[LoadedStack], name: str | None) -> LoadedStack | None:
    if name is not None:
        known = {loaded.environment: loaded for loaded in stacks}
        check_name("environment", name, known, "the stack file")
        if known[name].settings.branches is not None:
            raise UsageError(
                f"{name!r} has `branches`, so the main branch cannot be shipped to it.",
                hint="Pass another environment, or omit `--environment`. Pull requests "
                f"are deployed to {name!r} without this option if it has a `host`.",
            )
        return known[name]
    stacks = [loaded for loaded in stacks if is_usual(loaded)]
    machines = (s for s in stacks if s.settings.target == "machine")
    return next(machines, None) or next(iter(stacks), None)


def is_possible(loaded: LoadedStack) -> bool:
    """Return whether a job can ship to an environment."""
    settings = loaded.settings
    has_place = not settings.uses_argo_cd or settings.repository is not None
    return settings.branches is None and has_place


def is_usual(loaded: LoadedStack) -> bool:
    """Return whether `ci init` can choose an environment without `--environment`.

    It chooses neither `local` nor a cluster that needs a self-hosted runner.
    """
    if loaded.settings.target == "machine":
        return is_possible(loaded) and loaded.environment != LOCAL
    return is_possible(loaded) and loaded.settings.uses_argo_cd


def _to_registry(
    loaded: LoadedStack,
    forge: Forge,
    way: Literal["pull", "argo"],
    repository: str,
    branches: Sequence[str],
) -> ShipJob:
    """Return the job that pushes to a registry and commits to a remote repository."""
    settings = list(_repository_settings(repository))
    desired = loaded.settings.desired
    if desired is not None and desired.require_signed:
        meaning = "the private SSH key of one of `signers`, which signs the commits."
        settings.append(Setting("LAPWING_DESIRED_SIGNING_KEY", meaning))
    login, is_keyless = None, False
    registry = loaded.stack.registry if way == "pull" else loaded.registry
    if registry is not None and (way == "pull" or loaded.stack.services_without_image):
        login, needed = ship_login(loaded.stack, forge, registry, branches)
        settings += needed
        signing = loaded.stack.signing
        is_keyless = signing is not None and signing.keyless is not None
        if signing is not None and not is_keyless:
            meaning = "the private key of `signing` (PEM), which signs images."
            settings.append(Setting(SIGNING_KEY, meaning))
    return ShipJob(loaded.environment, way, tuple(settings), login, is_keyless)


def _repository_settings(url: str) -> tuple[Setting, ...]:
    if urlsplit(url).scheme in ("http", "https"):
        meaning = f"a token that may push to {without_login(url)}."
        return (Setting("LAPWING_DESIRED_TOKEN", meaning),)
    key = f"the private key of a deploy key that may push to {without_login(url)}."
    return _ssh_settings(key, "the host of this repository")


def _ssh_settings(key: str, host: str) -> tuple[Setting, ...]:
    known = f"the line of {host} in ~/.ssh/known_hosts."
    return Setting(SSH_KEY, key), Setting(KNOWN_HOSTS, known)
