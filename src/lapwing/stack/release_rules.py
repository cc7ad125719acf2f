"""Rules for the sections about releases, in stack files and release files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath as Pure
from urllib.parse import urlsplit

from lapwing.errors import ImageReferenceError
from lapwing.stack.delivery import Branch, Delivery, Mirrored, Parts, ReleasedProject
from lapwing.stack.image import LATEST, Reference, parse
from lapwing.stack.source import KeyPath, Violation

RANGE = re.compile(r"(0|[1-9]\d{0,8})(?:\.(x|0|[1-9]\d{0,8}))?\.x")
"""The versions of a maintenance branch: `1.x`, `1.2.x`."""
IDENTIFIER = r"[A-Za-z][0-9A-Za-z-]{0,38}"
"""The identifier of a pre-release, such as `rc`."""
Numbers = tuple[int, int, int]


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
    policy = delivery.release.policy
    for parts, at in _released(delivery):
        if policy == "stated" and parts.version_file is None:
            message = "The policy `stated` requires a `version_file`."
            hint = "Add `version_file:`, such as `pyproject.toml`."
            where = (*at, "policy") if at == ("release",) else at
            yield Violation(message, where, hint)
        elif policy != "stated" and parts.version_file is not None:
            yield Violation(
                f"`version_file` has no effect with the policy `{policy}`.",
                (*at, "version_file"),
                "Write `policy: stated`, or remove `version_file`.",
                key=True,
            )


def check_release_paths(delivery: Delivery, _: object = None) -> Iterator[Violation]:
    """Check that paths of a release are relative and inside the project."""
    for parts, at in _released(delivery):
        written: list[tuple[str, KeyPath]] = [
            (name, (*at, "files", index)) for index, name in enumerate(parts.files)
        ]
        if parts.chart:
            written.append((parts.chart, (*at, "chart")))
        if parts.version_file:
            written.append((parts.version_file, (*at, "version_file")))
        if isinstance(parts, ReleasedProject):
            written.append((f"{parts.path}/.", (*at, "path")))
            written += [(f"{p}/.", (*at, "include", n)) for n, p in enumerate(parts.include)]
        for name, where in written:
            yield from _path_violations(name, where)


def _path_violations(name: str, at: KeyPath) -> Iterator[Violation]:
    path, written = Pure(name), name.removesuffix("/.")
    if path.is_absolute() or ".." in path.parts:
        hint = "Write a path relative to the folder of this file."
        yield Violation(f"{written!r} is outside the project.", at, hint)
    elif "*" in name.rpartition("/")[0]:
        yield Violation(f"{written!r} has a `*` before its last part.", at, "Name each folder.")


def check_branches(delivery: Delivery, _: object = None) -> Iterator[Violation]:
    """Branches have valid, unique names, and no two of them release the same versions."""
    names: set[str] = set()
    versions: dict[object, str] = {}
    for index, branch in enumerate(delivery.release.branches):
        at: KeyPath = ("release", "branches", index)
        name = branch.name
        if not re.fullmatch(r"(?![./-])(?!.*(\.\.|//|@\{))[^\s~^:?*\[\\\x00-\x1f]+(?<![./])", name):
            hint = "Name each branch; patterns are not supported."
            yield Violation(f"Invalid branch name: {name!r}.", at, hint)
        identifier = prerelease_of(branch)
        same = identifier or range_of(branch)
        if name in names:
            message = f"The branch `{name}` is listed twice."
            yield Violation(message, (*at, "name"), "Remove one of the two.")
        elif same in versions:
            key = "prerelease" if identifier else "range"
            message = f"`{name}` and `{versions[same]}` release the same versions."
            yield Violation(message, (*at, key), f"Set another `{key}` for one of them.")
        names.add(name)
        if same:
            versions.setdefault(same, name)
        if identifier and not re.fullmatch(IDENTIFIER, identifier):
            hint = "Use letters, digits and `-`, such as `prerelease: rc`."
            message = f"Invalid identifier for pre-releases: {identifier!r}."
            yield Violation(message, (*at, "prerelease"), hint)
        if branch.range is not None and not RANGE.fullmatch(branch.range):
            message = f"Invalid range of versions: {branch.range!r}."
            yield Violation(message, (*at, "range"), "Write it like `1.x` or `1.2.x`.")
        elif branch.range is not None and branch.prerelease:
            message = "A branch of pre-releases has no `range`."
            yield Violation(message, (*at, "range"), "Remove one of the two keys.", key=True)


def check_tags(delivery: Delivery, _: object = None) -> Iterator[Violation]:
    """Check that each project has its form of git tags, which ends in the version."""
    names: dict[str, str] = {}
    for parts, at in _released(delivery):
        form = tag_form(parts, at[-1] if len(at) > 1 else None)
        prefix = form.removesuffix("{version}")
        where: KeyPath = (*at, "tag") if parts.tag is not None else at
        if prefix == form or not re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._@/-]*)?", prefix):
            hint = "Write it like `api-v{version}`: letters, digits and `._@/-`, then `{version}`."
            yield Violation(f"Invalid form of tags: {form!r}.", where, hint)
        elif ".." in form or "//" in form or "/." in form or ".lock/" in form:
            yield Violation(f"Git accepts no such tag: {form!r}.", where, "Choose another form.")
        elif prefix in names:
            message = f"The tags of `{at[-1]}` are the same as those of `{names[prefix]}`."
            yield Violation(message, where, "Set another `tag:`.")
        names[prefix] = str(at[-1])


def check_projects(delivery: Delivery, _: object = None) -> Iterator[Violation]:
    """Check that what belongs to a project is not set for all of them."""
    if not delivery.release.projects:
        return
    hint = "Move it into a project in `projects:`."
    for key in ("tag", "version_file", "chart", "files"):
        if key in delivery.release.model_fields_set:
            message = f"`{key}` has no effect beside `projects`."
            yield Violation(message, ("release", key), hint, key=True)
    if delivery.mirror:
        message = "`mirror` has no effect beside `release: {projects: ...}`."
        yield Violation(message, ("mirror",), hint, key=True)


def prerelease_of(branch: Branch) -> str:
    """Return the identifier of the pre-releases of a branch; "" for final versions."""
    return branch.name if branch.prerelease is True else branch.prerelease or ""


def range_of(branch: Branch) -> tuple[Numbers, Numbers] | None:
    """Return the lowest version of a maintenance branch, and the lowest above its range."""
    found = None if branch.prerelease else RANGE.fullmatch(branch.range or branch.name)
    if found is None:
        return None
    major, minor = int(found[1]), found[2]
    if minor is None or minor == "x":
        return (major, 0, 0), (major + 1, 0, 0)
    return (major, int(minor), 0), (major, int(minor) + 1, 0)


def tag_form(parts: Parts, name: object = None) -> str:
    """Return the form of a project's git tags; without a name, of the only one."""
    return parts.tag or (f"{name}-v{{version}}" if name else "v{version}")


