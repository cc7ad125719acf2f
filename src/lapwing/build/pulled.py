"""Pulling a release: from an artifact in a registry to a folder of the release store.

    manifest by digest -> config and archives, verified -> folder -> interpreter -> renamed

The digest is that of the desired state, so a user who may write to the registry cannot change what
runs. A release that is interrupted here leaves a `.tmp-` folder, as a build does (`layers.py`).
The interpreter of a process is this machine's: the same minor version of Python, or the Node that
the source requires.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tarfile
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import msgspec

from lapwing.build import layers, node_runtime
from lapwing.build.artifact import CONFIG, HERE, Portable, this_platform
from lapwing.build.builder import write_record
from lapwing.build.command import open_log
from lapwing.build.context import BuildContext, BuildRequest
from lapwing.build.node import required_versions
from lapwing.build.python import UV_OPTIONS, interpreter, uv
from lapwing.build.release import INITIAL, VENV, Release
from lapwing.build.source import Source
from lapwing.errors import BuildError, NoSpaceError
from lapwing.registry.client import RegistryClient
from lapwing.registry.manifest import Descriptor
from lapwing.registry.pull import BlobVerifier, RemoteBlob, verified
from lapwing.registry.repository import Repository
from lapwing.settings import Settings
from lapwing.stack.image import parse
from lapwing.system.files import FULL

TIMEOUT_S = 600.0
"""The longest that preparing the interpreter of a release may take."""
ARCHIVES = "archives"
"""The folder of a bundle with the archives, until they are unpacked."""
MAX_CONFIG_BYTES = 1024 * 1024


def pull(
    reference: str, target: Path, revision: str, settings: Settings, report: Callable[[str], None]
) -> None:
    """Pull the artifact at a reference by digest to the folder `target`, unless it is there.

    Raises RegistryError, IntegrityError, BuildError or NoSpaceError; then `target` is missing.
    """

    def fill(bundle: Path) -> None:
        report(f"pulling {target.name}")
        portable = asyncio.run(_download(reference, bundle, settings))
        _check(portable, target, reference)
        for archive in sorted((bundle / ARCHIVES).iterdir()):
            unpack(archive, bundle, reference)
            archive.unlink()
        (bundle / ARCHIVES).rmdir()
        release = msgspec.structs.replace(portable.release, revision=revision, built=time.time())
        write_record(bundle, _prepare(release, bundle, target, settings))

    try:
        layers.make(target, fill)
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise NoSpaceError(
            f"The disk is full: {target.name} cannot be pulled.",
            hint=f"Free some space on the disk of {settings.home}. Nothing was changed.",
        ) from error


async def _download(reference: str, bundle: Path, settings: Settings) -> Portable:
    """Write the archives of an artifact below `bundle`, and return its config."""
    parsed = parse(reference)
    if parsed.digest is None:
        raise BuildError(
            f"The desired state names the release {reference} by a tag, not by its digest.",
            hint="Ship again. Nothing was changed.",
        )
    (bundle / ARCHIVES).mkdir()
    async with RegistryClient(settings) as client:
        repository = client.repository(parsed)
        manifest = await repository.manifest(parsed.wanted)
        config = manifest.config
        if config is None or config.media_type != CONFIG or config.size > MAX_CONFIG_BYTES:
            raise _no_release(reference)
        file = bundle / "config"
        await _write(repository, config, file)
        for number, layer in enumerate(manifest.layers):
            await _write(repository, layer, bundle / ARCHIVES / str(number))
    try:
        return msgspec.json.decode(file.read_bytes(), type=Portable)
    except msgspec.MsgspecError as error:
        raise _no_release(reference) from error
    finally:
        file.unlink()


async def _write(repository: Repository, blob: Descriptor, file: Path) -> None:
    """Write a blob to a file. Raises IntegrityError for another content."""
    source = RemoteBlob(repository)
    verifier = BlobVerifier(blob.digest, blob.size, str(repository), source.remedy(blob.digest))
    with file.open("wb") as written:
        async with contextlib.aclosing(verified(source.read(verifier, 0), verifier)) as stream:
            async for data in stream:
                written.write(data)


def unpack(archive: Path, bundle: Path, reference: str) -> None:
    """Unpack an archive of the artifact at `reference` to a bundle.

    Raises BuildError for one that `artifact.pack` does not write, and OSError.
    """
    try:
        with tarfile.open(archive) as packed:
            packed.extractall(bundle, filter=_accept)  # noqa: S202 - `_accept` checks members
    except tarfile.TarError as error:
        raise BuildError(
            f"{reference} cannot be unpacked: {error}.", hint="Ship again. Nothing was changed."
        ) from error


def _accept(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo:
    """Refuse what could write or link outside of a bundle; symbolic links in `app` may point there.

    Those are of the repository or of volumes, and nothing is written through them.
    """
    parts = PurePosixPath(member.name).parts
    is_known = parts[:1] in {("app",), (INITIAL,), (VENV,)} and ".." not in parts
    if not is_known or (member.issym() and len(parts) == 1):
        raise tarfile.OutsideDestinationError(member, member.name)
    if parts[0] != "app" or not member.issym():
        tarfile.data_filter(member, folder)
    return tarfile.tar_filter(member, folder)


def _no_release(reference: str) -> BuildError:
    return BuildError(
        f"{reference} is not a release that this version of Lapwing can read.",
        hint="Use the same version of Lapwing in CI and on this machine, and ship again.",
    )


def _check(portable: Portable, target: Path, reference: str) -> None:
    """Check that an artifact is the release that the desired state names, for this platform."""
    release, here = portable.release, this_platform()
    names = (release.stack, release.service, release.name)
    if names != (target.parts[-3], target.parts[-2], target.name):
        raise BuildError(
            f"{reference} is release {release.name} of {release.stack}/{release.service}, not "
            f"{target.name}.",
            hint="Ship again. Nothing was changed.",
        )
    if portable.platform not in (None, here):
        raise BuildError(
            f"{release.name} was built for {portable.platform}, and this machine is {here}.",
            hint=f"Run `lapwing ship` on {here}, or use `runtime: container`.",
        )


def _prepare(release: Release, bundle: Path, target: Path, settings: Settings) -> Release:
    """Add the interpreter of this machine, and return the record with its paths."""
    path = [entry.replace(HERE, str(target)) for entry in release.path]
    environment = {k: v.replace(HERE, str(target)) for k, v in release.environment.items()}
    release = msgspec.structs.replace(release, environment=environment)
    if release.kind == "static":
        return release
    logs = settings.logs / "build" / release.stack / release.service
    with contextlib.closing(open_log(logs, release.name, None, settings.environ)) as log:
        app, names = bundle / "app", tuple(p.name for p in (bundle / "app").iterdir())
        request = BuildRequest(release.stack, release.service, app)
        source = Source(app, names, "", release.revision)
        until = time.monotonic() + TIMEOUT_S
        context = BuildContext(request, source, settings, target, log, until)
        if (bundle / VENV).is_dir():
            _prepare_python(context, bundle / VENV)
        elif "package.json" in names:
            node = node_runtime.choose(settings, required_versions(app, source))
            program = (node or node_runtime.install(context)).program
            path.append(str(program.parent))
    return msgspec.structs.replace(release, path=tuple(path))


def _prepare_python(context: BuildContext, venv: Path) -> None:
    """Link the interpreter into a virtual environment, and compile its packages."""
    lines = (line.partition("=") for line in (venv / "pyvenv.cfg").read_text().splitlines())
    facts = {key.strip(): value.strip() for key, _, value in lines}
    minor = ".".join(facts["version_info"].split(".")[:2])
    context.run(
        uv(), "venv", "--relocatable", "--allow-existing", "--no-project",
        "--python", interpreter(minor), str(venv),
        folder=venv,
        doing="Creating the virtual environment",
        env=UV_OPTIONS,
    )  # fmt: skip
    compiled = "-m compileall -q --invalidation-mode unchecked-hash lib || true"
    context.run(
        "/bin/sh", "-c", f"bin/python {compiled}",
        folder=venv,
        doing="Compiling the packages",
        env={"PATH": context.settings.environ.get("PATH", os.defpath)},
    )  # fmt: skip
