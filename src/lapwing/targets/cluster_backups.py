"""The backups of an environment on a cluster, with the manifests of those on a machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import msgspec

from lapwing.agent.backup_manifest import Manifest
from lapwing.errors import BackupError, DeploymentFailed, LapwingError
from lapwing.kubernetes.backups import BackupJobs
from lapwing.observed.checks import CheckResult
from lapwing.targets.cluster import ClusterEnvironment

NOT_REMOVED = "Old backups could not be removed"
"""The start of a warning in the log of a backup (render/kubernetes/scripts/store.sh)."""


class ClusterBackups:
    """Makes, lists and verifies backups by Jobs in the cluster. Raises LapwingError."""

    def __init__(self, cluster: ClusterEnvironment) -> None:
        self.cluster = cluster
        self.place = ""
        """The address of the last created backup, for messages."""

    def create(self) -> Manifest:
        """Make a backup, after a question if the cluster is not local. Print its warnings."""
        with self._jobs("backup") as jobs:
            self.place, lines = jobs.place, jobs.back_up().splitlines()
        for line in lines:
            if line.startswith(NOT_REMOVED):
                self.cluster.reporter.say(line)
        if not (found := read_manifests(lines)):
            raise BackupError(
                "The backup has ended, but its manifest cannot be read.",
                hint=f"Run `lapwing backup list -e {self.cluster.ref.environment}`.",
            )
        return found[-1]

    def list(self) -> list[Manifest]:
        """Return the complete backups, newest first. Unreadable ones are skipped."""
        with self._jobs() as jobs:
            found = read_manifests(jobs.list().splitlines())
            return sorted(found, key=lambda made: made.id, reverse=True)

    def find(self, name: str | None) -> Manifest:
        """Return a backup, by default the newest. Raises BackupError."""
        found = self.list()
        for each in found:
            if name in (None, each.id):
                return each
        ref = self.cluster.ref
        raise BackupError(
            f"There is no backup{f' {name}' if name else ''} of {ref}.",
            hint=f"Run `lapwing backup list -e {ref.environment}`."
            if found
            else f"Run `lapwing backup -e {ref.environment}`.",
        )

    def verify(self, made: Manifest) -> Iterator[CheckResult]:
        """Restore each part of a backup into a server in a new pod, and check it there."""
        for part in made.parts:
            check = f"{part.name} ({part.kind})"
            try:
                with self._jobs() as jobs:
                    seen = jobs.rehearse(made.id, part.name, part.sha256).strip()
            except LapwingError as error:
                reason = (error.detail or "").strip().splitlines()[-1:] or [str(error)]
                yield CheckResult(check, False, reason[0])
            else:
                size = f"{part.bytes / 2**20:.1f} MiB"
                yield CheckResult(check, True, ", ".join([size, *seen.splitlines()[-1:]]))

    @contextmanager
    def _jobs(self, verb: str = "") -> Iterator[BackupJobs]:
        """Connect to the cluster; report a failed Job as BackupError."""
        with self.cluster.connect() as api:
            if verb:
                self.cluster.confirm(api, verb)
            try:
                yield BackupJobs(api, self.cluster.scope, self.cluster.reporter.progress)
            except DeploymentFailed as error:
                raise BackupError(error.message, hint=error.hint, detail=error.detail) from error


def read_manifests(lines: Sequence[str]) -> list[Manifest]:
    """Return the manifests in a log, which may have other lines."""
    found = []
    for line in lines:
        with suppress(msgspec.MsgspecError):
            found.append(msgspec.json.decode(line, type=Manifest))
    return found
