"""Images of services with a Dockerfile: built by an engine, then treated like any other.

The engine is Docker, Podman or buildah. It gets the files that git tracks, never `.git` or what is
ignored, and its image is read back as an archive (`save`). From there it is pushed, written or
tagged by the same code as an image that Lapwing built. A layer is compressed once, so a layer that
the registry has is not sent again. Whether its digest is reproducible depends on the Dockerfile.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import shutil
import tarfile
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from lapwing.build.builder import name_service
from lapwing.build.command import BuildLog, environment, open_log, run
from lapwing.build.context import BuildRequest
from lapwing.build.image import layer as image_layers
from lapwing.build.image.base import empty_base
from lapwing.build.image.builder import Image, PlatformImage, image_labels
from lapwing.build.image.layer import Layer
from lapwing.build.image.outline import instructions, words_of
from lapwing.build.image.steps import BuildSteps
from lapwing.build.source import Source, copy, read_source
from lapwing.errors import BuildError
from lapwing.registry.manifest import Platform
from lapwing.settings import Settings
from lapwing.system import process
from lapwing.system.git import read_change
from lapwing.system.secret_names import is_secret, is_secret_file

ENGINES = ("docker", "podman", "buildah")
ANSWER_S = 30.0
"""The time in which an engine has to answer."""
_NO_ACCESS = re.compile("permission denied.*(socket|daemon)", re.IGNORECASE | re.DOTALL)
_COPY = re.compile(r"(?:COPY|ADD)\s+((?:--\S+\s+)*)(.+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class DockerfileRequest:
    """What to build: a context folder with a Dockerfile in it, up to a stage (`target`).

    `secrets` are the names of the service's secrets, which must not be build arguments;
    `build_secrets` are variables that the steps of the Dockerfile can mount as files.
    """

    build: BuildRequest
    dockerfile: str
    platform: Platform
    secrets: Sequence[str] = ()
    target: str | None = None
    build_secrets: Sequence[str] = ()


def running_engine(settings: Settings) -> str:
    """Return the container engine on the PATH. Raises BuildError if it is missing or not running.

    `version` asks Docker's daemon; Podman and buildah have none.
    """
    engine = _find_engine(settings)
    try:
        done = process.run([engine, "version"], settings.environ, timeout=ANSWER_S)
        problem = done.stderr.strip() if done.status != 0 else None
    except OSError as error:
        problem = error.strerror or f"no response within {ANSWER_S:.0f} s"
    if problem is None:
        return engine
    if Path(engine).name == "docker" and _NO_ACCESS.search(problem):
        raise BuildError(
            f"Permission denied for the socket of the container engine {engine}.",
            detail=problem[-2000:],
            hint="Add your user to the group `docker` (`sudo usermod -aG docker $USER`) and log in "
            "again; or use Podman, which needs no group.",
        )
    raise BuildError(
        f"The container engine {engine} is not running.",
        detail=problem[-2000:] or None,
        hint=f"Start it, and check that you may use it: `{Path(engine).name} info`.",
    )


def _find_engine(settings: Settings) -> str:
    for name in ENGINES:
        found = shutil.which(name, path=settings.environ.get("PATH"))
        if found is not None:
            return found
    raise BuildError(
        f"No container engine ({', '.join(ENGINES)}) is on the PATH.",
        hint="Install one, for instance with `apt-get install docker.io`. Services without a "
        "Dockerfile need none for --push and `-o FILE`.",
    )


def check_request(request: DockerfileRequest, settings: Settings) -> None:
    """Check all that is known before a build. Raises BuildError or SourceError."""
    with name_service(request.build, settings):
        running_engine(settings)
        _refuse(request, read_source(request.build.folder, settings.environ), settings)


def build_with_engine(
    request: DockerfileRequest, settings: Settings, report: Callable[[str], None]
) -> Image:
    """Build a Dockerfile. Raises BuildError, SourceError or NoSpaceError."""
    build = request.build
    with (
        name_service(build, settings),
        tempfile.TemporaryDirectory(prefix="lapwing-build-") as work,
    ):
        engine = _find_engine(settings)
        source = read_source(build.folder, settings.environ)
        _refuse(request, source, settings)
        _report_private(request, source, report)
        change = read_change(build.folder, settings.environ)
        labels = image_labels(build.service, source, change)
        copy(source, Path(work) / "context")
        given = environment(settings.environ, build.env) | _engine_variables(settings.environ)
        given |= {name: settings.environ[name] for name in request.build_secrets}
        logs = settings.logs / "build" / build.stack / build.service
        name, secrets = f"image-{source.digest[:12]}", request.build_secrets
        steps = BuildSteps()
        with contextlib.closing(open_log(logs, name, steps.read, given, secrets)) as log:
            archive = _run_engine(engine, request, Path(work), labels, log, steps, given)
        image = _read(archive, request.platform, labels, settings)
        root = image.manifest
    return Image(build.service, source.revision, empty_base([request.platform]), root, (image,))


def _run_engine(
    engine: str,
    request: DockerfileRequest,
    work: Path,
    labels: Mapping[str, str],
    log: BuildLog,
    steps: BuildSteps,
    environ: Mapping[str, str],
) -> Path:
    """Build the folder `context` in `work` and save the image; returns the archive."""
    build, context = request.build, work / "context"
    # A tag keeps the engine's cache; the image is saved by its ID, which no other build can move.
    tag = f"lapwing-build/{build.stack}-{build.service}"
    command = [engine, "build", "--file", str(context / request.dockerfile), "--tag", tag]
    command += ["--iidfile", str(work / "id"), "--platform", str(request.platform)]
    command.append("--force-rm")  # Else Docker without BuildKit leaves the container that failed.
    if Path(engine).name == "buildah":
        command.append("--layers")  # Else it keeps no cache.
    if request.target is not None:
        command += ["--target", request.target]
    for name in request.build_secrets:
        command += ["--secret", f"id={name},env={name}"]
    for name in build.env:
        command += ["--build-arg", name]  # The value is read from the environment.
    for key, value in labels.items():
        command += ["--label", f"{key}={value}"]
    until = time.monotonic() + build.timeout
    doing = f"The build of {request.dockerfile}"
    with steps.named(log):
        run(
            [*command, str(context)],
            folder=context,
            environ=environ,
            log=log,
            until=until,
            doing=doing,
        )
    archive = work / "image.tar"
    try:
        identity = (work / "id").read_text().strip()
    except FileNotFoundError as error:
        raise BuildError(
            f"{engine} built the image but wrote no image ID to the file of `--iidfile`.",
            log=log.path,
            hint=f"Check that `{Path(engine).name}` is a container engine and not another program.",
        ) from error
    save = [engine, "save", "--output", str(archive), identity]
    if Path(engine).name == "buildah":
        save = [engine, "push", identity, f"docker-archive:{archive}"]
    run(
        save,
        folder=context,
        environ=environ,
        log=log,
        until=until,
        doing="Reading the image",
    )
    return archive


def _engine_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that the engine finds its daemon, programs and user by."""
    names = re.compile(
        r"(DOCKER|BUILDKIT|BUILDAH)_\w+|CONTAINER_HOST|XDG_RUNTIME_DIR"
        r"|CONTAINERS_(CONF|REGISTRIES_CONF|STORAGE_CONF)|STORAGE_(DRIVER|OPTS)"
    )
    return {name: value for name, value in environ.items() if names.fullmatch(name)}


