"""The log of one build: on disk for later, in memory for the error, line by line to who listens.

What a build prints may hold the credentials it was given, so their values are masked before a line
goes anywhere. A log has an end: a build that prints without one does not fill the disk.
"""

from __future__ import annotations

import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

KEPT_LOGS = 20
"""Logs kept for each service."""
KEPT_LINES = 2000
"""Lines kept in memory."""
LIMIT = 16 * 2**20
"""The most bytes of one log on disk."""
SECRET_NAME = re.compile(
    r"SECRET|TOKEN|PASSW|PASSPHRASE|CREDENTIAL|AUTH(?!OR)|_KEY$|^KEY$", re.IGNORECASE
)
URL_PASSWORD = re.compile(r"://[^/\s:@]*:([^/\s@]+)@")


class BuildLog:
    """The log of one build, 0600."""

    def __init__(
        self,
        path: Path,
        on_line: Callable[[str], None] | None = None,
        masked: Iterable[str] = (),
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._on_line = on_line
        self._masked = sorted(masked, key=len, reverse=True)
        self._left = LIMIT
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._file = os.fdopen(descriptor, "wb", buffering=0)

    def begin(self, command: Iterable[str]) -> None:
        """Start a command of the build: `lines` are its output from here."""
        self.write("$ " + " ".join(command))
        self.lines.clear()

    def write(self, line: str) -> None:
        """Add a line, masked."""
        for value in self._masked:
            line = line.replace(value, "***")
        self.lines.append(line)
        data = line.encode(errors="replace") + b"\n"
        if self._left > 0:
            self._left -= len(data)
            self._file.write(data if self._left > 0 else b"(the rest of the log is left out)\n")
        if self._on_line is not None:
            self._on_line(line)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def open_log(
    folder: Path,
    release: str,
    on_line: Callable[[str], None] | None,
    environ: Mapping[str, str],
) -> BuildLog:
    """A new log in a service's folder of logs, where the oldest give way to it. `environ` is the
    environment of the build, whose credentials are masked."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in sorted(folder.glob("*.log"))[: -KEPT_LOGS + 1]:
        old.unlink(missing_ok=True)
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    return BuildLog(folder / f"{stamp}-{release}.log", on_line, credentials(environ))


def credentials(environ: Mapping[str, str]) -> set[str]:
    """The values in an environment that must not be shown: those of variables whose name says so,
    and the passwords in URLs. Pure."""
    found: set[str] = set()
    for name, value in environ.items():
        if SECRET_NAME.search(name):
            found.update(value.splitlines())
        found.update(URL_PASSWORD.findall(value))
    return {value for value in found if len(value) >= 4}
