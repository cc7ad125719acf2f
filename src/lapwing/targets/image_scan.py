"""The vulnerability scan of images before they are pushed, and the verdict by the stack file.

With `scan` in the stack file, the images that `image build --push`, `up` and `deploy` push are
scanned; `ship` always scans, also the sources. Images for a local cluster are not scanned.
"""

from __future__ import annotations

import asyncio
import datetime
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from lapwing.build import scan
from lapwing.build.image import publish
from lapwing.build.image.builder import Image
from lapwing.build.scan import Finding, Scanner, Severity, Verdict
from lapwing.errors import ScanError
from lapwing.registry.client import RegistryClient
from lapwing.settings import Settings
from lapwing.stack.load import LoadedStack

Report = Callable[[str], None]


def check_images(
    loaded: LoadedStack,
    images: Sequence[Image],
    settings: Settings,
    report: Report,
    *,
    plain_http: bool = False,
) -> None:
    """Scan images if the stack file has `scan`. Raises ScanError, then nothing was pushed."""
    if not images or "scan" not in loaded.stack.model_fields_set:
        return
    scanner = scan.find_scanner(settings.environ)
    findings = scan_images(scanner, images, settings, report, plain_http=plain_http)
    check_findings(loaded, findings, scanner.name, loaded.stack.scan.fail_on, report)


def scan_images(
    scanner: Scanner,
    images: Iterable[Image],
    settings: Settings,
    report: Report,
    *,
    plain_http: bool = False,
) -> list[Finding]:
    """Return what a scanner finds in images, for each platform. Raises ScanError.

    Raises RegistryError if a layer of a base image cannot be downloaded.
    """
    found = []
    for image in images:
        for each in image.images:
            report(f"scanning the image of {image.service} ({each.platform}) with {scanner.name}")
            with tempfile.TemporaryDirectory(prefix="lapwing-scan-") as scratch:
                layout = Path(scratch) / "image"

                async def write() -> None:
                    async with RegistryClient(settings, plain_http=plain_http) as client:
                        await publish.write_layout(client, image, each, layout, settings)  # noqa: B023

                asyncio.run(write())
                found += scanner.scan_image(layout)
    return found


def check_findings(
    loaded: LoadedStack,
    findings: Iterable[Finding],
    scanner: str,
    fail_on: Severity,
    report: Report,
) -> Verdict:
    """Return the verdict by the stack file, and report accepted findings.

    Raises ScanError with the findings that are too severe.
    """
    today = datetime.datetime.now(datetime.UTC).date()
    verdict = scan.judge(findings, fail_on, loaded.stack.scan.accept, today)
    if verdict.stopping:
        raise ScanError(
            f"{scanner} found {len(verdict.stopping)} vulnerabilities of severity {fail_on} "
            "or above. Nothing was pushed.",
            hint="Upgrade the packages and their lock file, or the base image ("
            f"`lapwing image pin -e {loaded.environment}`). To accept one until a date, add it to "
            "`scan: {accept: [...]}` in the stack file.",
            detail="\n".join(scan.line(*each) for each in verdict.stopping),
        )
    for finding, entry in verdict.accepted:
        report(f"accepted until {entry.until}: {scan.line(finding)} ({entry.reason})")
    return verdict
