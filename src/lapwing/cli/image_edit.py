"""`lapwing image tag` and `delete`: give an image of a registry another tag, or delete it."""

from __future__ import annotations

import click

from lapwing.cli.context import Context
from lapwing.cli.options import output_option
from lapwing.cli.references import open_client, parse_reference, plain_http_option
from lapwing.errors import ImageMissingError, UsageError
from lapwing.stack import image


@click.command("tag")
@click.argument("source", metavar="IMAGE")
@click.argument("new", metavar="TAG")
@plain_http_option
@output_option
@click.pass_obj
def tag(context: Context, source: str, new: str, plain_http: bool) -> None:
    """Give IMAGE another tag in its repository. No layer is transferred."""
    import asyncio

    found = parse_reference(context, source)
    target = found.tagged(image.check_tag(new))

    async def run() -> tuple[str, bool]:
        async with open_client(context, found, plain_http) as client:
            repository = client.repository(found, write=True)
            manifest = await repository.manifest(found.wanted)
            return manifest.digest, await repository.ensure_manifest(manifest, new)

    digest, changed = asyncio.run(run())
    if context.for_programs:
        context.printer.json({"reference": str(target), "digest": digest, "changed": changed})
        return
    context.printer.data(f"{target}@{digest}")


@click.command("delete")
@click.argument("reference", metavar="IMAGE")
@plain_http_option
@output_option
@click.pass_obj
def delete(context: Context, reference: str, plain_http: bool) -> None:
    """Delete IMAGE from its registry: the tag of REPOSITORY:TAG, the image of REPOSITORY@DIGEST.

    Deleting an image also deletes all its tags. Many registries cannot delete a single tag. The
    registry removes layers that no image needs.
    """
    import asyncio

    wanted = parse_reference(context, reference, default_tag=None)
    if not wanted.tag and not wanted.digest:
        raise UsageError(
            f"{reference!r} names a repository, not an image.",
            hint=f"Add a tag or a digest: {wanted.name}@sha256:...",
        )

    async def run() -> str:
        async with open_client(context, wanted, plain_http) as client:
            repository = client.repository(wanted, write=True, delete=True)
            digest = await repository.digest(wanted.wanted)
            if digest is None or not await repository.delete(wanted.wanted):
                raise ImageMissingError(f"{wanted} does not exist; nothing was deleted.")
            return digest or wanted.wanted

    digest = asyncio.run(run())
    if context.for_programs:
        context.printer.json({"reference": str(wanted), "digest": digest})
        return
    context.printer.data(f"{wanted.name}@{digest}")
