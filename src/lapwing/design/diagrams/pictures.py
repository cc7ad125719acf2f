"""The pictures of an environment, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from lapwing.design.diagrams.model import Amount, Picture, pie
from lapwing.design.diagrams.network import network
from lapwing.design.diagrams.pipeline import pipeline
from lapwing.design.diagrams.rollout import rollout
from lapwing.design.diagrams.topology import topology
from lapwing.design.subject import Subject

NAMES = ("architecture", "bluegreen", "pipeline", "network", "cost")


def picture(name: str, subject: Subject, workflow: str) -> Picture:
    """Draw the picture of that name (one of NAMES, but for `cost`).

    `workflow` is the text of the workflow that `lapwing ci init` writes.
    """
    if name == "pipeline":
        return pipeline(subject, workflow)
    return _FROM_INVENTORY[name](subject)


def cost_picture(subject: Subject, amounts: Sequence[Amount], unknown: int = 0) -> Picture:
    """Draw the monthly cost of each part; `unknown` lines have no price and are not in it."""
    lines = f"{unknown} line{'s' if unknown > 1 else ''}"
    without = f", without {lines} of unknown price" if unknown else ""
    title = f"{subject.stack}, {subject.environment.name}: US dollars per month{without}"
    return pie("cost", title, amounts)


_FROM_INVENTORY: Mapping[str, Callable[[Subject], Picture]] = {
    "architecture": topology,
    "bluegreen": rollout,
    "network": network,
}
