"""Text files that are part of Lapwing, with `<name>` in place of what varies."""

from __future__ import annotations

import functools
import re
from importlib import resources
from typing import Any

NAME = re.compile(r"<([a-z]+)>")


@functools.cache
def read(package: str, path: str) -> str:
    """Read a file in a package of Lapwing: `read("render.helm", "scripts/make.sh")`."""
    return resources.files(f"lapwing.{package}").joinpath(path).read_text(encoding="utf-8")


def fill(text: str, **values: Any) -> str:
    """Replace each `<name>` by its value. Values are not searched again."""
    return NAME.sub(lambda match: str(values[match[1]]), text)
