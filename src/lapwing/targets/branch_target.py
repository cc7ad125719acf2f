"""The environment of a branch on this machine, which can be removed with its data.

The removal waits for deployments of the same environment, and these wait for it.
"""

from __future__ import annotations

import msgspec

from lapwing.targets import branch_environments, guards, planned
from lapwing.targets.base import (
    DeployRequest,
    DeployResult,
    DownRequest,
    RollbackRequest,
    Rollout,
)
from lapwing.targets.machine import MachineTarget


class BranchTarget(MachineTarget):
    """The environment of a branch on this machine."""

    def deploy(self, request: DeployRequest) -> DeployResult:
        """Build, commit, and wait for the agent, unless the environment is being removed."""
        if request.dry_run:
            return super().deploy(request)
        with branch_environments.lock(self.settings, self.ref, removal=False):
            return super().deploy(request)

    def rollback(self, request: RollbackRequest) -> DeployResult:
        """Commit an earlier deployment, and wait, unless the environment is being removed."""
        with branch_environments.lock(self.settings, self.ref, removal=False):
            return super().rollback(request)

    def down(self, request: DownRequest) -> DeployResult:
        """Stop the environment; with `volumes`, remove it with its data. Idempotent."""
        if request.cluster or not request.volumes:
            return super().down(request)
        guards.check_restore(self.settings, self.ref)
        with branch_environments.lock(self.settings, self.ref, removal=True):
            return self._remove()

    def _remove(self) -> DeployResult:
        result = self.earlier_down()
        before = self.repository.latest_valid(self.ref.stack, self.ref.environment)
        if result is None and before and (before.services or before.resources):
            plan = planned.down(self.repository, self.ref, self._actor)
            result = self.apply("down", plan)
        if result is not None:
            result = self.until_stopped(result)
            if result.outcome != "succeeded":
                return result
        branch_environments.remove(self.settings, self.ref, self._actor)
        volumes = Rollout(removed=["Volumes"])
        if result is not None:
            return msgspec.structs.replace(result, rollout=volumes)
        return DeployResult(
            stack=self.ref.stack,
            environment=self.ref.environment,
            target=self.name,
            kind="down",
            outcome="succeeded",
            rollout=volumes,
        )
