"""Regions of clouds, for hints. Pure.

A region that is not here is not refused (clouds open new ones); the list only serves to tell what
was probably meant. Source: Google Cloud, "Regions and zones".
"""

from __future__ import annotations

GCP = (
    "africa-south1", "asia-east1", "asia-east2", "asia-northeast1", "asia-northeast2",
    "asia-northeast3", "asia-south1", "asia-south2", "asia-southeast1", "asia-southeast2",
    "australia-southeast1", "australia-southeast2", "europe-central2", "europe-north1",
    "europe-north2", "europe-southwest1", "europe-west1", "europe-west2", "europe-west3",
    "europe-west4", "europe-west6", "europe-west8", "europe-west9", "europe-west10",
    "europe-west12", "me-central1", "me-central2", "me-west1", "northamerica-northeast1",
    "northamerica-northeast2", "northamerica-south1", "southamerica-east1", "southamerica-west1",
    "us-central1", "us-east1", "us-east4", "us-east5", "us-south1", "us-west1", "us-west2",
    "us-west3", "us-west4",
)  # fmt: skip

_ATLAS = {
    "us-central1": "CENTRAL_US", "us-east1": "EASTERN_US", "us-west1": "WESTERN_US",
    "europe-west1": "WESTERN_EUROPE", "asia-east1": "EASTERN_ASIA_PACIFIC",
    "asia-northeast1": "NORTHEASTERN_ASIA_PACIFIC", "asia-southeast1": "SOUTHEASTERN_ASIA_PACIFIC",
}  # fmt: skip
"""Regions that MongoDB Atlas named before it took Google's names. Source: Atlas, "Google Cloud"."""


def atlas(region: str) -> str:
    """The name that MongoDB Atlas has for a region of Google Cloud: `europe-west3` is
    EUROPE_WEST_3."""
    if region in _ATLAS:
        return _ATLAS[region]
    area, _, rest = region.partition("-")
    area = {
        "northamerica": "north_america",
        "southamerica": "south_america",
        "me": "middle_east",
    }.get(area, area)
    place, number = rest.rstrip("0123456789"), rest[len(rest.rstrip("0123456789")) :]
    return f"{area}_{place}_{number}".replace("-", "_").upper()
