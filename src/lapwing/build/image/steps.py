"""The step of a Dockerfile that failed, from the output of the engine that built it.

Docker and Podman execute one step after the other, so the last one that began has failed. BuildKit
executes steps of several stages in parallel, and begins each line of output with the number of its
step; if it fails outside of the steps, for instance while it exports the image, no step is named.
The error contains only the output of the failed step, because an earlier one may also print the
word "error": `apt-get` installs packages with that name.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from lapwing.build.command import BuildLog, excerpt
from lapwing.errors import BuildError

_STEP = re.compile(
    r"(?:(?:\[\d+/\d+\] )?(?:Step|STEP) |(#\d+) \[(?:[^\]]* )?)(\d+/\d+)(?: ?: |\] )(.*)"
)
"""The line with which Docker, Podman (behind the number of the stage) or BuildKit begins a step."""
_END = re.compile(r"(#\d+) ERROR\b.*|Error: (?:error )?building at STEP .*")
"""The line with which BuildKit or Podman ends the failed step."""


class BuildSteps:
    """The steps that an engine began."""

    def __init__(self) -> None:
        self._begun: list[re.Match[str]] = []

    def read(self, line: str) -> None:
        """Read a line of the engine's output."""
        if found := _STEP.fullmatch(line):
            self._begun.append(found)

    @contextlib.contextmanager
    def named(self, log: BuildLog) -> Iterator[None]:
        """Put the step that failed, and its output, into the error of a build."""
        try:
            yield
        except BuildError as error:
            lines = list(log.lines)
            ends = [found for line in lines if (found := _END.fullmatch(line))]
            failed = {end[1] for end in ends if end[1]}
            steps = [step for step in self._begun if step[1] in failed or not failed]
            if failed and not steps:
                output = [line for line in lines if line.partition(" ")[0] in failed]
                error.detail = excerpt(output) or None
            elif steps:
                line, (mark, number, text) = steps[-1][0], steps[-1].groups()
                error.message = f"{error.message.rstrip('.')} at step {number}: {text.strip()}"
                error.args = (error.message,)
                last = [end[0] for end in ends]
                begin = len(lines) - lines[::-1].index(line) if line in lines else 0
                output = [each for each in lines[begin:] if each not in last]
                output = [each for each in output if not mark or each.startswith(f"{mark} ")]
                error.detail = "\n".join(filter(None, [excerpt(output), *last])) or None
            raise
