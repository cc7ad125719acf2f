"""`lapwing verify`: a checklist of a running stack, asked from the outside."""

from __future__ import annotations

import click

from lapwing.cli.context import Context, environment_option, output_option


@click.command("verify")
@environment_option
@output_option
@click.pass_obj
def command(context: Context, environment: str) -> int:
    """Check a running stack from the outside. Exit status 1 if a check does not hold."""
    from lapwing import wiring
    from lapwing.acts.verify import verify
    from lapwing.cli import target

    where = target.where(context, environment)
    status = target.present(context, where)
    document = wiring.desired(context.settings).read(where.stack, where.environment)
    if status is None or document is None:
        raise target.never_deployed(where)
    findings = list(verify(context.settings, status, document))
    if context.for_programs:
        context.printer.json([{"check": f.check, "ok": f.ok, "seen": f.seen} for f in findings])
    else:
        rows = [("ok" if f.ok else "FAILED", f.check, f.seen) for f in findings]
        context.printer.table(("", "CHECK", "SEEN"), rows)
    return 0 if all(f.ok for f in findings) else 1
