"""Backups of containers that a test damages."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path


def cut_dump(backup: Path, scratch: Path) -> None:
    """Remove the end of the dump in the only part of a backup, with the checksum of the rest."""
    archive, manifest = backup / "db.tar.gz", backup / "manifest.json"
    with tarfile.open(archive) as file:
        file.extractall(scratch, filter="tar")
    dump = scratch / "dump"
    dump.write_bytes(dump.read_bytes()[:-1000])
    with tarfile.open(archive, "w:gz") as file:
        file.add(scratch, "")
    content = json.loads(manifest.read_text())
    content["parts"][0]["sha256"] = hashlib.sha256(archive.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(content))
