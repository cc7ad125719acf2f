"""What the workflow of a project depends on, from its stack file or release file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from lapwing import DISTRIBUTION
from lapwing.commands import ci_ship
from lapwing.commands.ci_registry import release_login
from lapwing.design.pipeline import FILES, SIGNING_KEY, Forge, Pipeline, Setting, ShipJob
from lapwing.design.ship_job import shipped_environment
from lapwing.design.workflow import ignored_paths, workflow
from lapwing.errors import UsageError
from lapwing.release.chart import chart_missing
from lapwing.stack import project
from lapwing.stack.release_rules import prerelease_of, range_of
from lapwing.system.git import Git

if TYPE_CHECKING:
    from lapwing.settings import Settings
    from lapwing.stack.project import Released


def workflow_of(directory: Path, environment: str) -> str:
    """Return the workflow that `ci init` writes for a project.

    An existing workflow determines the forge and the environment. Otherwise, the workflow is for
    GitHub, and ships to `environment` if `ci init` can choose it without `--environment`.
    """
    released = project.read(project.find(directory))
    top = released.folder.resolve()
    forge: Forge = "github"
    name: str | None = environment
    allows = ci_ship.is_usual
    existing = _existing(top)
    if existing is not None:
        forge, path = existing
        allows = ci_ship.is_possible
        try:
            name = shipped_environment(path.read_text("utf-8", "replace"))
        except (ValueError, yaml.YAMLError) as error:
            mark = getattr(error, "problem_mark", None)
            position = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
            raise UsageError(
                f"{path}{position} is not a valid workflow.",
                hint="Correct it, or write it again with `lapwing ci init --force`.",
            ) from error
    allowed = {stack.environment for stack in released.stacks if allows(stack)}
    name = name if name in allowed else None
    return workflow(pipeline_of(released, forge, name, DISTRIBUTION, top, None))


def _existing(folder: Path) -> tuple[Forge, Path] | None:
    """Find the workflow of a project, in its folder or above."""
    forges: tuple[Forge, ...] = ("gitea", "github")
    places = ((f, above / FILES[f]) for f in forges for above in (folder, *folder.parents))
    return next((place for place in places if place[1].is_file()), None)


def pipeline_of(
    released: Released,
    forge: Forge,
    environment: str | None,
    install: str,
    top: Path,
    branch: str | None,
) -> Pipeline:
    """Return what the workflow of a project depends on."""
    release = released.delivery.release
    branches = (branch,) if branch else tuple(each.name for each in release.branches)
    ship = ci_ship.job_of(released.stacks, forge, environment, branches)
    login, settings = release_login(released, forge, branches)
    is_signed = _signs(released)
    if is_signed and not is_keyless(released, forge):
        meaning = "the private key of `signing` (PEM), which signs charts and mirrored images."
        settings.append(Setting(SIGNING_KEY, meaning))
    return Pipeline(
        forge,
        install,
        bool(released.stacks),
        _built(released, ship),
        ship,
        branches,
        ignored_paths(release.docs),
        settings=tuple(settings),
        login=login,
        others=tuple(
            each.name for each in release.branches if prerelease_of(each) or range_of(each)
        ),
        folder=released.folder.resolve().relative_to(top).as_posix(),
        has_chart=any(chart_missing(project) is None for project in released.projects()),
        is_keyless=is_signed and is_keyless(released, forge),
        reviewed=next(
            (s.environment for s in released.stacks if s.settings.branches and s.settings.host),
            None,
        ),
    )


def _signs(released: Released) -> bool:
    """Return whether a release signs charts or mirrored images."""
    pushes = released.delivery.registry or any(p.delivery.mirror for p in released.projects())
    return bool(pushes and released.stacks and released.stacks[0].stack.signing)


def is_keyless(released: Released, forge: Forge) -> bool:
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


def _built(released: Released, ship: ShipJob | None) -> str | None:
    """Return the environment that the check builds for, without secrets; None if it cannot.

    For a cluster it is `local`: the remote desired state can be read only with a secret.
    """
    if ship is not None and ship.way not in ("argo", "direct"):
        return ship.environment
    services = [s for loaded in released.stacks[:1] for s in loaded.stack.services.values()]
    return "local" if services and all(s.build is not None for s in services) else None


def unlisted_branch(released: Released, settings: Settings, top: Path) -> str | None:
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
