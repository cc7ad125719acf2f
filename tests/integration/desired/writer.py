"""A writer in a separate process: commits numbered releases.

    python -m tests.integration.desired.writer REPOSITORY NAME COUNT

Prints each commit, and at the end the number of conflicts.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from lapwing.desired.repository import DesiredRepository
from lapwing.errors import ConflictError
from lapwing.plan.model import Deployment
from tests.unit.agent.samples import document, service


def main(path: str, name: str, count: int) -> None:
    repository = DesiredRepository(Path(path))
    repository.ensure()
    number, conflicts = 0, 0
    while number < count:
        wanted = msgspec.structs.replace(
            document(api=service(f"api-{name}{number}")), deployment=Deployment(actor=name)
        )
        try:
            commit = repository.commit(wanted, expected=repository.newest("shop", "local"))
        except ConflictError:
            conflicts += 1
            continue
        repository.record_outcome(commit, "succeeded")
        print(commit, flush=True)
        number += 1
    print(f"conflicts {conflicts}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
