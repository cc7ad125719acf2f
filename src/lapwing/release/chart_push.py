"""The chart of a release as an OCI artifact: `helm pull oci://<registry>/charts/<chart>`.

Charts have a separate folder, because a service may have the name of the stack. Before the
version is tagged in git, it is checked that the chart can be pushed and that the registry has no
other chart with this version. Its SBOM, which is that of the release, its provenance and its
signatures are pushed first, as referrers of the chart, so that a chart with its tag is complete.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lapwing.errors import ReleaseError
from lapwing.registry.attestations import (
    attach,
    make_attestations,
    provenance_predicate,
    source_uri,
)
from lapwing.registry.chart import PackagedChart, chart_artifact, push_chart
from lapwing.registry.client import RegistryClient
from lapwing.registry.push import Progress
from lapwing.registry.signature import Signer
from lapwing.release.run import Missing, Present, Step, StepState
from lapwing.release.steps import ReleaseState
from lapwing.stack.image import Reference

FOLDER = "charts"


@dataclass(slots=True)
class CheckChart(Step):
    """Checks, before the version is tagged, that its chart can be pushed and signed."""

    images: RegistryClient
    chart: PackagedChart
    target: Reference
    find_signer: Callable[[], Signer | None]

    async def check(self) -> StepState:
        """Compare the chart with the one in the registry, and find the signer if it is missing."""
        state = await chart_state(self.images, self.chart, self.target)
        if isinstance(state, Missing):
            self.find_signer()
        return state

    async def run(self) -> str:
        """Begin an upload and cancel it."""
        await self.images.check_push(self.target)
        return ""


@dataclass(slots=True)
class PushChart(CheckChart):
    """Pushes the chart, tagged with its version, after its attestations and signatures.

    `sbom` is the name of the file of the release that is its SBOM.
    """

    state: ReleaseState
    sbom: str
    progress: Progress

    async def run(self) -> str:
        """Push what refers to the chart, then the chart."""
        manifest, _ = chart_artifact(self.chart)
        bill, signer = self.state.files[self.sbom].content, self.find_signer()
        found = make_attestations(
            self.target.name,
            manifest.digest,
            bill,
            chart_provenance(self.chart, self.state),
            signed=signer is not None,
        )
        await attach(self.images, self.target, manifest, found, signer, self.progress)
        repository = self.images.repository(self.target, write=True)
        await push_chart(self.chart, repository, self.progress)
        return f"oci://{self.target}"


def chart_provenance(chart: PackagedChart, state: ReleaseState) -> dict[str, Any]:
    """Return the SLSA predicate of a chart: the repository and the commit of the release."""
    source = source_uri(state.checkout.url(state.remote))
    parameters = {"chart": chart.name, "version": chart.version, "source": source}
    commit = {"name": "source", "uri": source, "digest": {"gitCommit": state.head}}
    return provenance_predicate("chart-package", parameters, [commit])


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
