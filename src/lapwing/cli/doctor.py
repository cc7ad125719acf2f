"""`lapwing doctor`: check this machine and the state folder."""

from __future__ import annotations

import click

from lapwing.cli.context import Context
from lapwing.cli.options import environment_named, output_option
from lapwing.errors import UsageError


@click.command("doctor")
@click.option(
    "--repair", is_flag=True, help="Repair the desired-state repository if it is damaged."
)
@environment_named("The environment whose server is checked. Default: this machine.")
@output_option
@click.pass_obj
def command(context: Context, repair: bool, environment: str | None) -> int:
    """Check this machine and the state folder, or the server of an environment.

    Exit status: 0 if no check fails, 1 if one fails. UNKNOWN is not a failure.
    """
    from lapwing.commands import doctor
    from lapwing.stack.load import LOCAL

    if environment not in (None, LOCAL):
        target = context.load(environment).settings.target
        raise UsageError(
            f"Environment {environment!r} has `target: {target}` and no `host`.",
            hint="`lapwing doctor` checks this machine; `-e` is for environments with `host`.",
        )
    if repair:
        context.prepare_home()
        done = doctor.repair(context.settings)
        for line in done or ["The desired-state repository needs no repair."]:
            context.printer.say(line)
    findings = list(doctor.examine(context.settings))
    if context.for_programs:
        context.printer.json([{"check": f.check, "ok": f.ok, "seen": f.seen} for f in findings])
    else:
        words = {True: "ok", False: "FAILED", None: "UNKNOWN"}
        rows = [(words[f.ok], f.check, f.seen) for f in findings]
        context.printer.table(("", "CHECK", "RESULT"), rows)
    return 1 if any(f.ok is False for f in findings) else 0