def _refuse(request: DockerfileRequest, source: Source, settings: Settings) -> None:
    """Refuse secrets in build arguments, missing build secrets, and a missing Dockerfile."""
    file = request.dockerfile
    if file not in source.files:
        raise BuildError(
            f"There is no {file} in {source.folder} that git tracks.",
            hint="Correct `dockerfile:`, which is relative to the folder of `build:`, or commit "
            "the file.",
        )
    for name, value in request.build.env.items():
        if is_secret(name, value, request.secrets):
            raise BuildError(
                f"The build argument {name} is a secret. Build arguments stay readable in the "
                "history of the image.",
                hint="Remove it from `build: {env: ...}`. A step of the build gets it with "
                "`build: {secrets: [...]}`, a program at run time with `secrets:` of the service.",
            )
    for name in request.build_secrets:
        if not settings.environ.get(name):
            raise BuildError(
                f"The build secret {name} has no value.",
                hint=f"Run `export {name}=VALUE` before the command. With `host`, the server "
                "builds: set it in /etc/lapwing/environment.local on the server.",
            )


def _report_private(
    request: DockerfileRequest, source: Source, report: Callable[[str], None]
) -> None:
    """Report what a Dockerfile should not copy."""
    service = request.build.service
    text = (source.folder / request.dockerfile).read_text("utf-8", errors="replace")
    for name in _copied(text):
        if name.rstrip("/").rpartition("/")[2] == ".git" or is_secret_file(name):
            report(
                f"{service}: {request.dockerfile} copies {name} into the image, where everyone "
                "who pulls it can read it: remove it from COPY"
            )
    for name in source.files:
        if is_secret_file(name):
            report(
                f"{service}: {name} is in git, so `COPY .` copies it into the image unless "
                ".dockerignore lists it"
            )


