"""What the rendered files contain for the recovery of each database and volume.

As in `evidence.py`, nothing here calls the code that writes the table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.unit.design.evidence import Body, Rendered

UNITS = {"Mi": 1, "Gi": 1024, "Ti": 1024**2}


@dataclass(frozen=True)
class Recovery:
    """What is rendered to recover the data of one row."""

    storage_mib: float | None
    schedule: tuple[str, ...] = ()
    """What makes backups and how often, or how long they are kept; empty without backups."""
    window_days: int = 0
    """For how long it can be restored to any moment."""
    standby: bool = False
    verb: bool = False
    """Whether `lapwing restore` restores it."""


def recoveries(r: Rendered) -> dict[str, Recovery]:
    """Everything that keeps data, by the name of its row."""
    return dict([*_atlas(r), *_managed(r), *_in_cluster(r), *_on_machine(r)])


def _atlas(r: Rendered) -> Iterator[tuple[str, Recovery]]:
    schedules = r.own.get("mongodbatlas_cloud_backup_schedule", {})
    for name, body in r.atlas():
        schedule = schedules.get(f"{r.loaded.environment}-{name}", {})
        configs = body["replication_specs"][0]["region_configs"]
        nodes = sum(c["electable_specs"].get("node_count", 3) for c in configs)
        disk = configs[0]["electable_specs"].get("disk_size_gb", 0.5)
        kept = []
        for often in ("daily", "weekly", "monthly") if body.get("backup_enabled") else ():
            found = schedule.get(f"policy_item_{often}", [])
            for item in [found] if isinstance(found, dict) else found:
                kept.append(f"{often} for {item['retention_value']} {item['retention_unit']}")
        window = schedule["restore_window_days"] if body.get("pit_enabled") else 0
        yield name, Recovery(disk * 1024, tuple(kept), window, nodes > 1)


def _managed(r: Rendered) -> Iterator[tuple[str, Recovery]]:
    created = dict(r.managed())
    for name, body in created.items():
        settings = body.get("settings")
        if settings is None:
            yield name, Recovery(None, standby=body["tier"] == "STANDARD_HA")
            continue
        backup = settings["backup_configuration"]
        logged = "point_in_time_recovery_enabled" in backup or "binary_log_enabled" in backup
        yield (
            name,
            Recovery(
                settings["disk_size"] * 1024,
                ("daily by Cloud SQL",) if backup["enabled"] else (),
                backup["transaction_log_retention_days"] if logged else 0,
                settings["availability_type"] == "REGIONAL",
            ),
        )
    if r.loaded.settings.target == "kubernetes" and not r.own:
        for name, wanted in r.loaded.stack.resources.items():
            if wanted.managed:
                yield name, Recovery((wanted.storage or 0) / 2**20 or None)


def _in_cluster(r: Rendered) -> Iterator[tuple[str, Recovery]]:
    key = "lapwing.dev/backs-up"
    saved: dict[str, Body] = {
        name: o["spec"]
        for o in r.each("CronJob")
        for name in o["metadata"].get("annotations", {}).get(key, "").split()
    }
    for o in r.each("StatefulSet"):
        name = o["metadata"]["labels"]["app.kubernetes.io/name"]
        [claim] = o["spec"]["volumeClaimTemplates"]
        size = claim["spec"]["resources"]["requests"]["storage"]
        schedule = (saved[name]["schedule"],) if name in saved else ()
        yield name, Recovery(int(size[:-2]) * UNITS[size[-2:]], schedule, verb=name in saved)


def _on_machine(r: Rendered) -> Iterator[tuple[str, Recovery]]:
    if not r.on_machine:
        return
    backup = r.loaded.settings.backup
    schedule = () if backup is None else (backup.every,)
    volumes = (name for s in r.loaded.stack.services.values() for name in s.volumes)
    for name in (*r.loaded.stack.resources, *volumes):
        yield name, Recovery(None, schedule, verb=backup is not None)
