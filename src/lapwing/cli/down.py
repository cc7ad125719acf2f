"""`lapwing down`: stop a stack; its data stays."""

from __future__ import annotations

import click

from lapwing.cli.context import Context, environment_option, output_option


@click.command("down")
@environment_option
@output_option
@click.pass_obj
def command(context: Context, environment: str) -> int:
    """Stop the stack; its data stays, and `lapwing up` brings it back."""
    from lapwing import wiring
    from lapwing.acts import change
    from lapwing.cli import rolling, target

    where = target.where(context, environment)
    actor = wiring.actor(context.settings, context.directory)
    act = change.down(wiring.desired(context.settings), where, actor)
    status = rolling.carry_out(context, where, act)
    _wait_until_stopped(context, where)
    return status


def _wait_until_stopped(context: Context, where: object) -> None:
    """Wait until the processes are gone: connections that are open get a moment to end."""
    import time

    from lapwing.acts.change import Where
    from lapwing.cli import target

    assert isinstance(where, Where)
    until = time.monotonic() + 30
    with context.printer.working("stopping"):
        while time.monotonic() < until:
            found = target.present(context, where)
            if found is None or not found.running:
                return
            time.sleep(0.05)
