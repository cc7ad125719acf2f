"""The YAML loader: that of libyaml, which is faster, if PyYAML has it. It creates no objects."""

from __future__ import annotations

from typing import Any

import yaml

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(text: str | bytes) -> Any:
    """Return the value of a document. Raises yaml.YAMLError."""
    return yaml.load(text, LOADER)  # noqa: S506
