"""Quantities in the stack file: `10m`, `512Mi`, `250m`, `1%`.

Each parser takes a YAML value (text or a number) and returns the internal unit: seconds, bytes,
cores, a fraction from 0 to 1, a date. It raises ValueError with the expected form.
"""

from __future__ import annotations

import datetime
import ipaddress
import re

HOST_ADDRESS = (
    r"(?:(?P<user>[A-Za-z_][A-Za-z0-9._-]*)@)?"
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\])"
    r"(?::(?P<port>0*(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]"
    r"|6553[0-5])))?"
)
"""The address of a server: `user@name:port`, with an IPv6 address in brackets."""
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {
    "": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40,
}  # fmt: skip


def duration(value: object) -> float:
    """Parse seconds from `500ms`, `30s`, `10m`, `1h30m`, `2d` or a number of seconds."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    else:
        text = str(value).strip()
        parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text)
        if not parts or "".join(n + u for n, u in parts) != text:
            raise ValueError(f"{value!r} is not a duration; write it as `500ms`, `30s` or `10m`")
        seconds = sum(float(n) * _SECONDS[u] for n, u in parts)
    if not 0 <= seconds <= 30 * 86400:
        raise ValueError("a duration must be between 0 and 30 days")
    return seconds


def size(value: object) -> int:
    """Parse bytes from `512Mi`, `10Gi`, `1G` or a number of bytes."""
    pattern = r"(\d+(?:\.\d+)?)(|k|M|G|T|Ki|Mi|Gi|Ti)"
    match = _match(value, pattern, "a size; write it as `512Mi` or `10Gi`")
    return int(_positive(int(float(match[1]) * _BYTES[match[2]]), "a size"))


def cpu(value: object) -> float:
    """Parse cores from `250m`, `0.5` or `2`."""
    pattern = r"(\d+(?:\.\d+)?)(m?)"
    match = _match(value, pattern, "a CPU quantity; write it as `250m` or `0.5`")
    return _positive(float(match[1]) / (1000 if match[2] else 1), "CPU")


def money(value: object) -> float:
    """Parse dollars from `250` or `249.50`."""
    expected = "an amount of US dollars; write it as `250` or `249.50`"
    match = _match(value, r"(\d{1,8})(\.\d{1,2})?", expected)
    return _positive(float(match[0]), "an amount")


def fraction(value: object) -> float:
    """Parse a fraction from `1%`, `0.5%` or a number from 0 to 1."""
    match = _match(value, r"(\d+(?:\.\d+)?)(%?)", "a percentage; write it as `1%`")
    found = float(match[1]) / (100 if match[2] else 1)
    if found > 1:
        raise ValueError(f"{value!r} is more than 100%; write it as `1%`")
    return found


def _match(value: object, pattern: str, expected: str) -> re.Match[str]:
    match = re.fullmatch(pattern, str(value).strip())
    if isinstance(value, bool) or match is None:
        raise ValueError(f"{value!r} is not {expected}")
    return match


def _positive(value: float, name: str) -> float:
    if value <= 0:
        raise ValueError(f"{name} must be greater than 0")
    return value


def date(value: object) -> datetime.date:
    """Parse a date such as `2027-03-31`."""
    text = str(value).strip()
    try:
        if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
            raise ValueError
        return datetime.date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{value!r} is not a date; write it as `2027-03-31`") from None


def show_duration(seconds: float) -> str:
    """Format a duration in the largest unit that gives a whole number: `10m`."""
    for unit in ("d", "h", "m", "s", "ms"):
        count = seconds / _SECONDS[unit]
        if count >= 1 and abs(count - round(count)) < 1e-9:
            return f"{round(count)}{unit}"
    return f"{seconds:g}s"


def show_size(count: float) -> str:
    """Format a number of bytes: `1.5 GiB`, `12 MiB`."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def show_fraction(value: float) -> str:
    """Format a fraction as a percentage: `5%`."""
    return f"{value * 100:g}%"


def network(value: object) -> str:
    """Parse a network (`203.0.113.0/24`) or an IP address, which is the network of one client."""
    text = str(value)
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        reason = str(error).removeprefix(text).removeprefix(repr(text)).strip()
        raise ValueError(
            f"{text!r} is not a network ({reason}); write it as `203.0.113.0/24`"
        ) from None


def header(value: object) -> object:
    """Check what to do with a response header: a string, a list of strings, or False."""
    if value is False:
        return value
    values = value if isinstance(value, list) else [value]
    texts = [str(v) if isinstance(v, int | float) and v is not True else v for v in values]
    for text in texts:
        if not isinstance(text, str) or not re.fullmatch(r"[!-~]([ -~]*[!-~])?", text):
            raise ValueError(
                f"{text!r} is not the value of a header: printable ASCII characters on one line, "
                "a list of such strings, or `false`"
            )
    return texts if isinstance(value, list) else texts[0]
