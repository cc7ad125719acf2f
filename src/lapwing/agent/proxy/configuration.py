"""The files that Envoy watches for its configuration, all in one folder.

Each is replaced by one rename. What was written last is also kept here, so that a removed file can
be written again before another Envoy is launched.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from lapwing.agent.state import FileWriter
from lapwing.errors import ProxyError
from lapwing.render.envoy import Json
from lapwing.system.files import write_atomic


class ConfigurationFiles:
    """The configuration files of one LAPWING_HOME; `writer` keeps the order of their writes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.writer = FileWriter()
        self._written: dict[str, Json] = {}

    def exists(self, name: str) -> bool:
        """Return whether a file is there."""
        return (self.folder / name).exists()

    async def write(self, name: str, content: Json, *, sync: bool = True) -> None:
        """Replace a file; without `sync`, one that is written again before Envoy is launched.

        Raises ProxyError.
        """
        await self.write_once(name, content, sync=sync)
        self._written[name] = content

    async def write_once(self, name: str, content: Json, *, sync: bool = True) -> None:
        """Replace a file of one instance, which is not written again. Raises ProxyError."""
        try:
            data = msgspec.json.encode(content)
            await self.writer.run(write_atomic, self.folder / name, data, sync=sync)
        except OSError as error:
            raise ProxyError(
                f"Envoy's configuration {self.folder / name} cannot be written: "
                f"{error.strerror or error}.",
                hint=f"Check the free space: `df {self.folder}`.",
            ) from error

    async def write_missing(self) -> None:
        """Write the files that were removed again. Raises ProxyError."""
        for name, content in list(self._written.items()):
            if not self.exists(name):
                await self.write(name, content)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there. Raises OSError."""
        (self.folder / name).unlink(missing_ok=True)
        self._written.pop(name, None)
