"""A run of `lapwing ship`: its options, its result, and the steps of all environments.

Tests, scans and the report of the commit are the same for a machine and a cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from lapwing.build import scan
from lapwing.build.builder import BuildResult
from lapwing.build.image.builder import Image
from lapwing.build.scan import Finding, Severity
from lapwing.build.testing import run_tests
from lapwing.desired.remote import Remote
from lapwing.plan.diff import Change
from lapwing.settings import Settings
from lapwing.stack.load import LoadedStack
from lapwing.stack.scanning import Accepted
from lapwing.targets import image_scan, sources

Outcome = Literal["done", "unchanged", "skipped", "failed"]


@dataclass(frozen=True, slots=True)
class ShipOptions:
    """What to ship and how."""

    services: tuple[str, ...] = ()
    remote: str | None = None
    """The URL of the desired-state repository; None for this machine's."""
    scan: bool = True
    fail_on: Severity | None = None
    """The severity from which a finding fails; None for the stack file's."""
    actor: str = "ci"
    commit: bool = True
    by_server: bool = False
    """Whether the server of the environment builds again and makes the commit."""
    registry: str | None = None
    """The registry and folder to push releases to."""
    images: Mapping[str, str] = field(default_factory=dict)
    """On a cluster, the images of services that are not the stack file's."""


@dataclass(slots=True)
class ShipResult:
    """What was done: each step with its outcome, and the commit, if one was needed."""

    built: dict[str, BuildResult] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)
    """On a cluster, the images that were built, by service."""
    steps: list[tuple[str, Outcome, str]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    accepted: list[tuple[Finding, Accepted]] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    commit: str | None = None


@dataclass(slots=True)
class Shipment:
    """One run of ship."""

    loaded: LoadedStack
    settings: Settings
    options: ShipOptions
    report: Callable[[str], None]
    result: ShipResult = field(default_factory=ShipResult)

    def add_step(self, name: str, outcome: Outcome, text: str) -> None:
        """Add a step to the result."""
        self.result.steps.append((name, outcome, text))

    def test(self, built: Mapping[str, BuildResult]) -> None:
        """Run the tests of the services that have one."""
        tested = []
        for name, result in built.items():
            build = self.loaded.stack.services[name].build
            assert build is not None
            if build.test is None:
                continue
            self.report(f"testing {name}")
            request = sources.request_of(self.loaded, name, self.settings)
            run_tests(request, result.release, build.test, self.settings)
            tested.append(name)
        if tested:
            self.add_step("test", "done", ", ".join(tested))
        else:
            self.add_step("test", "skipped", "no service has a `build: {test: ...}`")

    def scan(self, names: Iterable[str], made: Iterable[Image] = ()) -> None:
        """Scan the sources of services, and images, for known vulnerabilities. Raises ScanError."""
        if not self.options.scan:
            self.add_step("scan", "skipped", "`--scan off`")
            return
        loaded, result, rules = self.loaded, self.result, self.loaded.stack.scan
        scanner = scan.find_scanner(self.settings.environ)
        for name in scan.IGNORE_FILES:
            if (loaded.folder / name).exists():
                self.report(f"{name} is ignored; use `scan: {{accept: [...]}}` in the stack file")
        for name in names:
            self.report(f"scanning {name} with {scanner.name}")
            result.findings += scanner.scan(sources.source_folder(loaded, name))
        result.findings += image_scan.scan_images(scanner, made, self.settings, self.report)
        result.findings = list(dict.fromkeys(result.findings))
        fail_on = self.options.fail_on or rules.fail_on
        found = image_scan.check_findings(
            loaded, result.findings, scanner.name, fail_on, self.report
        )
        result.accepted = found.accepted
        for entry in found.unused if not self.options.services else ():
            self.report(
                f"{entry.id} is accepted until {entry.until}, but was not found: remove the entry"
            )
        text = f"{scanner.name}: {len(result.findings)} findings, none {fail_on} or above"
        if found.accepted:
            text += f" except {len(found.accepted)} accepted"
        self.add_step("scan", "done", text)

    def remote(self, url: str) -> Remote:
        """Return the desired-state repository at a URL."""
        desired = self.loaded.settings.desired
        sign = desired is not None and desired.require_signed
        return Remote(url, self.settings.remotes, self.settings.environ, sign=sign)

    def add_commit(self, commit: str | None) -> None:
        """Add the step of the commit; None if the desired state is unchanged."""
        self.result.commit = commit
        if commit:
            self.add_step("commit", "done", commit)
        else:
            self.add_step("commit", "unchanged", "the desired state is unchanged")
