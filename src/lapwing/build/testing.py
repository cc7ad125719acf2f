"""The tests of a service, run by its own command before anything of it is shipped.

They run in a copy of the source that was built, with the release's programs first on the PATH, so
that what is tested is what goes out. What they write is thrown away with the copy.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import tempfile
import time
from pathlib import Path

from lapwing.build.command import environment, open_log, run
from lapwing.build.context import BuildRequest
from lapwing.build.release import Release
from lapwing.build.source import copy, read_source
from lapwing.errors import BuildError, TestsFailed
from lapwing.settings import Settings
from lapwing.system.files import remove_tree


def run_tests(request: BuildRequest, release: Release, command: str, settings: Settings) -> Path:
    """Run the tests of a service; returns the log.

    Raises TestsFailed with the part of the output that matters, SourceError or NoSpaceError.
    """
    source = read_source(request.folder, settings.environ)
    given = environment(settings.environ, {**request.env, **release.environment})
    given["PATH"] = os.pathsep.join((*release.path, given["PATH"]))
    logs = settings.logs / "test" / request.stack / request.service
    with (
        tempfile.TemporaryDirectory(prefix="lapwing-test-") as folder,
        contextlib.closing(open_log(logs, release.name, None, given)) as log,
    ):
        work = Path(folder) / "source"
        copy(source, work)
        try:
            run(
                shlex.split(command),
                folder=work,
                environ=given,
                log=log,
                until=time.monotonic() + request.timeout,
                doing=f"The test of {request.service}",
            )
        except BuildError as error:
            raise TestsFailed(
                error.message, log=log.path, detail=error.detail, hint=error.hint
            ) from error
        finally:
            remove_tree(work)
    return log.path
