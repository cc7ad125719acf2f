"""Scanning what is shipped for known vulnerabilities, by a scanner that is on the PATH.

A scanner is asked for all that it knows, as JSON, and the verdict is ours: so the rule is the same
whichever scanner there is, and a scanner that fails is never taken for one that found nothing.
Without a scanner the result is an error, unless the scan is switched off.

An image is scanned as an OCI layout in a folder before it is pushed, so that a registry never has
what fails.

Sources: Trivy's documentation of `trivy filesystem`, `trivy image --input` (a layout: its first
image is read, and the path must have no `@` and no `:`) and its JSON report, Grype's of `-o json`
and of its sources `dir:` and `oci-dir:`. Both
exit with 0 whatever they find when they are not told to do otherwise. Both read a file of findings
to leave out from the folder that they are run in; that is an empty one here, because what is
accepted is for the stack file to say. They are not told to be quiet: then they would not say why
they fail either.

An acceptance (`scan: {accept: [...]}`) takes a finding out until its last day. After that day the
finding counts again, and the error includes the reason.
"""

from __future__ import annotations

import datetime
import json
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from lapwing.errors import ScanError
from lapwing.stack.scanning import Accepted
from lapwing.system import process

Severity = Literal["unknown", "low", "medium", "high", "critical"]
ORDER: tuple[Severity, ...] = ("unknown", "low", "medium", "high", "critical")
IGNORE_FILES = (".trivyignore", ".trivyignore.yaml", ".grype.yaml", ".grype/config.yaml")
"""Where the scanners look for findings to leave out, in the folder that they are run in."""
LONGEST = 900.0
"""Seconds that a scan may take."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A known vulnerability in a release.

    `fixed` is a version without it, `aliases` are other names of the vulnerability.
    """

    id: str
    package: str
    version: str
    severity: Severity
    fixed: str | None
    aliases: tuple[str, ...] = ()


class Scanner(Protocol):
    """Looks for known vulnerabilities."""

    name: str

    def scan(self, folder: Path) -> list[Finding]:
        """What it finds in a source with its lock files. Raises ScanError if the scan fails."""
        ...

    def scan_image(self, layout: Path) -> list[Finding]:
        """What it finds in the image of an OCI layout. Raises ScanError if the scan fails."""
        ...


def find_scanner(environ: Mapping[str, str]) -> Scanner:
    """The scanner on the PATH. Raises ScanError if there is none."""
    for kind in (Trivy, Grype):
        program = shutil.which(kind.name, path=environ.get("PATH"))
        if program:
            return kind(program, environ)
    raise ScanError(
        "No vulnerability scanner (trivy, grype) is on the PATH.",
        hint="Install trivy or grype. `lapwing ship --scan off` ships without a scan; other "
        "commands scan images if the stack file has `scan`.",
    )


class Trivy:
    """Trivy, from Aqua Security."""

    name = "trivy"

    def __init__(self, program: str, environ: Mapping[str, str]) -> None:
        self._program = program
        self._environ = environ

    def scan(self, folder: Path) -> list[Finding]:
        """What it finds by the lock files in a folder."""
        return self._ask("filesystem", str(folder))

    def scan_image(self, layout: Path) -> list[Finding]:
        """What it finds by the packages in an image: those of the system and of languages."""
        return self._ask("image", "--input", str(layout))

    def _ask(self, kind: str, *what: str) -> list[Finding]:
        asked = (kind, "--quiet", "--format", "json", "--scanners", "vuln", *what)
        return read_trivy(_report(self._program, asked, self._environ))


class Grype:
    """Grype, from Anchore."""

    name = "grype"

    def __init__(self, program: str, environ: Mapping[str, str]) -> None:
        self._program = program
        self._environ = environ

    def scan(self, folder: Path) -> list[Finding]:
        """What it finds by the lock files in a folder."""
        return self._ask(f"dir:{folder}")

    def scan_image(self, layout: Path) -> list[Finding]:
        """What it finds by the packages in an image: those of the system and of languages."""
        return self._ask(f"oci-dir:{layout}")

    def _ask(self, what: str) -> list[Finding]:
        return read_grype(_report(self._program, ("-o", "json", what), self._environ))


