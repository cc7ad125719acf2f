"""The failed step of a Dockerfile, from what engines print."""

from __future__ import annotations

from pathlib import Path

import pytest

from lapwing.build.command import KEPT_LINES, BuildLog
from lapwing.build.image.steps import BuildSteps
from lapwing.errors import BuildError

DOCKER = """\
Step 1/2 : RUN apt-get install liberror-perl
Unpacking liberror-perl
Step 2/2 : RUN ./configure
 ---> Running in 5b2c
no C compiler
The command '/bin/sh -c ./configure' returned a non-zero code: 1
"""
PODMAN = """\
[1/2] STEP 1/7: FROM base AS build
[1/2] STEP 2/7: RUN apt-get install liberror-perl
Unpacking liberror-perl
--> da3c2461013
[1/2] STEP 3/7: RUN ./configure
no C compiler
Error: building at STEP "RUN ./configure": exit status 1
"""
BUILDKIT = """\
#5 [build 2/7] RUN apt-get install liberror-perl
#5 0.2 Unpacking liberror-perl
#5 DONE 0.2s
#6 [build 3/7] RUN ./configure
#7 [stage-1 2/3] RUN make
#6 0.3 no C compiler
#7 0.4 another error
#6 ERROR: process "/bin/sh -c ./configure" did not complete successfully: exit code: 1
#7 CANCELED
------
 > [build 3/7] RUN ./configure:
0.3 no C compiler
------
ERROR: failed to solve: process "/bin/sh -c ./configure" did not complete
"""


def failed(folder: Path, lines: list[str]) -> BuildError:
    """Return the error of a build that printed some lines."""
    steps = BuildSteps()
    log = BuildLog(folder / "log", steps.read)
    for line in lines:
        log.write(line)
    log.close()
    error = BuildError("The build failed (exit 1).", detail="Unpacking liberror-perl")
    with pytest.raises(BuildError), steps.named(log):
        raise error
    return error


@pytest.mark.parametrize(
    ("text", "number"),
    [(DOCKER, "2/2"), (PODMAN, "3/7"), (BUILDKIT, "3/7")],
    ids=["docker", "podman", "buildkit"],
)
def test_failed_step_has_its_output_only(text: str, number: str, tmp_path: Path) -> None:
    error = failed(tmp_path, text.splitlines())
    assert error.message == f"The build failed (exit 1) at step {number}: RUN ./configure"
    assert error.detail is not None
    assert "no C compiler" in error.detail
    assert "liberror" not in error.detail
    assert "another error" not in error.detail


@pytest.mark.parametrize(
    ("failing", "problem"),
    [
        ("#7 exporting to image", "no space left on device"),
        ("#7 [internal] load build context", "failed to read /app/data: permission denied"),
    ],
)
def test_failure_outside_the_steps_names_none(failing: str, problem: str, tmp_path: Path) -> None:
    text = f"#5 [1/2] FROM alpine\n#6 [2/2] COPY . .\n#6 DONE 0.1s\n{failing}\n#7 ERROR: {problem}"
    error = failed(tmp_path, [*text.splitlines(), f"ERROR: failed to solve: {problem}"])
    assert error.message == "The build failed (exit 1)."
    assert problem in (error.detail or "")
    assert "COPY" not in (error.detail or "")


def test_step_with_much_output_is_named(tmp_path: Path) -> None:
    lines = ["Step 7/9 : RUN make", *["compiling"] * (KEPT_LINES + 1), "out of registers"]
    error = failed(tmp_path, lines)
    assert "at step 7/9: RUN make" in error.message
    assert "out of registers" in (error.detail or "")


def test_error_before_the_first_step_is_unchanged(tmp_path: Path) -> None:
    error = failed(tmp_path, ["unknown flag: --iidfile"])
    assert error.message == "The build failed (exit 1)."
    assert error.detail == "Unpacking liberror-perl"
