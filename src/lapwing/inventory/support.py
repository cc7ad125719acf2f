"""How long the provider of a managed database supports a version: data of `support.toml`."""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass
from datetime import date
from typing import Any

from lapwing.system.package_data import read


@dataclass(frozen=True, slots=True)
class Support:
    """When extended support, which is billed, begins, and when all support ends; None if never."""

    extended: date | None = None
    ends: date | None = None


def support(kind: str, version: str) -> Support:
    """Return the dates of a version of a kind of managed database, as Terraform states it."""
    return Support(**_versions().get(kind, {}).get(version, {}))


@functools.cache
def _versions() -> dict[str, dict[str, Any]]:
    return tomllib.loads(read("inventory", "support.toml"))
