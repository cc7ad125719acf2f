"""What clouds do, as far as a bill follows from it: `facts.toml`, read once, with its sources."""

from __future__ import annotations

import functools
import tomllib
from decimal import Decimal
from importlib import resources
from typing import Any


@functools.cache
def _data() -> dict[str, Any]:
    text = resources.files("lapwing.cost").joinpath("facts.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def autopilot(name: str) -> Decimal:
    """A limit of Autopilot: vCPU, GiB (MiB where the name says so), or GiB for a vCPU."""
    return Decimal(_data()["autopilot"][name])


def included_storage(tier: str) -> int | None:
    """GB of storage that a tier of MongoDB Atlas includes; None where that is not known."""
    found: int | None = _data()["atlas"]["included"].get(tier)
    return found
