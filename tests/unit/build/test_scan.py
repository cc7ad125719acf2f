"""The verdict on findings, whichever scanner made them."""

from __future__ import annotations

import dataclasses
import datetime
from typing import Any

import pytest

from lapwing.build.scan import Finding, find_scanner, judge, line, read_grype, read_trivy
from lapwing.errors import ScanError
from lapwing.stack.scanning import Accepted

MINOR = Finding("CVE-1", "flask", "1.0", "medium", None)
HIGH = Finding("CVE-2", "lodash", "4.0", "high", "4.1")
WORST = Finding("CVE-3", "jinja2", "2.0", "critical", "2.1")


@pytest.mark.parametrize(
    ("fail_on", "stopping"),
    [("critical", [WORST]), ("high", [WORST, HIGH]), ("low", [WORST, HIGH, MINOR])],
)
def test_findings_stop_from_a_severity_on(fail_on: str, stopping: list[Finding]) -> None:
    found = judge([MINOR, WORST, HIGH, WORST], fail_on)  # type: ignore[arg-type]
    assert [f for f, _ in found.stopping] == stopping


def accepted(id: str, until: str, package: str | None = None) -> Accepted:
    return Accepted.model_validate(
        {"id": id, "until": until, "package": package, "reason": "no templates of users"}
    )


TODAY = datetime.date(2026, 11, 25)


@pytest.mark.parametrize(
    ("entry", "stops"),
    [
        (accepted("CVE-3", "2026-11-25"), False),
        (accepted("cve-3", "2027-01-01"), False),
        (accepted("GHSA-x", "2027-01-01"), False),
        (accepted("CVE-3", "2027-01-01", "jinja2"), False),
        (accepted("CVE-3", "2026-11-24"), True),
        (accepted("CVE-3", "2027-01-01", "jinja"), True),
        (accepted("CVE-33", "2027-01-01"), True),
    ],
)
def test_a_finding_is_accepted_until_its_last_day(entry: Accepted, stops: bool) -> None:
    """By any of its names, in the package that is named, and in no other."""
    worst = dataclasses.replace(WORST, aliases=("GHSA-x",))
    found = judge([worst, HIGH], "critical", [entry], TODAY)
    assert [f for f, _ in found.stopping] == ([worst] if stops else [])
    assert [f for f, _ in found.accepted] == ([] if stops else [worst])


def test_an_acceptance_that_is_over_is_told_with_its_reason() -> None:
    found = judge([WORST], "critical", [accepted("CVE-3", "2026-11-24")], TODAY)
    (told,) = [line(*each) for each in found.stopping]
    assert told == (
        "critical jinja2 2.0: CVE-3, fixed in 2.1; was accepted until 2026-11-24: "
        "no templates of users"
    )
    assert found.unused == []


def test_of_two_acceptances_the_later_day_counts() -> None:
    both = [accepted("CVE-3", "2027-01-01", "jinja2"), accepted("CVE-3", "2026-01-01")]
    assert judge([WORST], "low", both, TODAY).stopping == []
    assert judge([WORST], "low", both[::-1], TODAY).stopping == []


def test_what_is_accepted_and_not_there_is_told() -> None:
    """One that would not stop anything is there: it is no entry to remove."""
    entries = [accepted("CVE-9", "2027-01-01"), accepted("CVE-1", "2027-01-01")]
    assert judge([MINOR, WORST], "critical", entries, TODAY).unused == entries[:1]


def test_trivys_report_is_read() -> None:
    """A lock file without a finding has no list at all."""
    vulnerability = {
        "VulnerabilityID": "CVE-3",
        "PkgName": "jinja2",
        "InstalledVersion": "2.0",
        "FixedVersion": "2.1",
        "VendorIDs": ["GHSA-x"],
        "Severity": "CRITICAL",
    }
    results = [{"Target": "a"}, {"Target": "b", "Vulnerabilities": [vulnerability]}]
    report = {"SchemaVersion": 2, "Results": results}
    assert read_trivy(report) == [dataclasses.replace(WORST, aliases=("GHSA-x",))]
    assert read_trivy({"SchemaVersion": 2}) == []


def test_grypes_report_is_read() -> None:
    match = {
        "vulnerability": {"id": "CVE-2", "severity": "High", "fix": {"versions": ["4.1"]}},
        "artifact": {"name": "lodash", "version": "4.0"},
        "relatedVulnerabilities": [{"id": "CVE-x"}],
    }
    assert read_grype({"matches": [match]}) == [dataclasses.replace(HIGH, aliases=("CVE-x",))]


