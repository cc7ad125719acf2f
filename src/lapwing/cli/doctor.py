"""`lapwing doctor`: check this machine and the state folder."""

from __future__ import annotations

import click

from lapwing.cli.context import Context
from lapwing.cli.options import output_option


@click.command("doctor")
@click.option(
    "--repair", is_flag=True, help="Repair the desired-state repository if it is damaged."
)
@output_option
@click.pass_obj
def command(context: Context, repair: bool) -> int:
    """Check this machine and the state folder.

    Exit status: 0 if every check passes, 1 if one fails.
    """
    from lapwing.commands import doctor

    if repair:
        context.prepare_home()
        done = doctor.repair(context.settings)
        for line in done or ["The desired-state repository needs no repair."]:
            context.printer.say(line)
    findings = list(doctor.examine(context.settings))
    if context.for_programs:
        context.printer.json([{"check": f.check, "ok": f.ok, "seen": f.seen} for f in findings])
    else:
        rows = [("ok" if f.ok else "FAILED", f.check, f.seen) for f in findings]
        context.printer.table(("", "CHECK", "RESULT"), rows)
    return 0 if all(f.ok for f in findings) else 1
