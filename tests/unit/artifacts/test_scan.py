"""The verdict on findings, whichever scanner made them."""

from __future__ import annotations

import pytest

from lapwing.artifacts.scan import Finding, find_scanner, read_grype, read_trivy, too_severe
from lapwing.errors import ScanError

MINOR = Finding("CVE-1", "flask", "1.0", "medium", None)
HIGH = Finding("CVE-2", "lodash", "4.0", "high", "4.1")
WORST = Finding("CVE-3", "jinja2", "2.0", "critical", "2.1")


@pytest.mark.parametrize(
    ("fail_on", "stopping"),
    [("critical", [WORST]), ("high", [WORST, HIGH]), ("low", [WORST, HIGH, MINOR])],
)
def test_findings_stop_from_a_severity_on(fail_on: str, stopping: list[Finding]) -> None:
    assert too_severe([MINOR, WORST, HIGH, WORST], fail_on) == stopping  # type: ignore[arg-type]


def test_trivys_report_is_read() -> None:
    """A lock file without a finding has no list at all."""
    vulnerability = {
        "VulnerabilityID": "CVE-3",
        "PkgName": "jinja2",
        "InstalledVersion": "2.0",
        "FixedVersion": "2.1",
        "Severity": "CRITICAL",
    }
    report = {"Results": [{"Target": "a"}, {"Target": "b", "Vulnerabilities": [vulnerability]}]}
    assert read_trivy(report) == [WORST]
    assert read_trivy({}) == []


def test_grypes_report_is_read() -> None:
    match = {
        "vulnerability": {"id": "CVE-2", "severity": "High", "fix": {"versions": ["4.1"]}},
        "artifact": {"name": "lodash", "version": "4.0"},
    }
    assert read_grype({"matches": [match]}) == [HIGH]


def test_what_is_no_report_is_not_taken_for_a_clean_one() -> None:
    with pytest.raises(ScanError):
        read_grype({"error": "no database"})
    with pytest.raises(ScanError):
        read_trivy({"Results": [{"Vulnerabilities": [{"Severity": "LOW"}]}]})


def test_without_a_scanner_there_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(ScanError) as caught:
        find_scanner({"PATH": "/nonexistent"})
    assert "--scan off" in (caught.value.hint or "")
