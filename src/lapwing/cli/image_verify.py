"""`lapwing image verify`: check the signature, the provenance and the SBOM of an image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lapwing.cli import complete
from lapwing.cli.context import Context
from lapwing.cli.options import declared_environment_option, output_option
from lapwing.cli.references import open_client, parse_reference, plain_http_option
from lapwing.errors import UsageError

if TYPE_CHECKING:
    from lapwing.observed.checks import CheckResult
    from lapwing.registry.signature import Verifier
    from lapwing.stack.image import Reference


@click.command("verify")
@click.argument("image", metavar="IMAGE|SERVICE", shell_complete=complete.services)
@declared_environment_option
@click.option(
    "--key",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The public key. Default: `signing: {key: ...}` of the stack file.",
)
@click.option(
    "--identity",
    metavar="IDENTITY",
    help="The identity in the certificate of a keyless signature. Default: `signing: {keyless: "
    "...}` of the stack file.",
)
@click.option("--issuer", metavar="URL", help="The issuer of its identity token.")
@click.option(
    "--trusted-root",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The trusted root of a private Sigstore instance. Default: the public instance.",
)
@plain_http_option
@output_option
@click.pass_obj
def verify(
    context: Context, /, image: str, environment: str, plain_http: bool, **options: Any
) -> int:
    """Check the signature, the provenance and the SBOM of IMAGE.

    SERVICE is the `latest` image of a service of the stack. Only signatures of the key or the
    identity are accepted. The provenance shows the commit that the image was built from. Exit
    status: 1 if something is missing or has no valid signature.
    """
    import asyncio

    from lapwing.cli import present
    from lapwing.targets.image_verify import verify_image

    reference = _reference(context, image, environment)
    verifier = _verifier(context, environment, **options)

    async def run() -> list[CheckResult]:
        async with open_client(context, reference, plain_http) as client:
            return await verify_image(client, reference, verifier)

    return present.checks(context, asyncio.run(run()))


def _reference(context: Context, text: str, environment: str) -> Reference:
    """Return an image: a name without `/`, `:` and `@` is a service of the stack."""
    from lapwing.errors import check_name
    from lapwing.stack.image import LATEST, service_image

    if any(sign in text for sign in "/:@"):
        return parse_reference(context, text)
    loaded = context.load(environment)
    check_name("service", text, loaded.stack.services, loaded.path)
    if loaded.registry is None:
        raise UsageError(
            "The stack file has no `registry`.", hint="Give the whole name: HOST/FOLDER/NAME:TAG."
        )
    return service_image(loaded.registry, text, LATEST)


def _verifier(
    context: Context,
    environment: str,
    key: Path | None,
    identity: str | None,
    issuer: str | None,
    trusted_root: Path | None,
) -> Verifier:
    """Return the key or the identity of the options, or of the stack file."""
    from lapwing.registry.keyless import Identity
    from lapwing.registry.signers import find_verifier

    if identity is not None and issuer is not None and key is None:
        return Identity(identity, issuer, trusted_root)
    if identity or issuer or trusted_root:
        raise UsageError(
            "--identity and --issuer require each other, --trusted-root requires both, and --key "
            "excludes them.",
            hint="Use `--identity IDENTITY --issuer URL`, or only `--key FILE`.",
        )
    if key is not None:
        return _public_key(key)
    found = find_verifier(context.load(environment))
    if found is None:
        raise UsageError(
            "No public key and no identity are set.",
            hint="Give --key FILE, or --identity and --issuer, or set `signing` in the stack file.",
        )
    return found


def _public_key(path: Path) -> Verifier:
    from lapwing.errors import SigningKeyError
    from lapwing.registry.signature import parse_public_key

    try:
        return parse_public_key(path.read_text("utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise SigningKeyError(
            f"The public key {path} cannot be read: {error}.", hint="Check --key."
        ) from error
