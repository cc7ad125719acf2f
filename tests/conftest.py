"""What all tests share: tests of one group run on one worker, and figures that a test measured are
printed at the end, by any worker.

Groups (`pytestmark = pytest.mark.xdist_group("name")`) share what is costly to set up. pytest-xdist
3.8 tells them apart by a name that it adds to the id of a test; pytest 9.2 keeps ids elsewhere, so
groups were silently ignored. The scheduler here reads the group from the module instead.
"""

from __future__ import annotations

import functools
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.json_output import validate_all

# A shell's background job ignores Ctrl-C, `nohup` ignores SIGHUP, and their children do, too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# A CI job sets `CI` and variables about its runner and tokens, and a user may set NO_COLOR. They
# change what commands print or do, so a test that needs one of them sets it.
for name in list(os.environ):
    if name in ("CI", "NO_COLOR", "FORCE_COLOR") or name.startswith(
        ("GITHUB_", "GITEA_", "ACTIONS_", "RUNNER_")
    ):
        del os.environ[name]

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
"""How long an example takes is a matter of the machine, and says nothing about the code."""

FIGURES = "figures"
"""The name under which a test records a line of figures (`record_property`)."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was measured; measured, not judged: it is a matter of the machine."""
    reports = terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
    for report in reports:
        for name, line in getattr(report, "user_properties", ()):
            if name == FIGURES and report.when == "call":
                terminalreporter.write_line(f"{report.nodeid.split('::')[-1]}: {line}")


@pytest.fixture(autouse=True, scope="session")
def documented_json() -> Iterator[None]:
    """Every JSON document that a command prints in a test is one that docs/reference describes."""
    with pytest.MonkeyPatch.context() as patch:
        validate_all(patch)
        yield


@functools.cache
def group_of(module: Path) -> str | None:
    """The group that all tests of a module belong to; None if there is none."""
    found = re.search(
        r'^pytestmark = .*xdist_group\("([\w-]+)"\)', module.read_text(), re.MULTILINE
    )
    return found.group(1) if found else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `--dist loadgroup`: each group is one piece of work, every other test is one too."""
    if config.getvalue("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(config.rootpath / nodeid.partition("::")[0]) or nodeid

    return ByGroup(config, log)
