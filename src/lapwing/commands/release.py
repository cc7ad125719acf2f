"""Releasing: finds the project, its forge and its registry, and runs the release.

Where it goes follows from the remote: the forge's address, the owner and the repository. A stack
file may name the forge (`release: {forge: ...}`) where the remote does not tell.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from lapwing.errors import ForgeError, ReleaseError
from lapwing.registry.client import RegistryClient
from lapwing.registry.push import Progress
from lapwing.release import remote, workflow
from lapwing.release.chart import chart_maker
from lapwing.release.forge.connect import connect
from lapwing.release.git import Checkout
from lapwing.release.plan import Result
from lapwing.release.policy import Decision, Policy
from lapwing.release.remote import ForgeKind, Place
from lapwing.release.survey import Survey, survey
from lapwing.release.workflow import Parts, Report
from lapwing.settings import Settings
from lapwing.stack import project
from lapwing.stack.image import is_loopback
from lapwing.stack.project import Released


@dataclass(frozen=True, slots=True)
class Prepared:
    """What was found before a release. Without `kind` there is no forge; with it, but without
    `place`, the remote does not lead to one, and the survey has the obstacle."""

    released: Released
    checkout: Checkout
    survey: Survey
    kind: ForgeKind | None
    place: Place | None


def prepare(settings: Settings, folder: Path, policy: Policy | None = None) -> Prepared:
    """Read the project of a folder and look at its repository; `policy` replaces the file's.

    Raises StackFileError, UsageError, or ReleaseError if the next version cannot be told.
    """
    released = _with_policy(project.read(project.find(folder)), policy)
    checkout = Checkout(released.folder, settings.environ)
    name = checkout.remote(checkout.branch())
    obstacles: list[ReleaseError] = []
    kind: ForgeKind | None = None
    place: Place | None = None
    forge = released.delivery.release.forge
    if name is not None and (forge is None or forge.kind != "none"):
        url = checkout.url(name)
        try:
            place = remote.parse(url, web=forge.url if forge else None)
            kind = _kind(released, place)
            _check_encrypted(place, stated=forge is not None and forge.url is not None)
            token = settings.forge_token(kind)
            if token is not None:
                checkout.use_token(url, token)
        except ReleaseError as error:
            obstacles.append(error)
    found = survey(checkout, released.delivery.release.branches)
    found = replace(found, obstacles=[*found.obstacles, *obstacles])
    return Prepared(released, checkout, found, kind, place)


async def perform(
    settings: Settings,
    prepared: Prepared,
    progress: Progress,
    *,
    dry: bool,
    tell: Callable[[Result], None],
    decided: Callable[[Decision], None],
) -> Report:
    """Release what was prepared; with `dry`, only look. Raises as `workflow.release` does."""
    released, kind, place = prepared.released, prepared.kind, prepared.place
    commit = prepared.survey.history.head
    chart = chart_maker(released, prepared.checkout, commit, settings.environ)
    async with AsyncExitStack() as stack:
        images = await stack.enter_async_context(
            RegistryClient(_with_own_registry(settings, place, kind))
        )
        forge = None
        if kind is not None and place is not None:
            api, forge = connect(settings, place, kind)
            stack.push_async_callback(api.close)
        parts = Parts(
            prepared.checkout,
            images,
            progress,
            forge,
            place,
            _registry(released, place, kind),
            None if isinstance(chart, str) else chart,
            chart if isinstance(chart, str) else "",
        )
        return await workflow.release(
            released, prepared.survey, parts, dry=dry, tell=tell, decided=decided
        )


def _with_policy(released: Released, policy: Policy | None) -> Released:
    if policy is None:
        return released
    delivery = released.delivery
    release = delivery.release.model_copy(update={"policy": policy})
    return replace(released, delivery=delivery.model_copy(update={"release": release}))


def _kind(released: Released, place: Place) -> ForgeKind:
    stated = released.delivery.release.forge
    if stated is None or stated.kind == "none":
        return remote.kind_of(place)
    return stated.kind


def _check_encrypted(place: Place, *, stated: bool) -> None:
    """A token goes without TLS only to this machine, or where people wrote `http://`."""
    parts = urlsplit(place.web)
    if parts.scheme == "http" and not stated and not is_loopback(parts.netloc):
        raise ForgeError(
            f"{place.web} is reached without encryption: anybody on the way could read the token.",
            hint="Use an https remote, or, if that is meant, write "
            f"`forge: {{kind: gitea, url: {place.web}}}`.",
        )


def _registry(released: Released, place: Place | None, kind: ForgeKind | None) -> str | None:
    if released.delivery.registry is not None:
        return released.delivery.registry
    return remote.registry_of(place, kind) if place is not None and kind is not None else None


def _with_own_registry(settings: Settings, place: Place | None, kind: ForgeKind | None) -> Settings:
    """The token of the forge is good for its own registry, too."""
    if place is None or kind is None:
        return settings
    token = settings.forge_token(kind)
    host = remote.registry_of(place, kind).partition("/")[0]
    return settings.with_registry_token(host, token) if token else settings
