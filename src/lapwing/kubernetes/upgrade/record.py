"""The record of the upgrade of one service, and the error if another command runs it."""

from __future__ import annotations

from lapwing.errors import LapwingError
from lapwing.kubernetes.applyset import Scope
from lapwing.kubernetes.client import ApiClient
from lapwing.kubernetes.objects import Reference
from lapwing.kubernetes.record import Records
from lapwing.kubernetes.upgrade.driver import Record

NAME = "lapwing-upgrade"
UpgradeRecords = Records[Record]


class UpgradeLockedError(LapwingError):
    """Another command runs this upgrade."""

    code = "upgrade-led"


def reference(scope: Scope, service: str) -> Reference:
    """Return the reference of the record of an upgrade."""
    return Reference("v1", "ConfigMap", scope.namespace, f"{NAME}-{service}")


def list_upgrades(api: ApiClient, scope: Scope) -> list[str]:
    """List the services whose upgrade is in progress and has changed something."""
    found = api.list("v1", "ConfigMap", scope.namespace, scope.selector)
    names = [str(c["metadata"]["name"]) for c in found if c["data"].get("record")]
    return [n.removeprefix(f"{NAME}-") for n in names if n.startswith(f"{NAME}-")]


def records(
    api: ApiClient, scope: Scope, service: str, holder: str, lease: float
) -> UpgradeRecords:
    """Prepare the record of a service; `holder` names this command to others."""

    def locked(other: str) -> UpgradeLockedError:
        where, option = f" ({other})" if other else "", f" -e {scope.environment}"
        return UpgradeLockedError(
            f"Another `lapwing` command is running this upgrade{where}.",
            hint=f"`lapwing status{option}` shows its progress. If that command has ended, run "
            f"`lapwing deploy{option}` again after {lease:.0f} s to continue the upgrade.",
        )

    name = reference(scope, service).name
    return Records(api, scope, name, Record, holder=holder, lease=lease, locked=locked)
