"""Choose the target of an environment by what the stack file says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lapwing.errors import UsageError, check_name
from lapwing.settings import Settings
from lapwing.stack import branch_names
from lapwing.stack.load import LOCAL, StackFile
from lapwing.targets.base import ClusterOptions, EnvironmentRef, Reporter, Target

if TYPE_CHECKING:
    from lapwing.targets.cluster import ClusterEnvironment

DEFAULT_OPTIONS = ClusterOptions()


def select(
    file: StackFile,
    environment: str,
    settings: Settings,
    reporter: Reporter,
    options: ClusterOptions = DEFAULT_OPTIONS,
) -> Target:
    """Return the target of an environment; only its few settings are read, nothing is validated.

    Raises StackFileError if the file cannot be read, UnknownNameError if it has no such
    environment, UsageError for options of clusters on a machine.
    """
    given = file.environment(environment)
    cluster = cluster_of(file, environment, settings, reporter, options)
    if cluster is None:
        from lapwing.targets.machine import MachineTarget
        from lapwing.targets.pulled import PulledTarget

        check_environment(file, environment, settings)
        if branch_names.split(environment)[1] is None:
            branch_names.check_chosen(environment, given.get("branches"))
        if options.create or options.context is not None:
            option = "--create" if options.create else "--context"
            raise UsageError(f"{option} is for clusters; {environment} is on a machine.")
        if is_pulled_elsewhere(file, environment, settings):
            return PulledTarget(file, environment, settings, reporter)
        kind = MachineTarget
        if branch_names.split(environment)[1] is not None:
            from lapwing.targets.branch_target import BranchTarget

            kind = BranchTarget
        return kind(file, environment, settings, reporter)
    if is_direct(given) or environment == LOCAL:
        from lapwing.targets.kubernetes import KubernetesTarget

        return KubernetesTarget(file, cluster)
    from lapwing.targets.argocd import ArgoCDTarget

    return ArgoCDTarget(file, cluster)


def is_pulled_elsewhere(file: StackFile, environment: str, settings: Settings) -> bool:
    """Return whether another machine pulls an environment: not this one, or this server."""
    from lapwing.observed import pull

    given = file.environment(environment)
    is_pulled = bool(given.get("desired")) and given.get("target") != "kubernetes"
    if not is_pulled or settings.server or environment == LOCAL:
        return False
    return pull.source(settings, file.stack, environment) is None


def check_environment(file: StackFile, environment: str, settings: Settings) -> None:
    """Check that there is such an environment, or was one on this machine.

    What runs can still be read and stopped after its environment is removed from the file.

    Raises UnknownNameError.
    """
    if environment in file.environments or (given := file.environment(environment)).get("branches"):
        return
    from lapwing.desired.repository import DesiredRepository

    if DesiredRepository(settings.desired).newest(file.stack, environment) is None:
        if branch_names.template_of(environment) in file.environments:
            branch_names.check_chosen(environment, given.get("branches"))
        check_name("environment", environment, file.environments, file.path)


def cluster_of(
    file: StackFile,
    environment: str,
    settings: Settings,
    reporter: Reporter,
    options: ClusterOptions = DEFAULT_OPTIONS,
) -> ClusterEnvironment | None:
    """Return where an environment is on a cluster; None for one on a machine."""
    given = file.environment(environment)
    if given.get("target") != "kubernetes":
        return None
    from lapwing.targets.cluster import ClusterEnvironment

    ref = EnvironmentRef(file.stack, environment)
    return ClusterEnvironment(ref, str(given.get("domain") or ""), settings, options, reporter)


def is_direct(given: Mapping[str, Any]) -> bool:
    """Return whether Lapwing itself applies an environment on a cluster."""
    delivery = given.get("delivery")
    return delivery == "direct" if delivery else given.get("cloud") is None
