"""What the models of the stack file are made of: the strict mapping, texts, names, short forms."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

NAME = r"^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$"


def stands_for(field: str, forms: Any) -> BeforeValidator:
    """A bare text or number in place of a mapping stands for one of its fields; `forms` is what
    the JSON Schema allows."""

    def lengthen(value: object) -> object:
        bare = isinstance(value, str | int | float) and not isinstance(value, bool)
        return {field: value} if bare else value

    return BeforeValidator(lengthen, json_schema_input_type=forms)


class Part(BaseModel):
    """A mapping of the stack file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _text(value: object) -> object:
    """Numbers in places where text is meant, such as `version: 8`."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_number else value


Text = Annotated[str, BeforeValidator(_text, json_schema_input_type=str | float)]


Name = Annotated[
    str,
    BeforeValidator(_text, json_schema_input_type=Annotated[str, Field(pattern=NAME)]),
    Field(pattern=NAME),
]
Filled = Annotated[str, Field(min_length=1)]
