"""`lapwing verify`: a checklist of a running stack, asked from the outside."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lapwing.cli import cluster as on_cluster
from lapwing.cli.context import Context, environment_option, output_option

if TYPE_CHECKING:
    from lapwing.kubernetes.applyset import Scope


@click.command("verify")
@environment_option
@on_cluster.context_option
@output_option
@click.pass_obj
def command(context: Context, environment: str, cluster: str | None) -> int:
    """Check a running stack from the outside. Exit status 1 if a check does not hold or, on a
    cluster, cannot be made."""
    place = on_cluster.scope_of(context, environment)
    if place is not None:
        return _of_cluster(context, environment, cluster, place[0])
    from lapwing.cli import target
    from lapwing.commands.verify import verify
    from lapwing.desired.repository import DesiredRepository

    where = target.where(context, environment)
    status = target.present(context, where)
    document = DesiredRepository(context.settings.desired).read(where.stack, where.environment)
    if status is None or document is None:
        raise target.never_deployed(where)
    findings = list(verify(context.settings, status, document))
    if context.for_programs:
        context.printer.json([{"check": f.check, "ok": f.ok, "seen": f.seen} for f in findings])
    else:
        rows = [("ok" if f.ok else "FAILED", f.check, f.seen) for f in findings]
        context.printer.table(("", "CHECK", "SEEN"), rows)
    return 0 if all(f.ok for f in findings) else 1


def _of_cluster(context: Context, environment: str, name: str | None, scope: Scope) -> int:
    from urllib.parse import urlsplit

    from lapwing.errors import ClusterLoginError, ClusterUnreachableError
    from lapwing.kubernetes import verify
    from lapwing.stack.load import find, load

    loaded = load(find(context.directory), environment, folders=False)
    services = loaded.stack.services.items()
    paths = {n: s.health.path or s.route for n, s in services if s.route}
    domain = urlsplit(f"https://{loaded.settings.domain or 'localhost'}").netloc
    findings: list[verify.CheckResult] = []
    with on_cluster.connect(context, name, scope) as api:
        try:
            findings += verify.verify(api, scope, verify.EdgeRequests(paths, domain))
        except (ClusterUnreachableError, ClusterLoginError) as error:
            findings.append(verify.unreachable_result(error))
    if context.for_programs:
        context.printer.json(
            [
                {"check": f.check, "ok": f.ok, "seen": f.seen}
                | ({"detail": f.detail} if f.detail else {})
                for f in findings
            ]
        )
    else:
        words = {True: "ok", False: "FAILED", None: "UNKNOWN"}
        rows = [(words[f.ok], f.check, f.seen) for f in findings]
        context.printer.table(("", "CHECK", "SEEN"), rows)
        for finding in findings:
            if finding.detail:
                context.printer.data(f"\n{finding.check}, last lines:")
                context.printer.data("\n".join(f"    {x}" for x in finding.detail.splitlines()))
    return 0 if all(f.ok for f in findings) else 1
