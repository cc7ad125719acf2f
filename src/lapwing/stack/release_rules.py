"""Rules of the sections about releases, for stack files and release files. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath as Pure
from urllib.parse import urlsplit

from lapwing.errors import ImageReferenceError
from lapwing.stack.delivery import Delivery, Mirrored
from lapwing.stack.image import LATEST, Reference, parse
from lapwing.stack.source import KeyPath, Violation


def forge_is_an_address(delivery: Delivery, _: object = None) -> Iterator[Violation]:
    """A forge's `url` is an address without a login, and only where there is a forge."""
    forge = delivery.release.forge
    if forge is None or forge.url is None:
        return
    at: KeyPath = ("release", "forge", "url")
    if forge.kind == "none":
        yield Violation("There is no forge to have an address.", at, "Remove it.", key=True)
        return
    try:
        parts = urlsplit(forge.url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        is_address = False
    if not is_address or parts.query or parts.fragment:
        hint = "Write it like `https://git.example`."
        yield Violation(f"{forge.url!r} is not the address of a forge.", at, hint)
    elif "@" in parts.netloc:
        hint = "Remove it from the file and from git; the token goes into LAPWING_FORGE_TOKEN."
        message = "There is a login in the forge's address."
        yield Violation(message, ("release",), hint, key=True)  # Its own line is not quoted.


def version_is_stated(delivery: Delivery, _: object = None) -> Iterator[Violation]:
    """`version_file` is there when, and only when, the policy is `stated`."""
    release = delivery.release
    if release.policy == "stated" and release.version_file is None:
        message = "The policy `stated` needs a file that states it."
        hint = "Add `version_file:`, such as `pyproject.toml`."
        yield Violation(message, ("release", "policy"), hint)
    elif release.policy != "stated" and release.version_file is not None:
        yield Violation(
            f"The policy `{release.policy}` reads no version from a file.",
            ("release", "version_file"),
            "Write `policy: stated`, or remove it.",
            key=True,
        )


def released_files_are_inside(delivery: Delivery, _: object = None) -> Iterator[Violation]:
    """Files and folders of a release are written relative to the file, and do not lead out."""
    release = delivery.release
    written: list[tuple[str, KeyPath]] = [
        (name, ("release", "files", index)) for index, name in enumerate(release.files)
    ]
    if release.chart:
        written.append((release.chart, ("release", "chart")))
    if release.version_file:
        written.append((release.version_file, ("release", "version_file")))
    for name, at in written:
        path = Pure(name)
        if path.is_absolute() or ".." in path.parts:
            hint = "Write it relative to the folder of this file."
            yield Violation(f"{name!r} leads out of the project.", at, hint)
        elif "*" in str(path.parent):
            yield Violation(f"{name!r} has a `*` before its last part.", at, "Name the folders.")


def branches_are_possible(delivery: Delivery, _: object = None) -> Iterator[Violation]:
    """A branch has a name that git takes."""
    for index, name in enumerate(delivery.release.branches):
        if not re.fullmatch(r"(?![./-])(?!.*(\.\.|//|@\{))[^\s~^:?*\[\\\x00-\x1f]+(?<![./])", name):
            hint = "Branches that are released from are named one by one, without patterns."
            yield Violation(f"{name!r} is not a branch.", ("release", "branches", index), hint)


def registry_is_a_folder(delivery: Delivery, _: object = None) -> Iterator[Violation]:
    """`registry` is a host and, mostly, a folder, in lower case, without a tag."""
    if delivery.registry is None:
        return
    try:
        found = parse(f"{delivery.registry.rstrip('/')}/image", default_tag=None)
        wrong = "@" in delivery.registry or not _names_host(delivery.registry)
    except ImageReferenceError as error:
        yield Violation(error.message, ("registry",), error.hint)
        return
    if wrong or found.digest:
        hint = "Write it like `registry.example/team`."
        yield Violation(f"{delivery.registry!r} is not a place for images.", ("registry",), hint)


def mirrored_images_have_versions(delivery: Delivery, _: object = None) -> Iterator[Violation]:
    """A mirrored image is named with its version, and no two have one name in the registry."""
    names: dict[str, int] = {}
    for index, entry in enumerate(delivery.mirror):
        at: KeyPath = ("mirror", index, "image")
        try:
            found = parse(entry.image, default_tag=None)
            name = mirrored_name(entry, found)
            parse(f"registry.example/{name}", default_tag=None)
        except ImageReferenceError as error:
            yield Violation(error.message, at, error.hint)
            continue
        if found.tag in (None, LATEST):
            hint = "Name it, such as `fleetdm/fleet:v4.93.0`; `latest` is another every day."
            yield Violation(f"{entry.image!r} has no version to tag the copy with.", at, hint)
        if ":" in name or "@" in name:
            hint = "Its tags are made at each release."
            yield Violation(f"{name!r} is a name with a tag.", ("mirror", index, "name"), hint)
        if name in names:
            message = f"Two mirrored images would be `{name}` in the registry."
            yield Violation(message, at, "Give one of them a `name:`.")
        names[name] = index


def mirrored_name(entry: Mirrored, image: Reference) -> str:
    """The name of a mirrored image in the team's registry."""
    return entry.name or image.repository.rpartition("/")[2]


def _names_host(registry: str) -> bool:
    first = registry.partition("/")[0]
    return any(c in first for c in ".:[") or first == "localhost"


RULES = (
    registry_is_a_folder,
    forge_is_an_address,
    branches_are_possible,
    version_is_stated,
    released_files_are_inside,
    mirrored_images_have_versions,
)
