"""Generated Dockerfiles of small sources."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lapwing.build.context import BuildRequest
from lapwing.build.image.builder import ImageRequest
from lapwing.build.image.dockerfile import render_dockerfile
from lapwing.build.source import Source

DIGEST = "sha256:" + "0" * 64


def dockerfile_of(
    folder: Path,
    files: dict[str, str],
    command: str,
    *,
    secrets: Sequence[str] = (),
    **build: Any,
) -> str:
    """Return the Dockerfile of a service with these files, which are written to `folder`."""
    for name, text in files.items():
        (folder / name).write_text(text)
    request = ImageRequest(BuildRequest("shop", "api", folder, **build), command=command, port=8080)
    source = Source(folder, tuple(files), "", "")
    return render_dockerfile(request, source, f"registry.example/base:1@{DIGEST}", secrets)