def read_trivy(report: Mapping[str, Any]) -> list[Finding]:
    """Read the findings of a report of Trivy. Raises ScanError if it is invalid."""
    try:
        if not isinstance(report["SchemaVersion"], int):
            raise _not_understood("trivy")
        return [
            Finding(
                str(v["VulnerabilityID"]),
                str(v["PkgName"]),
                str(v.get("InstalledVersion", "")),
                _severity(v.get("Severity")),
                v.get("FixedVersion") or None,
                tuple(v.get("VendorIDs") or ()),
            )
            for result in _entries(report.get("Results", []))
            for v in _entries(result.get("Vulnerabilities", []))
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise _not_understood("trivy") from error


def read_grype(report: Mapping[str, Any]) -> list[Finding]:
    """Read the findings of a report of Grype. Raises ScanError if it is invalid."""
    try:
        return [
            Finding(
                str(m["vulnerability"]["id"]),
                str(m["artifact"]["name"]),
                str(m["artifact"].get("version", "")),
                _severity(m["vulnerability"].get("severity")),
                next(iter((m["vulnerability"].get("fix") or {}).get("versions") or []), None),
                tuple(r["id"] for r in m.get("relatedVulnerabilities") or ()),
            )
            for m in _entries(report["matches"])
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise _not_understood("grype") from error


def _entries(value: Any) -> list[Any]:
    """Return a list of a report. Raises TypeError: another value must not count as no findings."""
    if not isinstance(value, list):
        raise TypeError
    return value


def _severity(text: object) -> Severity:
    word = str(text or "").lower()
    word = "low" if word == "negligible" else word
    return next((known for known in ORDER if known == word), "unknown")


def _report(program: str, arguments: tuple[str, ...], environ: Mapping[str, str]) -> dict[str, Any]:
    name = Path(program).name
    try:
        with tempfile.TemporaryDirectory(prefix="lapwing-scan-") as empty:
            done = process.run([program, *arguments], environ, timeout=LONGEST, folder=Path(empty))
    except OSError as error:
        raise ScanError(f"{name} cannot be run, or timed out.", detail=str(error)) from error
    said = re.sub(r"\x1b\[[0-9;]*m", "", done.stderr)
    words = said.strip()[-2000:] or None
    if done.status != 0:
        raise ScanError(
            f"{name} failed (exit status {done.status}). Nothing was shipped.",
            hint=f"Check that {name} can download its vulnerability database.",
            detail=words,
        )
    try:
        found = json.loads(done.stdout)
    except ValueError as error:
        raise _not_understood(name) from error
    if not isinstance(found, dict):
        raise _not_understood(name)
    return found


def _not_understood(name: str) -> ScanError:
    return ScanError(f"The report of {name} has an unknown format.", hint=f"Upgrade {name}.")


@dataclass(slots=True)
class Verdict:
    """The result of a scan.

    `stopping` are the findings that stop `ship`, the most severe first, each with its expired
    acceptance if it has one. `unused` are acceptances of findings that were not found.
    """

    stopping: list[tuple[Finding, Accepted | None]] = field(default_factory=list)
    accepted: list[tuple[Finding, Accepted]] = field(default_factory=list)
    unused: list[Accepted] = field(default_factory=list)


def judge(
    findings: Iterable[Finding],
    fail_on: Severity,
    accept: Sequence[Accepted] = (),
    today: datetime.date = datetime.date.max,
) -> Verdict:
    """The verdict on findings; those of lower severity than `fail_on` may be shipped."""
    verdict = Verdict()
    found = sorted(set(findings), key=lambda f: (-ORDER.index(f.severity), f.package, f.id))
    used: set[int] = set()
    for finding in found:
        entries = [(i, e) for i, e in enumerate(accept) if _is_of(e, finding)]
        used.update(i for i, _ in entries)
        if ORDER.index(finding.severity) < ORDER.index(fail_on):
            continue
        last = max((e for _, e in entries), key=lambda e: e.until, default=None)
        if last is not None and last.until >= today:
            verdict.accepted.append((finding, last))
        else:
            verdict.stopping.append((finding, last))
    verdict.unused = [e for i, e in enumerate(accept) if i not in used]
    return verdict


def line(finding: Finding, over: Accepted | None = None) -> str:
    """A finding in a line, for people; with an acceptance that is over, that."""
    text = f"{finding.severity:8} {finding.package} {finding.version}: {finding.id}"
    if finding.fixed:
        text += f", fixed in {finding.fixed}"
    if over is not None:
        text += f"; was accepted until {over.until}: {over.reason}"
    return text


def _is_of(entry: Accepted, finding: Finding) -> bool:
    names = {n.upper() for n in (finding.id, *finding.aliases)}
    return entry.id.upper() in names and entry.package in (None, finding.package)
