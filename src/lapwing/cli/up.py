"""`lapwing up`: from a folder to a URL."""

from __future__ import annotations

from pathlib import Path

import click

from lapwing.cli.context import Context, environment_option, output_option


@click.command("up")
@click.argument("directory", required=False, type=click.Path(path_type=Path))
@environment_option
@output_option
@click.pass_obj
def command(context: Context, directory: Path | None, environment: str) -> int:
    """Start what is needed, deploy every service of the stack in DIR, print the URL."""
    from lapwing.cli import deploy, target

    if directory is not None:
        context.directory = directory
    status = deploy.run(context, (), environment)
    if status != 0 or context.for_programs:
        return status
    found = target.present(context, target.where(context, environment))
    if found is None:
        return 1
    context.printer.data(found.url)
    if found.environment == "local":
        only = f"https://localhost:{context.settings.port}"
        authority = context.settings.certificates / "ca.pem"
        context.printer.say(
            f"Also {only}, while it is the only stack. To let a browser trust it, add {authority} "
            "to its authorities; for curl: --cacert."
        )
    return 0
