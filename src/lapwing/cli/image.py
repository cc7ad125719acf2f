"""`lapwing image`: copy, list and inspect images in registries, and push a chart there.

Nothing needs a container daemon, and nothing is kept on this machine. Logins are those of
`docker login`, or LAPWING_REGISTRY_<HOST>_TOKEN.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lapwing.cli.context import Context, output_option
from lapwing.cli.transfer import size, transfer
from lapwing.errors import UsageError
from lapwing.stack import image

if TYPE_CHECKING:
    from lapwing.registry.copy import CopyResult
    from lapwing.stack.image import Reference


@click.group("image")
def command() -> None:
    """Copy, list and inspect images in registries."""


def _plain_http(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--plain-http",
        is_flag=True,
        help="Allow registries without TLS; always allowed on this machine.",
    )(function)


def _platforms(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--platform",
        "platforms",
        multiple=True,
        metavar="OS/ARCH[/VARIANT]",
        help="Only this platform of an image for several; may be given more than once.",
    )(function)


@command.command("copy")
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST")
@click.option("-t", "--tag", "tags", multiple=True, metavar="TAG", help="A tag of the copy.")
@_platforms
@click.option("--referrers", is_flag=True, help="Bring signatures, SBOMs and attestations along.")
@click.option(
    "-j",
    "--jobs",
    type=click.IntRange(1, 64),
    default=6,
    show_default=True,
    help="Layers to copy at once.",
)
@_plain_http
@output_option
@click.pass_obj
def copy(
    context: Context,
    /,
    source: str,
    destination: str,
    tags: tuple[str, ...],
    **options: Any,
) -> None:
    """Copy the image SRC to DST; only what is missing there is sent.

    The copy gets the tag of DST and every --tag; without any, the tag of SRC. Its tags are written
    last, when all of it is there and verified.
    """
    from lapwing.registry.client import RegistryClient
    from lapwing.registry.copy import CopyOptions
    from lapwing.registry.manifest import parse_platform

    origin = _reference(context, source)
    goal = _reference(context, destination, default_tag=None)
    for tag in tags:
        image.check_tag(tag)
    wanted = CopyOptions(
        tuple(parse_platform(text) for text in options["platforms"]),
        options["referrers"],
        options["jobs"],
    )
    began = time.monotonic()

    async def act() -> CopyResult:
        async with RegistryClient(context.settings, plain_http=options["plain_http"]) as client:
            with transfer(context.printer, quiet=context.for_programs) as progress:
                return await client.copy(origin, goal, tags, wanted, progress)

    done = asyncio.run(act())
    answer = _copied(origin, goal, done, time.monotonic() - began)
    if context.for_programs:
        context.printer.json(answer)
        return
    context.printer.say(_told(done, answer["seconds"]))
    for name in [f"{goal.name}:{tag}" for tag in done.tags] or [goal.name]:
        context.printer.data(f"{name}@{done.root.digest}")


def _copied(origin: Reference, goal: Reference, done: CopyResult, seconds: float) -> dict[str, Any]:
    return {
        "source": str(origin),
        "destination": goal.name,
        "digest": done.root.digest,
        "media_type": done.root.media_type,
        "tags": done.tags,
        "blobs": done.blobs,
        "left_out": done.left_out,
        "manifests": done.manifests,
        "referrers": done.referrers,
        "bytes_sent": done.sent,
        "seconds": round(seconds, 3),
    }


def _told(done: CopyResult, seconds: float) -> str:
    """What a copy did, in a sentence."""
    parts = [f"{done.blobs['copied']} blobs sent ({size(done.sent)})"]
    if done.blobs["mounted"]:
        parts.append(f"{done.blobs['mounted']} mounted")
    if done.blobs["present"]:
        parts.append(f"{done.blobs['present']} were there")
    if done.left_out:
        parts.append(f"{done.left_out} left out that may not be distributed")
    if done.referrers:
        parts.append(f"{done.referrers} referrers")
    nothing = not any(done.blobs.values()) and not done.manifests
    what = "It was there already" if nothing else ", ".join(parts)
    return f"{what}; {seconds:.2f} s."


@command.command("list")
@click.argument("repository")
@_plain_http
@output_option
@click.pass_obj
def list_(context: Context, repository: str, plain_http: bool) -> None:
    """List the tags of REPOSITORY."""
    from lapwing.registry.client import RegistryClient

    wanted = _reference(context, repository, default_tag=None)
    if wanted.tag or wanted.digest:
        raise UsageError(
            f"{repository!r} names an image, not a repository.",
            hint=f"`lapwing image list {wanted.name}` lists its tags.",
        )

    async def act() -> list[str]:
        async with RegistryClient(context.settings, plain_http=plain_http) as client:
            return [tag async for tag in client.repository(wanted).tags()]

    tags = asyncio.run(act())
    if context.for_programs:
        context.printer.json({"repository": wanted.name, "tags": tags})
        return
    for tag in tags:
        context.printer.data(tag)
    if not tags:
        context.printer.say(f"{wanted.name} has no tags.")


@command.command("inspect")
@click.argument("reference", metavar="IMAGE")
@_platforms
@_plain_http
@output_option
@click.pass_obj
def inspect(context: Context, reference: str, platforms: tuple[str, ...], plain_http: bool) -> None:
    """Tell what a registry knows of IMAGE."""
    from lapwing.registry.client import RegistryClient
    from lapwing.registry.inspect import inspect_image
    from lapwing.registry.manifest import parse_platform

    wanted = _reference(context, reference)
    parsed = [parse_platform(text) for text in platforms]

    async def act() -> dict[str, Any]:
        async with RegistryClient(context.settings, plain_http=plain_http) as client:
            return await inspect_image(client.repository(wanted), wanted.wanted, parsed)

    answer = {"reference": str(wanted), **asyncio.run(act())}
    if context.for_programs:
        context.printer.json(answer)
    else:
        _show(context, answer)


def _show(context: Context, answer: dict[str, Any]) -> None:
    """Show it as text. What the image says of itself may not steer the terminal."""
    printer = context.printer
    answer = _clean(answer)
    printer.data(f"{answer['reference']}  {size(answer['size'])}")
    printer.data(f"digest  {answer['digest']}")
    printer.data(f"kind    {answer['media_type']}")
    config = answer["config"] or {}
    for key in ("platform", "created", "user", "entrypoint", "command"):
        if config.get(key):
            value = config[key]
            text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
            printer.data(f"{key:<10}  {text}")
    for key, value in (config.get("labels") or {}).items():
        printer.data(f"label       {key}={value}")
    if answer["platforms"]:
        printer.data("")
        printer.table(
            ("PLATFORM", "DIGEST"), [(p["platform"], p["digest"]) for p in answer["platforms"]]
        )
    if answer["layers"]:
        printer.data("")
        rows = [(b["digest"], size(b["size"])) for b in answer["layers"]]
        printer.table(("LAYER", "SIZE"), rows)
    if answer["referrers"]:
        printer.data("")
        rows = [
            (r.get("artifact_type", ""), r.get("digest") or r["tag"]) for r in answer["referrers"]
        ]
        printer.table(("REFERRER", "NAME"), rows)


def _clean(value: Any) -> Any:
    """The same data with every character that does not print as a blank."""
    if isinstance(value, str):
        return "".join(c if c.isprintable() else " " for c in value)
    if isinstance(value, dict):
        return {_clean(key): _clean(inner) for key, inner in value.items()}
    return [_clean(inner) for inner in value] if isinstance(value, list) else value


@command.command("push-chart")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("destination", metavar="DST")
@_plain_http
@output_option
@click.pass_obj
def push_chart(context: Context, file: Path, destination: str, plain_http: bool) -> None:
    """Push the packaged Helm chart FILE to DST/<name of the chart>:<its version>.

    `helm pull oci://DST/<name>` gets it. The `.prov` file beside it, if there is one, goes along.
    """
    from lapwing.registry.chart import push_chart as push
    from lapwing.registry.chart import read_chart
    from lapwing.registry.client import RegistryClient

    chart = read_chart(file)
    goal = chart.reference(destination)
    began = time.monotonic()

    async def act() -> str:
        async with RegistryClient(context.settings, plain_http=plain_http) as client:
            with transfer(context.printer, quiet=context.for_programs) as progress:
                made = await push(chart, client.repository(goal, write=True), progress)
                return made.digest

    digest = asyncio.run(act())
    if context.for_programs:
        answer = {"chart": chart.name, "version": chart.version, "reference": str(goal)}
        seconds = round(time.monotonic() - began, 3)
        context.printer.json({**answer, "digest": digest, "seconds": seconds})
        return
    context.printer.data(f"{goal}@{digest}")


def _reference(context: Context, text: str, *, default_tag: str | None = image.LATEST) -> Reference:
    """Parse a reference; say so where an upper-case name was written in lower case."""
    found = image.parse(text, lower=True, default_tag=default_tag)
    if text.partition("@")[0].lower() != text.partition("@")[0] and found.repository not in text:
        context.printer.say(
            f"{text} is taken as {found}: a repository is in lower case, as the OCI specification "
            "demands."
        )
    return found
