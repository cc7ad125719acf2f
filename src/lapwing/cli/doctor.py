"""`lapwing doctor`: what is wrong here, and mending it."""

from __future__ import annotations

import click

from lapwing.cli.context import Context, output_option


@click.command("doctor")
@click.option("--repair", is_flag=True, help="Mend the desired state if it is damaged.")
@output_option
@click.pass_obj
def command(context: Context, repair: bool) -> int:
    """Find what is wrong with this machine or the state folder.

    Exit status 1 if something is wrong.
    """
    from lapwing.commands import doctor

    if repair:
        done = doctor.repair(context.settings)
        for line in done or ["The desired state needs no repair."]:
            context.printer.say(line)
    findings = list(doctor.examine(context.settings))
    if context.for_programs:
        context.printer.json([{"check": f.check, "ok": f.ok, "seen": f.seen} for f in findings])
    else:
        rows = [("ok" if f.ok else "WRONG", f.check, f.seen) for f in findings]
        context.printer.table(("", "CHECK", "SEEN"), rows)
    return 0 if all(f.ok for f in findings) else 1