def _released(delivery: Delivery) -> list[tuple[Parts, tuple[str | int, ...]]]:
    """Return what is released, and where it is in the file."""
    release = delivery.release
    if not release.projects:
        return [(release, ("release",))]
    return [(entry, ("release", "projects", name)) for name, entry in release.projects.items()]


def check_registry(delivery: Delivery, _: object = None) -> Iterator[Violation]:
    """Check that `registry` is a host and a folder, in lower case, without a tag."""
    yield from registry_violations(delivery.registry)


def registry_violations(registry: str | None, key: str = "registry") -> Iterator[Violation]:
    """Check a registry and folder, of the file or of an environment."""
    if registry is None:
        return
    try:
        found = parse(f"{registry.rstrip('/')}/image", default_tag=None)
        wrong = "@" in registry or not _names_host(registry)
    except ImageReferenceError as error:
        yield Violation(error.message, (key,), error.hint)
        return
    if wrong or found.digest:
        hint = "Write it like `registry.example/team`."
        yield Violation(f"Invalid registry: {registry!r}.", (key,), hint)


def check_mirrored_images(delivery: Delivery, _: object = None) -> Iterator[Violation]:
    """Check that mirrored images have a version, and different names in the registry."""
    names: set[str] = set()
    sections: list[tuple[list[Mirrored], KeyPath]] = [(delivery.mirror, ("mirror",))]
    for project, entry in delivery.release.projects.items():
        sections.append((entry.mirror, ("release", "projects", project, "mirror")))
    for mirror, where in sections:
        for index, mirrored in enumerate(mirror):
            yield from _mirror_violations(mirrored, (*where, index, "image"), names)


def _mirror_violations(entry: Mirrored, at: KeyPath, names: set[str]) -> Iterator[Violation]:
    try:
        found = parse(entry.image, default_tag=None)
        name = mirrored_name(entry, found)
        parse(f"registry.example/{name}", default_tag=None)
    except ImageReferenceError as error:
        yield Violation(error.message, at, error.hint)
        return
    if found.tag in (None, LATEST):
        hint = "Add it, such as `fleetdm/fleet:v4.93.0`; `latest` changes over time."
        yield Violation(f"{entry.image!r} has no version to tag the copy with.", at, hint)
    if ":" in name or "@" in name:
        hint = "Remove the tag or digest: tags are added at each release."
        yield Violation(f"{name!r} has a tag or a digest.", (*at[:-1], "name"), hint)
    if name in names:
        message = f"Two mirrored images have the name `{name}` in the registry."
        yield Violation(message, at, "Set `name:` for one of them.")
    names.add(name)


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
    check_projects,
    check_tags,
    check_version_file,
    check_release_paths,
    check_mirrored_images,
)
