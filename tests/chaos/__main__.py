"""`python -m tests.chaos --seed 1 --seconds 120`; see `make chaos`."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import tempfile
from pathlib import Path

from tests.chaos.driver import Broken, Driver
from tests.chaos.record import Record
from tests.disk import mounted
from tests.installation import installation
from tests.needs import PARTS

DISK_SIZE = "1g"
SHOWN = 20
"""How many failed requests are listed."""


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


def run(seed: int, seconds: float, root: Path) -> tuple[Record, str | None]:
    """Run the rounds of a seed; returns the requests, and what did not hold after a round."""
    record, broken = Record(), None
    with contextlib.ExitStack() as stack:
        disk = None
        if PARTS["tmpfs"]():
            disk = stack.enter_context(mounted(root / "home", DISK_SIZE))
        else:
            say("No small disk can be mounted (not root): nothing happens in rounds that fill it.")
        where = stack.enter_context(installation(root))
        driver = Driver(where, root / "clients", disk, say)
        record = driver.record
        try:
            driver.run(seed, seconds)
        except Broken as error:
            broken = str(error)
        finally:
            if broken is not None:
                shutil.copytree(where.home, root / "broken", symlinks=True)
            driver.end()
    return record, broken


def main() -> int:
    """Run, print the totals; returns 1 if something did not hold or too many requests failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=120.0)
    options = parser.parse_args()
    say(f"seed {options.seed}, {options.seconds:g} s")
    root = Path(tempfile.mkdtemp(prefix="lapwing-chaos-"))
    record, broken = run(options.seed, options.seconds, root)
    say("\n" + record.table())
    for period, exchange in record.unexcused[:SHOWN]:
        say(f"round {period.number} ({period.fault}): {exchange}")
    if broken is None and not record.unexcused:
        shutil.rmtree(root)
        return 0
    say(broken or f"{len(record.unexcused)} requests failed that may not fail.")
    say(f"Its folder is {root}.")
    return 1


if __name__ == "__main__":
    sys.exit(main())
