"""What the verbs of images share: their options, references as arguments, and the client."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lapwing.cli.context import Context
from lapwing.stack import image

if TYPE_CHECKING:
    from lapwing.registry.client import RegistryClient
    from lapwing.stack.image import Reference

plain_http_option = click.option(
    "--plain-http",
    is_flag=True,
    help="Use the registry without TLS; a login is sent to it unencrypted. Loopback registries "
    "never need it.",
)
fallback_http_option = click.option(
    "--plain-http",
    is_flag=True,
    help="Allow registries without TLS. No login is sent to them.",
)
platform_option = click.option(
    "--platform",
    "platforms",
    multiple=True,
    metavar="OS/ARCH[/VARIANT]",
    help="Only this platform of a multi-platform image. Repeatable.",
)


def open_client(context: Context, reference: Reference, plain_http: bool) -> RegistryClient:
    """Return a client for the registry of one reference."""
    from lapwing.registry.client import RegistryClient
    from lapwing.registry.registry import HostOptions

    return RegistryClient(
        context.settings, hosts={reference.api: HostOptions(plain_http=plain_http)}
    )


def parse_reference(
    context: Context, text: str, *, default_tag: str | None = image.LATEST
) -> Reference:
    """Parse a reference; report an upper-case repository that was changed to lower case."""
    found = image.parse(text, lower=True, default_tag=default_tag)
    if text.partition("@")[0].lower() != text.partition("@")[0] and found.repository not in text:
        context.printer.say(
            f"{text} is used as {found}: the OCI specification allows only lower-case repositories."
        )
    return found
