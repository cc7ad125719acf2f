"""The earlier name of `BackupCommands`, until its callers have moved to targets/."""

from __future__ import annotations

from lapwing.kubernetes.upgrade.backup import BackupCommands as Commands

__all__ = ["Commands"]
