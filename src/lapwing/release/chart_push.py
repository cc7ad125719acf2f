"""The chart of a release as an OCI artifact: `helm pull oci://<registry>/charts/<chart>`.

Charts have a folder of their own, because a service may have the name of the stack. Before the
version is tagged in git, it is checked that the chart can be pushed and that the registry has no
other chart with this version. The SBOM of the release is pushed first, as a referrer of the chart,
so that a chart with its tag is complete.
"""

from __future__ import annotations

from dataclasses import dataclass

from lapwing.errors import ReleaseError
from lapwing.registry.chart import PackagedChart, chart_artifact, push_chart
from lapwing.registry.client import RegistryClient
from lapwing.registry.push import Progress
from lapwing.registry.referrers import push_referrer
from lapwing.release.run import Missing, Present, Step, StepState
from lapwing.release.steps import ReleaseState
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
    """Pushes the chart, tagged with its version, and the file of the release that is its SBOM."""

    images: RegistryClient
    chart: PackagedChart
    target: Reference
    state: ReleaseState
    sbom: str
    progress: Progress

    async def check(self) -> StepState:
        """Compare the chart with the one in the registry."""
        return await chart_state(self.images, self.chart, self.target)

    async def run(self) -> str:
        """Push the SBOM, then the chart."""
        repository = self.images.repository(self.target, write=True)
        manifest, _ = chart_artifact(self.chart)
        sbom = self.state.files[self.sbom]
        await push_referrer(repository, manifest, sbom.media_type, sbom.content, {}, self.progress)
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
