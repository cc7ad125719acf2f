"""A release from beginning to end: look, decide, then step by step.

    survey -> decide -> the steps that this project has -> run

What a release works with (a forge, registries, a chart) is chosen by `commands/release.py`
and comes in as `Parts`. A dry run takes the same way and stops before each act.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from lapwing.errors import ReleaseError, UsageError
from lapwing.registry.copy import CopyOptions
from lapwing.registry.manifest import parse_platform
from lapwing.registry.push import Progress
from lapwing.release import components
from lapwing.release.chart import ChartMaker
from lapwing.release.components import Component
from lapwing.release.forge.model import File, Forge
from lapwing.release.git import Checkout
from lapwing.release.notes import notes
from lapwing.release.plan import Result
from lapwing.release.policy import Decision, Rules, decide
from lapwing.release.remote import Place
from lapwing.release.run import Step, glimpse, run
from lapwing.release.sbom import sbom
from lapwing.release.steps import (
    Draft,
    Images,
    Make,
    Mirror,
    Publish,
    Push,
    Tag,
    TagImage,
    Upload,
    Work,
)
from lapwing.release.survey import Survey
from lapwing.stack.image import LATEST, Reference, built_image, digest_of, parse
from lapwing.stack.project import Released
from lapwing.stack.release_rules import mirrored_name

_STATED = re.compile(r"version(?:__)?[\"']?\s*[:=]\s*[\"']?v?(\d[^\s\"',;]*)", re.I)
_KEPT_NAME = re.compile(r"(?!\.)[A-Za-z0-9._-]+(?<!\.)")
"""Names of files that GitHub leaves as they are. Source: its documentation of release assets."""
LARGEST_FILE = 2 * 1024**3
"""Bytes of a file at most; GitHub takes no larger ones."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the steps work with. Without a `forge` there are only tags; `why_no_chart` says why
    there is no `chart`. `registry` is the folder that images go to."""

    checkout: Checkout
    images: Images
    progress: Progress
    forge: Forge | None = None
    place: Place | None = None
    registry: str | None = None
    chart: ChartMaker | None = None
    why_no_chart: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What a release did, or would do."""

    decision: Decision
    results: Sequence[Result] = field(default_factory=tuple)


def rules_of(released: Released, checkout: Checkout, commit: str) -> Rules:
    """The rules that a project's file states. Raises ReleaseError if the version it refers to is
    not there."""
    release = released.delivery.release
    stated = None
    if release.policy == "stated" and release.version_file is None:
        raise UsageError(
            "The policy `stated` needs a file that states the version.",
            hint="Add `version_file:` to `release:` in the file.",
        )
    if release.version_file is not None:
        content = checkout.content(commit, release.version_file)
        if content is None:
            raise ReleaseError(
                f"There is no {release.version_file} in the commit.",
                hint="Correct `version_file`, or commit it.",
            )
        stated = stated_version(content.decode(errors="replace"))
        if stated is None:
            raise ReleaseError(
                f"{release.version_file} states no version.",
                hint='It has to have something like `version = "1.2.3"`.',
            )
    return Rules(release.policy, release.features, release.docs, stated)


def stated_version(text: str) -> str | None:
    """The first version in a file, as in `version = "1.2.3"`, or the whole file. Pure."""
    if "\n" not in text.strip() and re.fullmatch(r"\s*v?\d[\w.+-]*\s*", text):
        return text.strip().removeprefix("v")
    found = _STATED.search(text)
    return found[1] if found else None


async def release(
    released: Released,
    surveyed: Survey,
    parts: Parts,
    *,
    dry: bool,
    tell: Callable[[Result], None],
    decided: Callable[[Decision], None],
) -> Report:
    """Make a release, or complete one; with `dry`, only look.

    Raises ReleaseError if there can be none, ReleaseStopped if a step fails.
    """
    history = surveyed.history
    rules = rules_of(released, parts.checkout, history.head)
    decision = decide(history, rules)
    decided(decision)
    if decision.next is None:
        return Report(decision)
    if surveyed.obstacles and not dry:
        raise surveyed.obstacles[0]
    compare = None
    if parts.place is not None and history.last is not None:
        compare = f"{parts.place.page}/compare/{history.last.tag}...{decision.next.tag}"
    work = Work(
        decision.next.tag,
        history.head,
        notes(decision, rules, compare),
        parts.checkout,
        surveyed.remote or "",
    )
    every = steps(released, work, parts)
    if surveyed.obstacles:
        return Report(decision, await glimpse(every, surveyed.obstacles, tell))
    return Report(decision, await run(every, dry=dry, tell=tell))


