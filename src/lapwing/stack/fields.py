"""Field types of the stack file: strict mappings, text, names, short forms, quantities.

A quantity type parses what people write (`10m`, `512Mi`) and gives the JSON Schema its pattern.
"""

from __future__ import annotations

import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator

from lapwing.stack import cron, quantities

NAME = r"^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$"
VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
PATH = r"^/[^?#\s]*$"
HOST = r"^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?$"
BACKUP_PLACE = (
    r"^(/|s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/|$)|gs://[a-z0-9][a-z0-9._-]{1,61}[a-z0-9](/|$)"
    r"|pvc://[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$)"
)
LOG_DESTINATION = r"^(journald|https?://[^/?#@\s]+/[^?#\s]*)$"
ENDPOINT = r"^https?://[^/?#@\s]+/?$"
AGE_RECIPIENT = r"^age1[02-9ac-hj-np-z]+$"
REQUEST = r"^/[^#\s]*$"
LABEL_KEY = (
    r"^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$"
)
LABEL_VALUE = r"^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$"
OBJECT_NAME = r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$"

CRON = {"pattern": r"^\s*(@[A-Za-z]+|[^@\s]+(\s+\S+){4})\s*$"}
DURATION = {"type": ["string", "number"], "pattern": r"^(\d+(\.\d+)?(ms|s|m|h|d))+$"}
SIZE = {"type": ["string", "integer"], "pattern": r"^\d+(\.\d+)?(k|M|G|T|Ki|Mi|Gi|Ti)?$"}
CPU = {"type": ["string", "number"], "pattern": r"^\d+(\.\d+)?m?$"}
MONEY = {"type": ["string", "number"], "pattern": r"^\d+(\.\d{1,2})?$"}
PERCENTAGE = {"type": ["string", "number"], "pattern": r"^\d+(\.\d+)?%?$"}
DATE = {"type": "string", "format": "date", "pattern": r"^\d{4}-\d{2}-\d{2}$"}


def short_form(field: str, forms: Any) -> BeforeValidator:
    """Let a bare text or number in place of a mapping set one of its fields.

    `forms` is what the JSON Schema allows.
    """

    def lengthen(value: object) -> object:
        bare = isinstance(value, str | int | float) and not isinstance(value, bool)
        return {field: value} if bare else value

    return BeforeValidator(lengthen, json_schema_input_type=forms)


class StrictModel(BaseModel):
    """A mapping of the stack file; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _text(value: object) -> object:
    """Turn a number into text where text is meant, such as `version: 8`."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_number else value


Text = Annotated[str, BeforeValidator(_text, json_schema_input_type=str | float)]
Name = Annotated[
    str,
    BeforeValidator(_text, json_schema_input_type=Annotated[str, Field(pattern=NAME)]),
    Field(pattern=NAME),
]
NonEmpty = Annotated[str, Field(min_length=1)]
Files = Annotated[
    list[NonEmpty],
    BeforeValidator(
        lambda value: [value] if isinstance(value, str) else value,
        json_schema_input_type=NonEmpty | list[NonEmpty],
    ),
]
Variable = Annotated[str, Field(pattern=VARIABLE)]
UrlPath = Annotated[str, Field(pattern=PATH)]
HttpHost = Annotated[str, Field(pattern=HOST)]
RequestPath = Annotated[str, Field(pattern=REQUEST)]
LabelKey = Annotated[str, Field(pattern=LABEL_KEY)]
LabelValue = Annotated[str, Field(pattern=LABEL_VALUE)]
ObjectName = Annotated[str, Field(pattern=OBJECT_NAME)]

Duration = Annotated[float, BeforeValidator(quantities.duration), Field(json_schema_extra=DURATION)]
Size = Annotated[int, BeforeValidator(quantities.size), Field(json_schema_extra=SIZE)]
Cpu = Annotated[float, BeforeValidator(quantities.cpu), Field(json_schema_extra=CPU)]
Money = Annotated[float, BeforeValidator(quantities.money), Field(json_schema_extra=MONEY)]
Percentage = Annotated[
    float, BeforeValidator(quantities.fraction), Field(json_schema_extra=PERCENTAGE)
]
CronSchedule = Annotated[str, BeforeValidator(cron.parse), Field(json_schema_extra={**CRON})]
Interval = Annotated[str, BeforeValidator(cron.parse_interval)]
Network = Annotated[str, BeforeValidator(quantities.network)]
TimeZone = Annotated[str, BeforeValidator(cron.time_zone)]
Date = Annotated[datetime.date, BeforeValidator(quantities.date), Field(json_schema_extra={**DATE})]


HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")]
Headers = dict[
    HeaderName,
    Annotated[
        str | list[str] | bool,
        PlainValidator(
            quantities.header,
            json_schema_input_type=str | float | list[str | float] | Literal[False],
        ),
    ],
]


class Access(StrictModel):
    """Which clients may send requests. Health checks, smoke tests and previews are not limited."""

    allow: list[Network] | None = Field(
        None,
        min_length=1,
        description="The networks and IP addresses of clients; others get status 403. Default: "
        "all. Behind `LAPWING_TRUSTED_PROXIES`, the client's address is the last one in "
        "`X-Forwarded-For`.",
        examples=[["203.0.113.0/24", "2001:db8::/32"]],
    )
    basic_auth: Variable | None = Field(
        None,
        description="The secret with the users for HTTP basic authentication: one `name:password` "
        "per line; the password may be a hash of `htpasswd -s`. Others get status 401.",
        examples=["ADMIN_USERS"],
    )


class ComputeResources(StrictModel):
    """CPU and memory that one replica requests."""

    cpu: Cpu | None = Field(
        None, description="CPU cores, such as `250m` or `0.5`.", examples=["250m"]
    )
    memory: Size | None = Field(None, description="Memory.", examples=["512Mi"])