def _copied(dockerfile: str) -> Iterator[str]:
    """Yield the names that a Dockerfile copies from its context."""
    for instruction in instructions(dockerfile):
        found = _COPY.fullmatch(instruction)
        if found is None or "--from=" in found[1]:
            continue
        words = words_of(found[2])
        with contextlib.suppress(ValueError):  # Else it is not the form of a JSON list.
            words = [str(word) for word in json.loads(found[2])]
        yield from words[:-1]


def _read(
    archive: Path, platform: Platform, labels: Mapping[str, str], settings: Settings
) -> PlatformImage:
    """Read the image in an archive of `docker save`, and compress its layers."""
    try:
        with tarfile.open(archive) as opened:
            entry = json.loads(_content(opened, "manifest.json"))[0]
            config = _content(opened, entry["Config"])
            document: dict[str, Any] = json.loads(config)
            diff_ids = document["rootfs"]["diff_ids"]
            layers = [
                _compress(opened, name, diff_id, settings)
                for name, diff_id in zip(entry["Layers"], diff_ids, strict=True)
            ]
    except (
        tarfile.TarError,
        gzip.BadGzipFile,
        zlib.error,
        EOFError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
    ) as error:
        raise BuildError(
            f"The archive that the engine saved is damaged: {error}.",
            hint="Build again. If that does not help, check the engine's disk and its log.",
        ) from error
    found = Platform(str(document.get("os")), str(document.get("architecture")))
    if (found.os, found.architecture) != (platform.os, platform.architecture):
        raise BuildError(
            f"The engine built an image for {found}, not for {platform}.",
            hint="Its base image is for another platform: correct `FROM` of the Dockerfile.",
        )
    return PlatformImage.of(platform, config, layers, labels)


def _compress(archive: tarfile.TarFile, name: str, diff_id: str, settings: Settings) -> Layer:
    def write(made: Path) -> image_layers.Record:
        with made.open("wb") as file, _unpacked(_member(archive, name)) as layer:
            record = image_layers.compress(layer, file)
        if record.diff_id != diff_id:
            raise ValueError(f"layer {diff_id} has other content")
        return record

    return image_layers.kept(settings, "engine", [diff_id], write)


def _unpacked(member: IO[bytes]) -> IO[bytes]:
    """Return an uncompressed layer. Docker's containerd image store saves layers with gzip."""
    is_packed = member.read(2) == b"\x1f\x8b"
    member.seek(0)
    return cast("IO[bytes]", gzip.GzipFile(fileobj=member)) if is_packed else member


def _content(archive: tarfile.TarFile, name: str) -> bytes:
    return _member(archive, name).read()


def _member(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    member = archive.extractfile(name)
    if member is None:
        raise ValueError(f"{name} is not a file")
    return member
