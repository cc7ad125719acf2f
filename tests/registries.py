"""Real registries on free ports of this machine, and images made up of random bytes.

Images are put there by a client of our own that knows nothing of Lapwing's, so that a mistake in
the one is not hidden by the same mistake in the other.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.installation import free_port

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
EMPTY = "application/vnd.oci.empty.v1+json"
ACCEPT = f"{MANIFEST}, {INDEX}"


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass
class Server:
    """A registry at `host` (`127.0.0.1:port`)."""

    host: str
    process: subprocess.Popen[bytes]
    storage: Path
    scheme: str = "http"
    client: httpx.Client = field(default_factory=lambda: httpx.Client(trust_env=False, timeout=60))

    def url(self, path: str) -> str:
        return f"{self.scheme}://{self.host}/v2/{path}"

    def push_blob(self, repository: str, data: bytes) -> dict[str, Any]:
        """Push some bytes; returns their descriptor, without a kind."""
        digest = digest_of(data)
        begun = self.client.post(self.url(f"{repository}/blobs/uploads/"))
        assert begun.status_code == 202, begun.text
        location = httpx.URL(self.url("")).join(begun.headers["location"])
        put = self.client.put(
            location.copy_merge_params({"digest": digest}),
            content=_pieces(data),
            headers={"Content-Length": str(len(data))},
        )
        assert put.status_code == 201, put.text
        return {"digest": digest, "size": len(data)}

    def push_manifest(self, repository: str, tag: str, document: dict[str, Any]) -> dict[str, Any]:
        """Push a manifest; returns its descriptor."""
        raw = json.dumps(document).encode()
        kind = document["mediaType"]
        put = self.client.put(
            self.url(f"{repository}/manifests/{tag or digest_of(raw)}"),
            content=raw,
            headers={"Content-Type": kind},
        )
        assert put.status_code == 201, put.text
        return {"mediaType": kind, "digest": digest_of(raw), "size": len(raw)}

    def push_image(
        self,
        repository: str,
        tag: str,
        layers: list[bytes],
        architecture: str = "amd64",
        created: str | None = None,
    ) -> dict[str, Any]:
        """Push an image of some layers; returns its descriptor, with its platform."""
        config = {
            **({"created": created} if created else {}),
            "os": "linux",
            "architecture": architecture,
            "config": {"User": "app", "Cmd": ["serve"], "Labels": {"team": "blue"}},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
        }
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {
                "mediaType": CONFIG,
                **self.push_blob(repository, json.dumps(config).encode()),
            },
            "layers": [
                {"mediaType": LAYER, **self.push_blob(repository, layer)} for layer in layers
            ],
        }
        descriptor = self.push_manifest(repository, tag, document)
        platform = {"os": "linux", "architecture": architecture}
        return {**descriptor, "platform": platform}

    def push_index(
        self, repository: str, tag: str, children: list[dict[str, Any]]
    ) -> dict[str, Any]:
        """Push an index; returns its descriptor."""
        document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": children}
        return self.push_manifest(repository, tag, document)

    def push_referrer(
        self, repository: str, subject: dict[str, Any], kind: str, data: bytes
    ) -> dict[str, Any]:
        """Push something that refers to a manifest: an SBOM, say."""
        bare = {key: subject[key] for key in ("mediaType", "digest", "size")}
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": kind,
            "config": {"mediaType": EMPTY, **self.push_blob(repository, b"{}")},
            "layers": [{"mediaType": kind, **self.push_blob(repository, data)}],
            "subject": bare,
        }
        return self.push_manifest(repository, "", document)

    def manifest(self, repository: str, wanted: str) -> dict[str, Any] | None:
        """The manifest at a tag or digest as it is there."""
        answer = self.client.get(
            self.url(f"{repository}/manifests/{wanted}"), headers={"Accept": ACCEPT}
        )
        if answer.status_code == 404:
            return None
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return {**found, "_digest": digest_of(answer.content)}

    def blob(self, repository: str, digest: str) -> bytes | None:
        """The bytes of a blob as they are there."""
        answer = self.client.get(self.url(f"{repository}/blobs/{digest}"))
        return answer.content if answer.status_code == 200 else None

    def referrers(self, repository: str, digest: str) -> list[str]:
        """The digests of what refers to a manifest, by the interface of distribution-spec 1.1."""
        answer = self.client.get(self.url(f"{repository}/referrers/{digest}"))
        assert answer.status_code == 200, answer.text
        return [found["digest"] for found in answer.json()["manifests"]]

    def whole(self, repository: str, wanted: str) -> str:
        """The digest of an image, after its every blob was read and found to be right."""
        found = self.manifest(repository, wanted)
        assert found is not None, f"{repository} has no {wanted}"
        for child in found.get("manifests", []):
            assert self.whole(repository, child["digest"]) == child["digest"]
        blobs = found.get("layers", []) + ([found["config"]] if "config" in found else [])
        for blob in blobs:
            data = self.blob(repository, blob["digest"])
            assert data is not None, f"{repository} lacks {blob['digest']}"
            assert digest_of(data) == blob["digest"]
            assert len(data) == blob["size"]
        return str(found["_digest"])


def _pieces(data: bytes) -> Iterator[bytes]:
    """The data bit by bit: the client would copy all that is left for each bit that it sends."""
    for place in range(0, len(data), 1 << 20):
        yield data[place : place + (1 << 20)]


@contextmanager
def docker_registry(
    program: str,
    folder: Path,
    http: str = "",
    *,
    read_only: bool = False,
    deletes: bool = True,
) -> Iterator[Server]:
    """Debian's docker-registry with its files in `folder`; `http` adds lines to that section."""
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "config.yml"
    config.write_text(
        "version: 0.1\n"
        "log: {level: error, accesslog: {disabled: true}}\n"
        "storage:\n"
        f"  filesystem: {{rootdirectory: {json.dumps(str(folder / 'data'))}}}\n"
        "  cache: {blobdescriptor: inmemory}\n"
        f"  delete: {{enabled: {json.dumps(deletes)}}}\n"
        f"  maintenance: {{readonly: {{enabled: {json.dumps(read_only)}}}}}\n"
        "validation: {manifests: {urls: {allow: ['^https://example']}}}\n"
        f"http:\n  addr: '127.0.0.1:{port}'\n  secret: tests\n" + http
    )
    with _running([program, "serve", str(config)], port, folder) as server:
        yield server


@contextmanager
def oci_registry(program: str, folder: Path) -> Iterator[Server]:
    """go-containerregistry's registry, which has the referrers interface
    (`.ci/install-oci-registry` builds it)."""
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    with _running([program, f"127.0.0.1:{port}", str(folder)], port, folder) as server:
        yield server


@contextmanager
def _running(arguments: list[str], port: int, folder: Path) -> Iterator[Server]:
    log = (folder / "log").open("wb")
    process = subprocess.Popen(
        arguments, stdout=log, stderr=log, env={**os.environ, "OTEL_TRACES_EXPORTER": "none"}
    )
    try:
        _await(port, process)
        server = Server(f"127.0.0.1:{port}", process, folder)
        with server.client:
            yield server
    finally:
        process.terminate()
        process.wait(20)
        log.close()


def _await(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert process.poll() is None, "the registry ended at once"
            assert time.monotonic() < until, "the registry does not listen"
            time.sleep(0.02)
