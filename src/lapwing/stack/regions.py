"""Regions of clouds. Data, read once.

The list is `regions.toml`, with its source and date. A region that is not there is refused, because
a slip of the pen would else be noticed by Terraform at the earliest, or by nobody. Clouds open new
regions: `new_region: true` of a `cloud` takes one that this version does not know.
"""

from __future__ import annotations

import functools
import tomllib
from importlib import resources
from typing import Any


@functools.cache
def _data() -> dict[str, Any]:
    text = resources.files("lapwing.stack").joinpath("regions.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def gcp() -> tuple[str, ...]:
    """The regions of Google Cloud."""
    return tuple(_data()["gcp"]["regions"])


def atlas(region: str) -> str:
    """The name that MongoDB Atlas has for a region of Google Cloud: `europe-west3` is
    EUROPE_WEST_3."""
    names: dict[str, str] = _data()["atlas"]["names"]
    if region in names:
        return names[region]
    area, _, rest = region.partition("-")
    area = {
        "northamerica": "north_america",
        "southamerica": "south_america",
        "me": "middle_east",
    }.get(area, area)
    place, number = rest.rstrip("0123456789"), rest[len(rest.rstrip("0123456789")) :]
    return f"{area}_{place}_{number}".replace("-", "_").upper()
