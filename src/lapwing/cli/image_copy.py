"""`lapwing image copy`: copy images between registries and OCI layouts."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from lapwing.cli.context import Context
from lapwing.cli.options import output_option
from lapwing.cli.references import fallback_http_option, parse_reference, platform_option
from lapwing.cli.transfer import format_size, transfer
from lapwing.errors import UsageError
from lapwing.stack import image

if TYPE_CHECKING:
    from lapwing.registry.copy import CopyOptions, CopyResult
    from lapwing.registry.layout_reference import LayoutReference
    from lapwing.registry.registry import HostOptions

    Place = image.Reference | LayoutReference

SIDES = ("src", "dst")
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command("copy")
@click.argument("source", metavar="SRC", required=False)
@click.argument("destination", metavar="DST", required=False)
@click.option(
    "-f",
    "--file",
    type=click.File(encoding="utf-8", errors="replace"),
    help="Copy each line `SRC DST` of this file (`-`: standard input), by one process.",
)
@click.option("-t", "--tag", "tags", multiple=True, metavar="TAG", help="A tag of the copy.")
@platform_option
@click.option("--referrers", is_flag=True, help="Copy signatures, SBOMs and attestations, too.")
@click.option(
    "--foreign-layers",
    is_flag=True,
    help="Copy foreign (non-distributable) layers that SRC has. Default: only refer to them.",
)
@click.option(
    "-j",
    "--jobs",
    type=click.IntRange(1, 64),
    default=6,
    show_default=True,
    help="Layers to copy at once.",
)
@fallback_http_option
@click.option("--src-plain-http", is_flag=True, help="Use the registry of SRC without TLS.")
@click.option("--dst-plain-http", is_flag=True, help="Use the registry of DST without TLS.")
@click.option("--src-ca", type=_FILE, help="Also trust this authority, in PEM format, for SRC.")
@click.option("--dst-ca", type=_FILE, help="Also trust this authority, in PEM format, for DST.")
@output_option
@click.pass_obj
def copy(
    context: Context,
    /,
    source: str | None,
    destination: str | None,
    file: TextIO | None,
    tags: tuple[str, ...],
    **options: Any,
) -> None:
    """Copy image SRC to DST, or each image of --file. Only missing layers are sent.

    Each is a reference, or an OCI layout: oci:DIR[:TAG], oci-archive:FILE[:TAG] or
    docker-archive:FILE[:TAG]. The copy gets the tag of DST and every --tag; without any, the tag of
    SRC. Tags are written last, when the image is complete and verified.
    """
    import asyncio

    from lapwing.registry.copy import CopyOptions
    from lapwing.registry.manifest import parse_platform

    pairs = [_parse_pair(context, *pair) for pair in _pairs(source, destination, file)]
    for tag in tags:
        image.check_tag(tag)
    platforms = tuple(parse_platform(text) for text in options["platforms"])
    wanted = CopyOptions(
        platforms, options["referrers"], options["foreign_layers"], options["jobs"]
    )
    copied = [_to_json(*each) for each in asyncio.run(_copy(context, pairs, tags, wanted, options))]
    if context.for_programs:
        context.printer.json(copied[0] if file is None else copied)


def _pairs(
    source: str | None, destination: str | None, file: TextIO | None
) -> list[tuple[str, str]]:
    """Return the sources and destinations of the arguments or the file. Raises UsageError."""
    if file is None and source and destination:
        return [(source, destination)]
    if file is None or source:
        raise UsageError("Give either SRC and DST, or --file FILE.")
    found = []
    for number, line in enumerate(file, 1):
        words = line.partition(" #")[0].split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 2:
            raise UsageError(f"Line {number} of --file is not `SRC DST`: {line.strip()!r}.")
        found.append((words[0], words[1]))
    return found


def _parse_pair(context: Context, source: str, destination: str) -> tuple[Place, Place]:
    from lapwing.registry.layout_reference import parse_layout

    target = parse_layout(destination)
    return (
        parse_layout(source) or parse_reference(context, source),
        target or parse_reference(context, destination, default_tag=None),
    )


async def _copy(
    context: Context,
    pairs: list[tuple[Place, Place]],
    tags: tuple[str, ...],
    wanted: CopyOptions,
    options: dict[str, Any],
) -> list[tuple[Place, Place, CopyResult, float]]:
    """Copy one after the other, by one client, and print each."""
    from lapwing.registry.client import RegistryClient

    plain, hosts = options["plain_http"], _host_options(pairs, options)
    done = []
    async with RegistryClient(context.settings, plain_http=plain, hosts=hosts) as client:
        for origin, target in pairs:
            started = time.monotonic()
            with transfer(context.printer, quiet=context.for_programs) as progress:
                result = await client.copy(origin, target, tags, wanted, progress)
            done.append((origin, target, result, time.monotonic() - started))
            if not context.for_programs:
                _print(context, *done[-1][1:])
    return done


def _print(context: Context, target: Place, result: CopyResult, seconds: float) -> None:
    context.printer.say(_summary(result, seconds))
    for name in [f"{target.name}:{tag}" for tag in result.tags] or [target.name]:
        context.printer.data(f"{name}@{result.root.digest}")


def _host_options(
    pairs: list[tuple[Place, Place]], options: dict[str, Any]
) -> dict[str, HostOptions]:
    """Return the options of each registry; of one that is on both sides, those of both."""
    from lapwing.registry.registry import HostOptions

    found: dict[str, HostOptions] = {}
    for reference, side in ((p, s) for pair in pairs for p, s in zip(pair, SIDES, strict=True)):
        if isinstance(reference, image.Reference):
            given = found.get(reference.api, HostOptions())
            plain = given.plain_http or options[f"{side}_plain_http"]
            authority = options[f"{side}_ca"] or given.authority
            found[reference.api] = HostOptions(plain, authority)
    return found


def _to_json(origin: Place, target: Place, result: CopyResult, seconds: float) -> dict[str, Any]:
    return {
        "source": str(origin),
        "destination": target.name,
        "digest": result.root.digest,
        "media_type": result.root.media_type,
        "tags": result.tags,
        "blobs": result.blobs,
        "left_out": result.left_out,
        "manifests": result.manifests,
        "referrers": result.referrers,
        "bytes_sent": result.sent,
        "seconds": round(seconds, 3),
    }


def _summary(result: CopyResult, seconds: float) -> str:
    if not any(result.blobs.values()) and not result.manifests:
        return f"The destination already has the image; {seconds:.2f} s."
    parts = [f"{result.blobs['copied']} blobs sent ({format_size(result.sent)})"]
    if result.blobs["mounted"]:
        parts.append(f"{result.blobs['mounted']} mounted")
    if result.blobs["present"]:
        parts.append(f"{result.blobs['present']} already exist")
    if result.left_out:
        parts.append(f"{result.left_out} foreign layers not copied")
    if result.referrers:
        parts.append(f"{result.referrers} referrers")
    return f"{', '.join(parts)}; {seconds:.2f} s."
