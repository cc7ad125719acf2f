"""What is right in a stack file, and does less in an environment than its author may think. Pure.

`lapwing check` says these; they stop nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from lapwing.stack.load import LoadedStack
from lapwing.stack.quantities import show_duration


def notes(loaded: LoadedStack) -> Iterator[str]:
    """The notes on a stack in one environment, a sentence or two each."""
    yield from _drain(loaded)


def _drain(loaded: LoadedStack) -> Iterator[str]:
    """A machine sees when the last connection of an old slot ends, and keeps it for `drain` at
    most. In a cluster nobody does: the slot goes when `keep_old` is over, whatever it holds open.
    """
    if loaded.settings.target != "kubernetes":
        return
    for name, service in loaded.stack.services.items():
        rollout = service.rollout
        stated = "drain" in rollout.model_fields_set and service.kind in ("web", "static")
        if stated and rollout.drain > rollout.keep_old:
            drain, keep = show_duration(rollout.drain), show_duration(rollout.keep_old)
            yield (
                f"In `{loaded.environment}`: `drain: {drain}` of {name} is for machines. On a "
                f"cluster its old slot, and what is open to it, stays for `keep_old: {keep}`."
            )
