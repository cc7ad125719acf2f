"""`lapwing image`: build images, list and inspect them in registries, and push a chart there.

Only services with a Dockerfile need a container engine. Logins are those of `docker login`, or
LAPWING_REGISTRY_<HOST>_TOKEN.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lapwing.cli import complete
from lapwing.cli.context import Context
from lapwing.cli.image_copy import copy
from lapwing.cli.image_edit import delete, tag
from lapwing.cli.image_policy import policy
from lapwing.cli.image_prune import prune
from lapwing.cli.image_verify import verify
from lapwing.cli.options import declared_environment_option, output_option
from lapwing.cli.references import (
    fallback_http_option,
    open_client,
    parse_reference,
    plain_http_option,
    platform_option,
)
from lapwing.cli.transfer import format_size, lines, transfer
from lapwing.errors import UsageError

if TYPE_CHECKING:
    from lapwing.targets.images import ImageResult


@click.group("image")
def command() -> None:
    """Build images; copy, list, inspect and delete them in registries."""


for _verb in (copy, delete, policy, prune, tag, verify):
    command.add_command(_verb)


@command.command("build")
@click.argument("services", nargs=-1, shell_complete=complete.services)
@declared_environment_option
@click.option("--push", is_flag=True, help="Push the images to the registry.")
@click.option("--load", is_flag=True, help="Load the images into Docker or Podman.")
@click.option(
    "-o",
    "--archive",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the images to an archive that `docker load`, podman, skopeo and kind read.",
)
@click.option(
    "--registry",
    metavar="HOST/FOLDER",
    help="Name the images HOST/FOLDER/<service>. Default: `registry` of the stack file.",
)
@click.option(
    "-t",
    "--tag",
    "tags",
    multiple=True,
    metavar="TAG",
    help="A tag instead of the commit and `latest`. Repeatable.",
)
@click.option(
    "--platform",
    "platforms",
    multiple=True,
    metavar="OS/ARCH",
    help="A platform of the images. Repeatable; several make an index. Default: linux/amd64, with "
    "--load that of this machine.",
)
@click.option(
    "--attestations/--no-attestations",
    default=True,
    help="Push an SBOM and the provenance beside each image. On by default, and required with "
    "`signing: {keyless: ...}`.",
)
@click.option(
    "--sign-key",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Sign pushed images with this private key. In CI, set LAPWING_SIGNING_KEY instead.",
)
@click.option(
    "--plain-http",
    is_flag=True,
    help="Push without TLS (a login is sent unencrypted), and allow registries of base images "
    "without TLS (no login is sent).",
)
@output_option
@click.pass_obj
def build(context: Context, /, services: tuple[str, ...], environment: str, **options: Any) -> None:
    """Build images of SERVICES (default: all with a source).

    Services with a Dockerfile are built by Docker or Podman. Others need no container engine, and
    with a lock file and pinned base images the same commit has the same digest. Images are pushed
    as HOST/FOLDER/<service>, tagged with the commit and `latest`; blobs that the registry has are
    not sent again. A source with uncommitted changes is pushed only with --tag.
    """
    from lapwing.registry.manifest import parse_platform
    from lapwing.targets.images import ImageOptions, build_images

    platforms = tuple(parse_platform(text) for text in options.pop("platforms"))
    wanted = ImageOptions(services, platforms, **options)
    loaded = context.load(environment)
    context.prepare_home()
    progress = lines(context.printer, quiet=context.for_programs)
    with context.printer.working("building"):
        say = context.printer.progress
        results = build_images(loaded, context.settings, wanted, say, progress)
    if context.for_programs:
        context.printer.json({"images": [_image_to_json(result) for result in results]})
        return
    for result in results:
        image, pushed = result.image, result.pushed
        done = f"{image.service}: built in {result.seconds:.2f} s"
        if wanted.push:
            there = "already in the registry" if not pushed.manifests else "pushed"
            done += f", {there} ({format_size(pushed.sent)} sent)"
        context.printer.say(done)
        context.printer.data(f"{result.repository}:{result.tags[0]}@{image.root.digest}")


def _image_to_json(result: ImageResult) -> dict[str, Any]:
    image, base = result.image, result.image.base
    return {
        "service": image.service,
        "repository": result.repository,
        "digest": image.root.digest,
        "revision": image.revision,
        "tags": list(result.tags),
        "base": base.name,
        "base_digest": base.reference.wanted if base.reference else None,
        "platforms": [
            {
                "platform": str(each.platform),
                "digest": each.manifest.digest,
                "size": sum(blob.size for blob in each.manifest.blobs),
            }
            for each in image.images
        ],
        "pushed": result.pushed.tags,
        "blobs": result.pushed.blobs,
        "bytes_sent": result.pushed.sent,
        "referrers": [
            {"digest": each.digest, "artifact_type": each.artifact_type}
            for each in result.referrers
        ],
        "seconds": round(result.seconds, 3),
    }


@command.command("dockerfile")
@click.argument("service", shell_complete=complete.services)
@declared_environment_option
@click.option("--ignore", is_flag=True, help="Print the .dockerignore file that belongs to it.")
@click.pass_obj
def dockerfile(context: Context, service: str, environment: str, ignore: bool) -> None:
    """Print a Dockerfile for SERVICE, as a starting point.

    For services that `lapwing image build` cannot build without one. It has the same folders, user,
    variables and command. Change it as you need, and set `dockerfile:` of the service.
    """
    from lapwing.build.image.dockerfile import IGNORE
    from lapwing.targets.image_requests import write_dockerfile

    text = write_dockerfile(context.load(environment), context.settings, service)
    context.printer.data((IGNORE if ignore else text).rstrip("\n"))
    if "@sha256:" not in text:
        context.printer.say(
            f"The base image has no digest: run `lapwing image pin -e {environment}` first."
        )


@command.command("pin")
@declared_environment_option
@fallback_http_option
@output_option
@click.pass_obj
def pin(context: Context, environment: str, plain_http: bool) -> None:
    """Write the digests of images to lapwing.lock, or update them.

    These are the base images of builds, and the third-party images that Lapwing renders for
    Kubernetes: Envoy, curl, rclone, databases. Commit the file: builds and manifests use it.
    """
    from lapwing.stack.image_lock import LOCK
    from lapwing.targets.image_pins import pin_images

    loaded = context.load(environment)
    digests = pin_images(loaded, context.settings, plain_http=plain_http)
    if context.for_programs:
        images = [{"image": name, "digest": digest} for name, digest in digests.items()]
        context.printer.json({"file": str(loaded.folder / LOCK), "images": images})
        return
    for name, digest in digests.items():
        context.printer.data(f"{name}@{digest}")
    context.printer.say(f"Written to {loaded.folder / LOCK}; commit it.")


@command.command("list")
@click.argument("repository")
@plain_http_option
@output_option
@click.pass_obj
def list_(context: Context, repository: str, plain_http: bool) -> None:
    """List the tags of REPOSITORY."""
    import asyncio

    wanted = parse_reference(context, repository, default_tag=None)
    if wanted.tag or wanted.digest:
        raise UsageError(
            f"{repository!r} names an image, not a repository.",
            hint=f"`lapwing image list {wanted.name}` lists its tags.",
        )

    async def run() -> list[str]:
        async with open_client(context, wanted, plain_http) as client:
            return [tag async for tag in client.repository(wanted).tags()]

    tags = asyncio.run(run())
    if context.for_programs:
        context.printer.json({"repository": wanted.name, "tags": tags})
        return
    for each in tags:
        context.printer.data(each)
    if not tags:
        context.printer.say(f"{wanted.name} has no tags.")


@command.command("inspect")
@click.argument("reference", metavar="IMAGE")
@platform_option
@plain_http_option
@output_option
@click.pass_obj
def inspect(context: Context, reference: str, platforms: tuple[str, ...], plain_http: bool) -> None:
    """Show the manifest, config, layers and referrers of IMAGE."""
    import asyncio

    from lapwing.registry.inspect import inspect_image
    from lapwing.registry.manifest import parse_platform

    wanted = parse_reference(context, reference)
    parsed = [parse_platform(text) for text in platforms]

    async def run() -> dict[str, Any]:
        async with open_client(context, wanted, plain_http) as client:
            return await inspect_image(client.repository(wanted), wanted.wanted, parsed)

    found = {"reference": str(wanted), **asyncio.run(run())}
    if context.for_programs:
        context.printer.json(found)
    else:
        _print_image(context, _printable(found))


def _print_image(context: Context, found: dict[str, Any]) -> None:
    printer = context.printer
    printer.data(f"{found['reference']}  {format_size(found['size'])}")
    config = found["config"] or {}
    fields = {"digest": found["digest"], "media type": found["media_type"]}
    for key in ("platform", "created", "user", "entrypoint", "command"):
        fields[key] = config.get(key)
    for key, value in fields.items():
        if value:
            text = " ".join(map(str, value)) if isinstance(value, list) else value
            printer.data(f"{key:<10}  {text}")
    for key, value in (config.get("labels") or {}).items():
        printer.data(f"label       {key}={value}")
    tables = {
        ("PLATFORM", "DIGEST"): [(p["platform"], p["digest"]) for p in found["platforms"]],
        ("LAYER", "SIZE"): [(b["digest"], format_size(b["size"])) for b in found["layers"]],
        ("REFERRER", "NAME"): [
            (r.get("artifact_type", ""), r.get("digest") or r["tag"]) for r in found["referrers"]
        ],
    }
    for header, rows in tables.items():
        if rows:
            printer.data("")
            printer.table(header, rows)


def _printable(value: Any) -> Any:
    """Replace control characters by blanks: an image must not control the terminal."""
    if isinstance(value, str):
        return "".join(c if c.isprintable() else " " for c in value)
    if isinstance(value, dict):
        return {_printable(key): _printable(inner) for key, inner in value.items()}
    return [_printable(inner) for inner in value] if isinstance(value, list) else value


@command.command("push-chart")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("destination", metavar="DST")
@plain_http_option
@output_option
@click.pass_obj
def push_chart(context: Context, file: Path, destination: str, plain_http: bool) -> None:
    """Push the packaged Helm chart FILE to DST/<chart name>:<chart version>.

    Get it with `helm pull oci://DST/<chart name>`. A `.prov` file beside FILE is pushed, too.
    """
    import asyncio

    from lapwing.registry.chart import push_chart as push
    from lapwing.registry.chart import read_chart

    chart = read_chart(file)
    target = chart.reference(destination)
    started = time.monotonic()

    async def run() -> str:
        async with open_client(context, target, plain_http) as client:
            with transfer(context.printer, quiet=context.for_programs) as progress:
                manifest = await push(chart, client.repository(target, write=True), progress)
                return manifest.digest

    digest = asyncio.run(run())
    if context.for_programs:
        context.printer.json(
            {
                "chart": chart.name,
                "version": chart.version,
                "reference": str(target),
                "digest": digest,
                "seconds": round(time.monotonic() - started, 3),
            }
        )
        return
    context.printer.data(f"{target}@{digest}")