TRIVY_IMAGE = {
    "SchemaVersion": 2,
    "ArtifactName": "/tmp/lapwing-scan-1/image",
    "ArtifactType": "container_image",
    "Metadata": {"OS": {"Family": "debian", "Name": "12.5"}, "DiffIDs": ["sha256:0"]},
    "Results": [
        {
            "Target": "/tmp/lapwing-scan-1/image (debian 12.5)",
            "Class": "os-pkgs",
            "Type": "debian",
            "Vulnerabilities": [
                {
                    "VulnerabilityID": "CVE-2024-5535",
                    "PkgID": "libssl3@3.0.13-1~deb12u1",
                    "PkgName": "libssl3",
                    "PkgIdentifier": {"PURL": "pkg:deb/debian/libssl3@3.0.13-1~deb12u1"},
                    "InstalledVersion": "3.0.13-1~deb12u1",
                    "FixedVersion": "3.0.15-1~deb12u1",
                    "Status": "fixed",
                    "Layer": {"Digest": "sha256:1", "DiffID": "sha256:0"},
                    "SeveritySource": "nvd",
                    "Severity": "CRITICAL",
                },
                {
                    "VulnerabilityID": "CVE-2005-2541",
                    "PkgName": "tar",
                    "InstalledVersion": "1.34+dfsg-1.2+deb12u1",
                    "Status": "affected",
                    "Severity": "LOW",
                },
            ],
        },
        {"Target": "Python", "Class": "lang-pkgs", "Type": "python-pkg"},
    ],
}
GRYPE_IMAGE = {
    "matches": [
        {
            "vulnerability": {
                "id": "CVE-2005-2541",
                "namespace": "debian:distro:debian:12",
                "severity": "Negligible",
                "fix": {"versions": [], "state": "wont-fix"},
                "advisories": [],
            },
            "relatedVulnerabilities": [{"id": "CVE-2005-2541", "severity": "High"}],
            "matchDetails": [{"type": "exact-direct-match", "matcher": "dpkg-matcher"}],
            "artifact": {
                "name": "tar",
                "version": "1.34+dfsg-1.2+deb12u1",
                "type": "deb",
                "locations": [{"path": "/var/lib/dpkg/status", "layerID": "sha256:0"}],
            },
        }
    ],
    "source": {"type": "image", "target": {"layers": []}},
    "distro": {"name": "debian", "version": "12"},
}


def test_reports_on_images_are_read() -> None:
    """Packages of the system are found beside those of languages; not all have a fixed version."""
    tar = ("tar", "1.34+dfsg-1.2+deb12u1", "low", None)
    ssl = ("libssl3", "3.0.13-1~deb12u1", "critical", "3.0.15-1~deb12u1")
    found = {"trivy": read_trivy(TRIVY_IMAGE), "grype": read_grype(GRYPE_IMAGE)}
    read = {n: [(f.package, f.version, f.severity, f.fixed) for f in fs] for n, fs in found.items()}
    assert read == {"trivy": [ssl, tar], "grype": [tar]}


def test_what_is_no_report_is_not_taken_for_a_clean_one() -> None:
    grype: list[dict[str, Any]] = [
        {}, {"error": "no database"}, {"matches": None}, {"matches": {}}, {"matches": ""},
        {"matches": [{}]}, {"matches": ["CVE-1"]},
    ]  # fmt: skip
    for report in grype:
        with pytest.raises(ScanError, match="The report of grype has an unknown format"):
            read_grype(report)
    version = {"SchemaVersion": 2}
    trivy: list[dict[str, Any]] = [
        {}, {"Results": []}, {"SchemaVersion": "two"}, {**version, "Results": {}},
        {**version, "Results": ["a"]}, {**version, "Results": [{"Vulnerabilities": {}}]},
        {**version, "Results": [{"Vulnerabilities": [{"Severity": "LOW"}]}]},
    ]  # fmt: skip
    for report in trivy:
        with pytest.raises(ScanError, match="The report of trivy has an unknown format"):
            read_trivy(report)


def test_without_a_scanner_there_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(ScanError) as caught:
        find_scanner({"PATH": "/nonexistent"})
    assert "--scan off" in (caught.value.hint or "")
