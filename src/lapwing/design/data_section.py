"""The section on databases and volumes: where each is, its backups, and how it is recovered.

The restore window and the data loss (RPO) differ: point-in-time recovery has a window of days and
loses minutes. Source of the latter for Atlas: MongoDB, Atlas Architecture Center,
Guidance for Atlas Backups.
"""

from __future__ import annotations

from collections.abc import Iterator

from lapwing.design.claims import section
from lapwing.design.parts import Part, Table
from lapwing.design.subject import KINDS, Subject, joined, product, size


def data(subject: Subject) -> Iterator[Part]:
    """Yield the section on databases and volumes, if there is one."""
    rows = (
        *_atlas_rows(subject),
        *_managed_rows(subject),
        *_inside_rows(subject),
        *_volume_rows(subject),
    )
    if rows:
        yield from section(subject, "data", "Data")
        recovery = ("Restore to", "Data lost by a restore (RPO)", "Recovery (RTO)")
        yield Table(("Data", "Kind", "Where", "Storage", "Backup", *recovery), rows)


def _atlas_rows(subject: Subject) -> Iterator[tuple[str, ...]]:
    for name, each in subject.databases:
        tier = each.tier if each.tier == each.max_tier else f"{each.tier} to {each.max_tier}"
        where = joined(f"{nodes} nodes in {region}" for region, nodes in each.regions)
        days = each.restore_days if each.point_in_time else 0
        often = next(iter(each.kept), "").partition(" ")[0]
        loses = "1 minute at best" if days else _between(often)
        restores = ["failover to another node"] if sum(n for _, n in each.regions) > 1 else []
        restores += ["a restore into a new cluster, time not measured"] if each.backup else []
        backup = ", ".join(each.kept) if each.backup else "none"
        yield (
            name,
            f"{product(each)}, Atlas {tier}",
            where,
            size(each.disk),
            backup,
            *_points(loses, days, backup=each.backup),
            "; ".join(restores) or "none",
        )


def _managed_rows(subject: Subject) -> Iterator[tuple[str, ...]]:
    for each in subject.facts.managed:
        disk = size(each.storage) if each.storage else "-"
        where = each.product or "outside of the cluster"
        where += " with a standby" if each.standby else ""
        backup = f"daily by {each.product}" if each.backup else "none"
        loses = "transactions not archived yet" if each.restore_days else _between("daily")
        restores = ["failover to the standby"] if each.standby else []
        restores += ["a restore, time not measured"] if each.backup else []
        yield (
            each.part,
            KINDS[each.kind],
            where,
            disk,
            backup,
            *_points(loses, each.restore_days, backup=each.backup),
            "; ".join(restores) or "none",
        )


def _inside_rows(subject: Subject) -> Iterator[tuple[str, ...]]:
    where = "on the machine" if subject.on_machine else "in the cluster"
    for pods in subject.data:
        disks = [d for d in subject.facts.disks if d.name.endswith(pods.name)]
        disk = size(disks[0].size) if disks else "-"
        yield pods.part, KINDS[pods.component], where, disk, *_backup(subject, pods.part)


def _volume_rows(subject: Subject) -> Iterator[tuple[str, ...]]:
    for pods in subject.services:
        for each in pods.volumes:
            kind = f"files of {pods.part}, `{each.path}`"
            yield each.name, kind, "on the machine", "-", *_backup(subject, f"volume.{each.name}")


def _backup(subject: Subject, name: str) -> tuple[str, ...]:
    """Return the schedule of backups, the restore point, the data lost, and the command."""
    backup = next((b for b in subject.facts.backups if b.name == name), None)
    if backup is None:
        return "none by Lapwing", *_points("", 0, backup=False), "by hand"
    by = f"{backup.schedule} by {backup.by}".strip()
    by += "" if backup.assured else ", if it starts the server"
    return by, *_points(_between(backup.schedule), 0, backup=True), "`lapwing restore`"


def _points(loses: str, days: int, *, backup: bool) -> tuple[str, str]:
    """Return the restore point, and the data that a restore loses."""
    if not backup:
        return "none", "all data"
    return f"any moment of the last {days} days" if days else "the last backup", loses


def _between(schedule: str) -> str:
    """Return the time between two backups of a schedule in words, or of cron fields."""
    known = {"hourly": "1 hour", "daily": "1 day", "weekly": "1 week", "monthly": "1 month"}
    return known.get(schedule, "the time between two backups")
