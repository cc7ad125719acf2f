"""What a release still needs: for each thing, what was found against what is wanted. Pure.

A verdict is `Present` (it is there, as it should be), `Missing` (to be made) or `LeftOut` (this
release has none, and why). What is there and is something else is an error: nothing that was
released is ever changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from lapwing.errors import ReleaseError
from lapwing.release.forge.model import Asset, File, Published
from lapwing.stack.image import digest_of


@dataclass(frozen=True, slots=True)
class Present:
    """There already."""

    note: str = ""


@dataclass(frozen=True, slots=True)
class Missing:
    """To be made; `note` says what."""

    note: str = ""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Not part of this release."""

    reason: str


Verdict = Present | Missing | LeftOut


class Outcome(StrEnum):
    """What became of a step. `planned` is what a dry run says instead of `done`."""

    DONE = "done"
    PRESENT = "present"
    PLANNED = "planned"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Result:
    """A step and its outcome; `note` is for people."""

    name: str
    outcome: Outcome
    note: str = ""


def tag(name: str, head: str, found: str | None, where: str) -> Verdict:
    """A tag: on the commit that is released, or nowhere. `where` is here or the remote."""
    if found is None:
        return Missing(f"{name} on {head[:12]}")
    if found != head:
        raise ReleaseError(
            f"{name} is on {found[:12]} {where}, and not on {head[:12]}.",
            hint="A version is released once. Remove that tag if it was a mistake, or fetch and "
            "run it again.",
        )
    return Present(f"{name} {where}")


def release(found: Published | None, name: str) -> Verdict:
    """The forge's release: published, or a draft that waits for its files."""
    if found is None:
        return Missing(f"{name}, as a draft")
    return Present("a draft" if found.draft else found.page)


def publication(found: Published | None) -> Verdict:
    """Whether everybody sees it."""
    if found is None or found.draft:
        return Missing("" if found is None else found.page)
    return Present(found.page)


def asset(found: Asset | None, file: File) -> Verdict:
    """A file of the release: with the same digest where the forge knows it, else the same size."""
    size = len(file.content)
    if found is None or not found.whole:
        return Missing(f"{size} bytes")
    known = found.digest if (found.digest or "").startswith("sha256:") else None
    if found.size != size or (known and known != digest_of(file.content)):
        raise ReleaseError(
            f"The release has another {file.name} already ({found.size} bytes; this one has "
            f"{size}).",
            hint="What was released is not changed: release a new version. If that file is a "
            "mistake, delete it on the forge and run this again.",
        )
    return Present(f"{size} bytes")


def image(source: str, built: str | None, name: str, tagged: str | None) -> Verdict:
    """An image of a service: its version tag names what was built of the commit."""
    if tagged is not None and (built is None or built == tagged):
        return Present(name)
    if built is None:
        raise ReleaseError(
            f"There is no {source}: nothing was built of this commit.",
            hint="Run `lapwing ship` for this commit first; a release only names what was built.",
        )
    if tagged is not None:
        raise ReleaseError(
            f"{name} is there already, and is another image than {source}.",
            hint="A version is released once. Delete that tag in the registry if it was a mistake.",
        )
    return Missing(name)


def mirrored(name: str, of_release: str | None, of_app: str | None) -> Verdict:
    """An image of somebody else's, copied to the team's registry. The tag with the chart's version
    is written last, so it stands for the others."""
    if of_release is not None and of_app is not None:
        return Present(name)
    return Missing(name)
