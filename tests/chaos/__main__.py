"""`python -m tests.chaos --seed 1 --seconds 120`; see `make chaos`."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import tempfile
import traceback
from pathlib import Path

import psutil

from tests.chaos.driver import Driver, InvariantViolation
from tests.chaos.record import Record
from tests.deployed import until
from tests.disk import mounted
from tests.installation import installation
from tests.integration.crash.runtimes import Containers, Processes
from tests.integration.image.docker import daemon, python_base
from tests.needs import PARTS, require

DISK_SIZE = "1g"
SHOWN = 20
"""How many failed requests are listed."""


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


def run(seed: int, seconds: float, contained: bool, root: Path, record: Record) -> None:
    """Run the rounds of a seed, with services in containers if `contained`.

    Raises InvariantViolation, or an error about what is left.
    """
    with contextlib.ExitStack() as stack:
        disk = None
        if PARTS["tmpfs"]():
            disk = stack.enter_context(mounted(root / ".local", DISK_SIZE))
        else:
            say("No small disk can be mounted (not root): nothing happens in rounds that fill it.")
        runtime = Processes()
        if contained:
            engine = stack.enter_context(daemon(require("docker")))
            base = stack.enter_context(python_base(engine.docker, root / "base"))
            runtime = Containers(engine, base)
        where = stack.enter_context(installation(root, **runtime.environ))
        driver = Driver(where, runtime, root / "clients", disk, record, say)
        try:
            driver.run(seed, seconds)
        except InvariantViolation as error:
            say(str(error))
            sockets = shutil.ignore_patterns("*.sock")
            shutil.copytree(where.home, root / "broken", symlinks=True, ignore=sockets)
            raise
        finally:
            driver.end()
    until(lambda: not left_over(root), f"the end of {left_over(root)}")


def left_over(root: Path) -> list[str]:
    """The processes, whoever started them, that name a folder of this run."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            command = process.cmdline()
            facts = (*command, process.cwd(), *process.environ().values())
            if any(str(root) in fact for fact in facts):
                found.append(f"{process.pid} {' '.join(command)}")
    return found


def main() -> int:
    """Run, print the totals; returns 1 if something did not hold or too many requests failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--runtime", choices=("process", "container"), default="process")
    options = parser.parse_args()
    say(f"seed {options.seed}, {options.seconds:g} s, services in runtime: {options.runtime}")
    root = Path(tempfile.mkdtemp(prefix="lapwing-chaos-"))
    record, problem = Record(), None
    try:
        run(options.seed, options.seconds, options.runtime == "container", root, record)
    except Exception:
        problem = traceback.format_exc()
    say("\n" + record.table())
    for period, exchange in record.unexcused[:SHOWN]:
        say(f"round {period.number} ({period.fault}): {exchange}")
    if problem is None and not record.unexcused:
        shutil.rmtree(root)
        return 0
    say(problem or f"{len(record.unexcused)} requests failed that may not fail.")
    say(f"Its folder is {root}.")
    return 1


if __name__ == "__main__":
    sys.exit(main())
