"""What all tests share: figures that a test measured are printed at the end, by any worker."""

from __future__ import annotations

import pytest

FIGURES = "figures"
"""The name under which a test records a line of figures (`record_property`)."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was measured; measured, not judged: it is a matter of the machine."""
    reports = terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
    for report in reports:
        for name, line in getattr(report, "user_properties", ()):
            if name == FIGURES and report.when == "call":
                terminalreporter.write_line(f"{report.nodeid.split('::')[-1]}: {line}")
