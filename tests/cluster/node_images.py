"""Images of a real node, made of programs of this machine and pushed to the registry of the test.

The node pulls images of every registry there, so the names are those of the official images: what
is rendered is what runs.
"""

from __future__ import annotations

import importlib.util
import json
import platform
import sys
from pathlib import Path
from typing import Any

from tests.database_images import ENTRYPOINT, DatabaseImage
from tests.integration.image.docker import python_files, write_base
from tests.needs import require
from tests.registries import CONFIG, LAYER, MANIFEST, Server, digest_of

PYTHON = f"library/python:{sys.version_info[0]}.{sys.version_info[1]}-slim"
COMMANDS = ("awk", "cat", "grep", "head", "nslookup", "sed", "sh", "sleep", "tr")
"""Commands that the scripts of smoke tests, the traffic analysis and charts call."""
ARCHIVING = (
    "cat", "date", "grep", "gzip", "mkdir", "rm", "sed", "sh", "sha256sum", "sort", "tail", "tar",
    "tr", "wc",
)  # fmt: skip
"""Commands that the scripts of backups call."""


def push_system(server: Server, parts: Path, folder: Path) -> None:
    """Push the images that every node needs."""
    push(server, folder, "library/pause:1", {"pause": parts / "pause"}, ["/pause"])
    push(server, folder, "library/coredns:1", {"coredns": parts / "coredns"}, ["/coredns"])


def push_stack(server: Server, folder: Path, envoy: str, curl: str) -> None:
    """Push the images that stacks need: Envoy, curl, and a base image for Python services.

    The image of curl has busybox's commands, like the official image.
    """
    push_curl(server, folder, curl)
    found = importlib.util.find_spec("envoy")
    assert found is not None
    assert found.origin is not None
    program = "usr/local/bin/envoy"
    files = {program: Path(found.origin).parent / "_bin" / "envoy"}
    push(server, folder, envoy, files, [f"/{program}"])
    variable = f"PYTHON_VERSION={platform.python_version()}"
    shell = ("sh", "dirname", "realpath")
    push(server, folder, PYTHON, python_files(), [], shell, [variable])


def push_curl(server: Server, folder: Path, image: str) -> None:
    """Push the curl of this machine, with commands of busybox, under the name of an image."""
    box = Path(require("busybox"))
    commands = {f"usr/local/bin/{command}": box for command in COMMANDS}
    push(server, folder, image, commands, [], (Path(require("curl")).name,))


def push_rclone(server: Server, folder: Path, image: str) -> None:
    """Push the rclone of this machine, with commands of busybox, under the name of an image."""
    box = Path(require("busybox"))
    commands = {f"usr/local/bin/{command}": box for command in ARCHIVING}
    push(server, folder, image, commands, [], (Path(require("rclone")).name,))


def push_openssl(server: Server, folder: Path, image: str) -> None:
    """Push the openssl of this machine, with its configuration, under the name of an image."""
    box = Path(require("busybox"))
    files = {"usr/local/bin/sh": box, "usr/lib/ssl/openssl.cnf": Path("/etc/ssl/openssl.cnf")}
    push(server, folder, image, files, [], ("openssl",))


def push_database(server: Server, made: DatabaseImage, image: str) -> None:
    """Push an image of a database server under the name of an image."""
    settings = {
        "Entrypoint": [ENTRYPOINT],
        "Cmd": [made.command],
        "Env": [f"PATH={made.path}"],
        "WorkingDir": made.folder,
    }
    push_archive(server, made.archive, f"library/{image}", settings)


def push(
    server: Server,
    folder: Path,
    image: str,
    files: dict[str, Path],
    entrypoint: list[str],
    programs: tuple[str, ...] = (),
    variables: list[str] | None = None,
) -> None:
    """Push an image with files, programs of this machine, and the libraries of both."""
    archive = folder / "layer.tar"
    write_base(archive, files, programs)
    path = "PATH=/usr/local/bin:/usr/bin:/bin"
    settings = {"Entrypoint": entrypoint, "Env": [path, *(variables or ())]}
    push_archive(server, archive, image, settings)


def push_archive(server: Server, archive: Path, image: str, settings: dict[str, Any]) -> None:
    """Push an image of one layer, and remove the archive of the layer."""
    layer = archive.read_bytes()
    archive.unlink()
    config = {
        "os": "linux",
        "architecture": "amd64",
        "config": settings,
        "rootfs": {"type": "layers", "diff_ids": [digest_of(layer)]},
    }
    repository, _, tag = image.partition(":")
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {
            "mediaType": CONFIG,
            **server.push_blob(repository, json.dumps(config).encode()),
        },
        "layers": [{"mediaType": LAYER, **server.push_blob(repository, layer)}],
    }
    server.push_manifest(repository, tag, document)
