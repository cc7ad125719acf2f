"""The model of `branches`: see branch_names.py for the environments that it makes."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lapwing.stack.fields import NonEmpty, Size, StrictModel

GIB = 1024**3


class Branches(StrictModel):
    """Limits and host names of the environments of branches."""

    max: Annotated[int, Field(ge=1, le=100)] = Field(
        5, description="The maximum number of these environments."
    )
    disk: Size = Field(
        10 * GIB,
        gt=0,
        description="The disk space that they may use together: data, logs, state and releases. "
        "At this limit, no branch is deployed.",
        examples=["5Gi"],
    )
    domain: NonEmpty | None = Field(
        None,
        description="Each is served at `LABEL.<domain>`, with a DNS label made from the branch: "
        "create a wildcard DNS record. Default: only at `LABEL.<environment>.<stack>.localhost`.",
        examples=["preview.example.com"],
    )