def steps(released: Released, work: Work, parts: Parts) -> Iterator[Step]:
    """The steps of a release of this project, in order. Each is made when the one before it was
    looked at, because which files there are to upload is known then."""
    version = work.tag.removeprefix("v")
    yield _chart(work, parts, version)
    yield Make("sbom", work, lambda: [_sbom(released, work, version)])
    if released.delivery.release.files:
        yield Make("files", work, lambda: _own_files(released))
    yield Tag(work, f"{released.name} {version}\n")
    yield Push(work)
    if parts.forge is not None:
        yield Draft(work, parts.forge)
        for name in work.files:
            yield Upload(work, parts.forge, name)
    yield from _tagged_images(released, work, parts, version)
    yield from _mirrored_images(released, parts, version)
    if parts.forge is not None:
        yield Publish(work, parts.forge)


def _chart(work: Work, parts: Parts, version: str) -> Step:
    chart = parts.chart
    if chart is None:
        return Make("chart", work, list, left_out=parts.why_no_chart)
    return Make("chart", work, lambda: _with_checksum(chart.package(version)))


def _with_checksum(file: File) -> list[File]:
    """A file, and the one that `sha256sum -c` checks it with."""
    line = f"{digest_of(file.content).removeprefix('sha256:')}  {file.name}\n"
    return [file, File(f"{file.name}.sha256", line.encode(), "text/plain")]


def _sbom(released: Released, work: Work, version: str) -> File:
    checkout, head = work.checkout, work.head

    def below(folder: str) -> list[Component]:
        def read(name: str) -> str | None:
            content = checkout.content(head, str(PurePosixPath(folder, name)))
            return None if content is None else content.decode(errors="replace")

        return components.components(read)

    services: dict[str, list[Component]] = {}
    images = {parse(entry.image) for entry in released.delivery.mirror}
    if released.stacks:
        for name, service in released.stacks[0].stack.services.items():
            if service.build is not None:
                services[name] = below(service.build.path)
            elif service.image is not None:
                images.add(parse(service.image, lower=True))
    else:
        services[released.name] = below(".")
    found = [components.image(reference) for reference in sorted(images, key=str)]
    commit = (head, checkout.committed_at(head))
    content = sbom(released.name, version, commit, services, found)
    return File(f"{released.name}-{version}.cdx.json", content, "application/vnd.cyclonedx+json")


def _own_files(released: Released) -> list[File]:
    """The files that the project's file names, from the disk: they are built, not committed."""
    made: list[File] = []
    for pattern in released.delivery.release.files:
        found = sorted(path for path in released.folder.glob(pattern) if path.is_file())
        if not found:
            raise ReleaseError(
                f"There is no file {pattern!r} in {released.folder}.", hint="Build it first."
            )
        for path in found:
            if path.stat().st_size > LARGEST_FILE:
                raise ReleaseError(f"{path} is larger than a forge takes (2 GiB).")
            if not _KEPT_NAME.fullmatch(path.name):
                raise ReleaseError(
                    f"{path.name!r} is a name that forges change.",
                    hint="Use letters, digits, `.`, `_` and `-`.",
                )
            made += _with_checksum(File(path.name, path.read_bytes()))
    return made


def _tagged_images(released: Released, work: Work, parts: Parts, version: str) -> Iterator[Step]:
    """What CI pushed for this commit, service by service. Without a `registry` in the file nothing
    was pushed. An image that the file names is the team's own if it lies below that registry and is
    no copy of somebody else's."""
    registry = released.delivery.registry
    if registry is None or not released.stacks:
        return
    copies = {
        parse(f"{registry.rstrip('/')}/{mirrored_name(e, parse(e.image))}", lower=True).name
        for e in released.delivery.mirror
    }
    for name, service in released.stacks[0].stack.services.items():
        if service.image is None:
            source = built_image(registry, name, work.head)
        else:
            source = _named_image(service.image, work.head)
            below = source.name.startswith(f"{registry.rstrip('/')}/".lower())
            if not below or source.name in copies:
                continue
        yield TagImage(parts.images, name, source, version, parts.progress)


def _named_image(written: str, commit: str) -> Reference:
    """The image that a stack file names; without a version, what CI tagged with the commit."""
    found = parse(written, lower=True, default_tag=None)
    moves = found.digest is None and found.tag in (None, LATEST)
    return found.tagged(commit) if moves else found


def _mirrored_images(released: Released, parts: Parts, version: str) -> Iterator[Step]:
    for entry in released.delivery.mirror:
        source = parse(entry.image)
        if parts.registry is None:
            raise ReleaseError(
                f"There is no registry to copy {entry.image} to.",
                hint="Add `registry: HOST/FOLDER` to the file.",
            )
        name = mirrored_name(entry, source)
        goal = parse(f"{parts.registry.rstrip('/')}/{name}", lower=True, default_tag=None)
        wanted = CopyOptions(tuple(parse_platform(text) for text in entry.platforms))
        app = source.tag or ""
        yield Mirror(parts.images, source, goal, app, version, wanted, parts.progress)
