"""A real registry with base images made of random bytes, and a stack to build images of.

No image of a publisher can be pulled in a test: these bases have only the names, the configuration
and the platforms of the official ones. Nothing here needs a container engine.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import platform
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.installation import Installation
from tests.needs import require
from tests.registries import CONFIG, MANIFEST, Server, digest_of, docker_registry

GZIP_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
PYTHON = {"PATH": "/usr/local/bin:/usr/bin:/bin", "PYTHON_VERSION": platform.python_version()}
"""Byte code is compiled by the Python of the base's version: here, the one that runs the tests."""
VERSION = ".".join(platform.python_version_tuple()[:2])
NODE = {"PATH": "/usr/local/bin:/usr/bin:/bin", "NODE_VERSION": "22.1.0"}


def push_base(
    server: Server, name: str, tag: str, env: dict[str, str], *architectures: str
) -> dict[str, Any]:
    """Push a base image for some architectures as an index; returns the descriptor of the index."""
    children = []
    for architecture in architectures:
        layer = gzip.compress(os.urandom(20_000))
        config = {
            "os": "linux",
            "architecture": architecture,
            "config": {
                "Env": [f"{key}={value}" for key, value in env.items()],
                "Entrypoint": ["docker-entrypoint.sh"],
                "User": "root",
            },
            "rootfs": {"type": "layers", "diff_ids": [digest_of(gzip.decompress(layer))]},
        }
        raw = json.dumps(config).encode()
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, **server.push_blob(name, raw)},
            "layers": [{"mediaType": GZIP_LAYER, **server.push_blob(name, layer)}],
        }
        pushed = server.push_manifest(name, "", document)
        children.append({**pushed, "platform": {"os": "linux", "architecture": architecture}})
    return server.push_index(name, tag, children)


@dataclass
class Stack:
    """A stack whose images are pushed to `server` as `<folder>/<service>`."""

    installation: Installation
    server: Server
    folder: str = "team"

    def write(self, files: dict[str, str]) -> None:
        self.installation.write(files)

    def build(self, *arguments: str) -> dict[str, Any]:
        """Build images; returns them by service."""
        found = self.installation.json("image", "build", *arguments)
        return {image["service"]: image for image in found["images"]}

    def fail(self, *arguments: str) -> str:
        """The message of a build that fails."""
        done = self.installation.call("image", "build", *arguments)
        assert done.returncode in (1, 2), done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr

    def config(self, service: str, digest: str) -> dict[str, Any]:
        """The configuration of a pushed image for one platform."""
        manifest = self.server.manifest(f"{self.folder}/{service}", digest)
        assert manifest is not None
        raw = self.server.blob(f"{self.folder}/{service}", manifest["config"]["digest"])
        assert raw is not None
        found: dict[str, Any] = json.loads(raw)
        return found

    def layers(self, service: str, digest: str) -> list[list[tarfile.TarInfo]]:
        """The members of the layers that a pushed image has beside those of its base."""
        return [list(archive) for archive in self.archives(service, digest)]

    def archives(self, service: str, digest: str) -> list[tarfile.TarFile]:
        manifest = self.server.manifest(f"{self.folder}/{service}", digest)
        assert manifest is not None
        blobs = [
            self.server.blob(f"{self.folder}/{service}", layer["digest"])
            for layer in manifest["layers"]
        ]
        unpacked = [gzip.decompress(blob) for blob in blobs if blob is not None]
        config = self.config(service, digest)
        assert config["rootfs"]["diff_ids"] == [digest_of(content) for content in unpacked]
        own = [content for content in unpacked if content[257:262] == b"ustar"]
        return [tarfile.open(fileobj=io.BytesIO(content)) for content in own]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with docker_registry(require("registry"), tmp_path_factory.mktemp("registry")) as running:
        push_base(running, "library/python", f"{VERSION}-slim", PYTHON, "amd64", "arm64")
        push_base(running, "library/node", "22-slim", NODE, "amd64", "arm64")
        yield running


@pytest.fixture
def stack(tmp_path: Path, server: Server) -> Stack:
    return Stack(Installation(tmp_path), server)
