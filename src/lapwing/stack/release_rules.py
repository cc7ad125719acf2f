"""Rules for the sections about releases, in stack files and release files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath as Pure
from urllib.parse import urlsplit

from lapwing.errors import ImageReferenceError
from lapwing.stack.delivery import Delivery, Mirrored
from lapwing.stack.image import LATEST, Reference, parse
from lapwing.stack.source import KeyPath, Violation


def check_forge_url(delivery: Delivery, _: object = None) -> Iterator[Violation]:
    """Check that `forge.url` is a URL without a login, and set only for a forge."""
    forge = delivery.release.forge
    if forge is None or forge.url is None:
        return
    at: KeyPath = ("release", "forge", "url")
    if forge.kind == "none":
        yield Violation("`kind: none` uses no `url`.", at, "Remove `url`.", key=True)
        return
    try:
        parts = urlsplit(forge.url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        is_address = False
    if not is_address or parts.query or parts.fragment:
        hint = "Write it like `https://git.example`."
        yield Violation(f"Invalid URL of a forge: {forge.url!r}.", at, hint)
    elif "@" in parts.netloc:
        hint = "Remove it from the file and from git history, and set LAPWING_FORGE_TOKEN instead."
        message = "The forge's URL contains a login."
        yield Violation(message, ("release",), hint, key=True)  # Its own line is not quoted.


def check_version_file(delivery: Delivery, _: object = None) -> Iterator[Violation]:
    """Check that `version_file` is set if, and only if, the policy is `stated`."""
    release = delivery.release
    if release.policy == "stated" and release.version_file is None:
        message = "The policy `stated` requires a `version_file`."
        hint = "Add `version_file:`, such as `pyproject.toml`."
        yield Violation(message, ("release", "policy"), hint)
    elif release.policy != "stated" and release.version_file is not None:
        yield Violation(
            f"`version_file` has no effect with the policy `{release.policy}`.",
            ("release", "version_file"),
            "Write `policy: stated`, or remove `version_file`.",
            key=True,
        )


def check_release_paths(delivery: Delivery, _: object = None) -> Iterator[Violation]:
    """Check that paths of a release are relative and inside the project."""
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
            hint = "Write a path relative to the folder of this file."
            yield Violation(f"{name!r} is outside the project.", at, hint)
        elif "*" in str(path.parent):
            yield Violation(f"{name!r} has a `*` before its last part.", at, "Name each folder.")


def check_branches(delivery: Delivery, _: object = None) -> Iterator[Violation]:
    """Check that git allows the names of the branches."""
    for index, name in enumerate(delivery.release.branches):
        if not re.fullmatch(r"(?![./-])(?!.*(\.\.|//|@\{))[^\s~^:?*\[\\\x00-\x1f]+(?<![./])", name):
            hint = "Name each branch; patterns are not supported."
            yield Violation(f"Invalid branch name: {name!r}.", ("release", "branches", index), hint)


def check_registry(delivery: Delivery, _: object = None) -> Iterator[Violation]:
    """Check that `registry` is a host and a folder, in lower case, without a tag."""
    yield from registry_violations(delivery.registry)


def registry_violations(registry: str | None) -> Iterator[Violation]:
    """Check a value of `registry`, of the file or of an environment."""
    if registry is None:
        return
    try:
        found = parse(f"{registry.rstrip('/')}/image", default_tag=None)
        wrong = "@" in registry or not _names_host(registry)
    except ImageReferenceError as error:
        yield Violation(error.message, ("registry",), error.hint)
        return
    if wrong or found.digest:
        hint = "Write it like `registry.example/team`."
        yield Violation(f"Invalid registry: {registry!r}.", ("registry",), hint)


def check_mirrored_images(delivery: Delivery, _: object = None) -> Iterator[Violation]:
    """Check that mirrored images have a version, and different names in the registry."""
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
            hint = "Add it, such as `fleetdm/fleet:v4.93.0`; `latest` changes over time."
            yield Violation(f"{entry.image!r} has no version to tag the copy with.", at, hint)
        if ":" in name or "@" in name:
            hint = "Remove the tag or digest: tags are added at each release."
            yield Violation(f"{name!r} has a tag or a digest.", ("mirror", index, "name"), hint)
        if name in names:
            message = f"Two mirrored images have the name `{name}` in the registry."
            yield Violation(message, at, "Set `name:` for one of them.")
        names[name] = index


def mirrored_name(entry: Mirrored, image: Reference) -> str:
    """Return the name of a mirrored image in the team's registry."""
    return entry.name or image.repository.rpartition("/")[2]


def mirrored_version(image: Reference) -> str:
    """Return the version of a mirrored image: its tag, without a `v` before a number."""
    return re.sub(r"^v(?=\d)", "", image.tag or "")


def _names_host(registry: str) -> bool:
    first = registry.partition("/")[0]
    return any(c in first for c in ".:[") or first == "localhost"


RULES = (
    check_registry,
    check_forge_url,
    check_branches,
    check_version_file,
    check_release_paths,
    check_mirrored_images,
)
