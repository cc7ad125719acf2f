"""The chart of a release as an OCI artifact: `helm pull oci://<registry>/charts/<chart>`.

Charts have a folder of their own, because a service may have the name of the stack. Before the
version is tagged in git, it is checked that the chart can be pushed and that the registry has no
other chart with this version.
"""

from __future__ import annotations

from dataclasses import dataclass

from lapwing.errors import ReleaseError
from lapwing.registry.chart import PackagedChart, chart_artifact, push_chart
from lapwing.registry.client import RegistryClient
from lapwing.registry.push import Progress
from lapwing.release.run import Missing, Present, Step, StepState
from lapwing.stack.image import Reference

FOLDER = "charts"


@dataclass(slots=True)
class CheckChart(Step):
    """Checks, before the version is tagged, that its chart can be pushed."""

    images: RegistryClient
    chart: PackagedChart
    target: Reference

    async def check(self) -> StepState:
        """Compare the chart with the one in the registry."""
        return await chart_state(self.images, self.chart, self.target)

    async def run(self) -> str:
        """Begin an upload and cancel it."""
        await self.images.check_push(self.target)
        return ""


@dataclass(slots=True)
class PushChart(Step):
    """Pushes the chart, tagged with its version."""

    images: RegistryClient
    chart: PackagedChart
    target: Reference
    progress: Progress

    async def check(self) -> StepState:
        """Compare the chart with the one in the registry."""
        return await chart_state(self.images, self.chart, self.target)

    async def run(self) -> str:
        """Push the chart."""
        repository = self.images.repository(self.target, write=True)
        await push_chart(self.chart, repository, self.progress)
        return f"oci://{self.target}"


async def chart_state(images: RegistryClient, chart: PackagedChart, target: Reference) -> StepState:
    """Return whether the registry has the chart. Raises ReleaseError if it has another one."""
    found = await images.digest(target)
    if found is None:
        return Missing(str(target))
    if found != chart_artifact(chart)[0].digest:
        raise ReleaseError(
            f"{target} already exists, and is another chart.",
            hint="A version is released once. If that chart is a mistake, delete it in the "
            "registry: `lapwing image delete`.",
        )
    return Present(str(target))
