"""The result of one check of `lapwing verify` or `lapwing doctor`."""

from __future__ import annotations

import msgspec


class CheckResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """One check and what was observed.

    `ok` is None if it could not be made; `detail` is the end of a log that explains the result.
    """

    check: str
    ok: bool | None
    seen: str
    detail: str = ""
