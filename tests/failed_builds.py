"""A command of a build that fails."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from lapwing.build.command import BuildLog, run
from lapwing.errors import BuildError


def failed_build(folder: Path, script: str, seconds: float = 60) -> BuildError:
    """Run a shell script as a build does, for at most some seconds; return its error."""
    log = BuildLog(folder / "log")
    with pytest.raises(BuildError) as caught:
        run(
            ["/bin/sh", "-c", script],
            folder=folder,
            environ={"PATH": os.defpath},
            log=log,
            until=time.monotonic() + seconds,
            doing="It",
        )
    log.close()
    return caught.value
