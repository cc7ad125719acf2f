"""The smoke tests of candidates: before the switch, through Envoy's preview of the new release.

A test is a request, a command in the release's environment, or, for a page without tests, the page
with what it references. `checks` has what each of them expects.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import msgspec

from lapwing.agent import checks
from lapwing.agent.context import Context
from lapwing.agent.launch import Launcher
from lapwing.agent.state import Generation, RolloutRecord
from lapwing.errors import SmokeError
from lapwing.plan.model import Document, Smoke, preview_of

PAGE_HINT = (
    "Build the site for the path in `route`, or replace this test by `rollout: {smoke: [...]}`."
)


class SmokeTests:
    """Tests the candidates of one environment. `note` adds a line to the events of a rollout."""

    def __init__(
        self, context: Context, launcher: Launcher, note: Callable[[RolloutRecord, str], None]
    ) -> None:
        self._context = context
        self._launcher = launcher
        self._note = note

    async def run(self, record: RolloutRecord, candidates: Sequence[Generation]) -> None:
        """Run the tests of a rollout, one after the other. Raises SmokeError at the first failure.

        A rollback tests no release that was tested before.
        """
        for generation in candidates:
            if generation.role != "candidate" and not record.document.deployment.is_forward:
                continue
            service = generation.service
            spec = record.document.services[service]
            if spec.is_page and spec.route is not None and not spec.rollout.smoke:
                self._note(record, f"smoke test of {service}: GET {spec.route} and its references")
                try:
                    await checks.run_page_test(spec.route, self.preview(record.document))
                except SmokeError as error:
                    message = f"{service}: {error.message}"
                    raise SmokeError(message, detail=error.detail, hint=PAGE_HINT) from error
            for number, test in enumerate(spec.rollout.smoke, start=1):
                self._note(record, f"smoke test of {service}: {test.run or f'GET {test.get}'}")
                try:
                    await self._run_one(record, generation, test, number)
                except SmokeError as error:
                    message = f"{service}: {error.message}"
                    raise SmokeError(message, detail=error.detail) from error

    async def _run_one(
        self, record: RolloutRecord, generation: Generation, test: Smoke, number: int
    ) -> None:
        preview = self.preview(record.document)
        if test.run is None:
            await checks.run_smoke_request(test, preview)
            return
        owner = self._launcher.owner(generation.service, f"{generation.label}.smoke")
        spec = msgspec.structs.replace(generation.spec, command=test.run)
        # The preview address is on the machine's loopback.
        launch = await self._launcher.launch(spec, owner, record.document, host_network=True)
        if launch.container is not None:
            trusted = {str(preview.authority): preview.authority}
            inside = dataclasses.replace(launch.container, files=trusted)
            launch = dataclasses.replace(launch, container=inside)
        environ = {
            **launch.environ,
            "LAPWING_PREVIEW_URL": preview.url,
            "SSL_CERT_FILE": str(preview.authority),
            "REQUESTS_CA_BUNDLE": str(preview.authority),
        }
        folder = self._launcher.log_folder(generation.service)
        log = folder / f"{generation.label}.smoke{number}.log"
        launch = dataclasses.replace(launch, environ=environ)
        await checks.run_smoke_command(test, self._context.runtimes.of(spec), launch, log)

    def preview(self, document: Document) -> checks.Preview:
        """Return how to reach the candidates of a rollout of a document."""
        settings = self._context.settings
        return checks.Preview(
            address=settings.own_address(),
            port=settings.port,
            host=preview_of(document.domains[0]),
            authority=settings.certificates / "ca.pem",
        )
