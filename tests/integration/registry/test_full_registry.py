"""A registry whose disk is full: the error names the remedy, and the push is completed later."""

from __future__ import annotations

import os
from pathlib import Path

from tests.disk import mounted
from tests.installation import Installation
from tests.needs import require
from tests.registries import docker_registry


def test_full_registry_is_reported_and_a_later_push_completes(tmp_path: Path) -> None:
    require("tmpfs")
    program, installation = require("registry"), Installation(tmp_path)
    with (
        docker_registry(program, tmp_path / "source") as source,
        mounted(tmp_path / "disk", "8m") as disk,
        docker_registry(program, disk.folder / "registry") as full,
    ):
        source.push_image("team/app", "1", [os.urandom(3_000_000), os.urandom(9_000_000)])
        command = ("image", "copy", f"{source.host}/team/app:1", f"{full.host}/team/app:1")
        done = installation.call(*command)
        assert done.returncode == 1
        assert f"{full.host} responded 500" in done.stderr
        assert "If its storage is full, free space there" in done.stderr
        assert full.manifest("team/app", "1") is None
        disk.resize("40m")
        done = installation.call(*command)
        assert done.returncode == 0, done.stderr
        assert full.manifest("team/app", "1") is not None
