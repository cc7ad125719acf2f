"""Pushing a packaged Helm chart as an OCI artifact, so that `helm pull oci://...` finds it.

Source: Helm's OCI registry support (HIP 6) for media types, for the name (the chart's name is put
after the given path), and for the tag (its version, with `+` written `_`). No date goes into the
manifest: the same package has the same digest wherever and whenever it is pushed.
"""

from __future__ import annotations

import contextlib
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lapwing.errors import ImageReferenceError, RegistryError
from lapwing.registry import artifact, manifest
from lapwing.registry.copy import Progress
from lapwing.registry.manifest import Descriptor, Manifest
from lapwing.registry.pull import Content, Held
from lapwing.registry.repository import Repository
from lapwing.stack.image import Reference, check_tag, digest_of, parse

CONFIG = "application/vnd.cncf.helm.config.v1+json"
CHART = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
PROVENANCE = "application/vnd.cncf.helm.chart.provenance.v1.prov"
LARGEST = 32 * 1024 * 1024
"""Bytes of a package at most; Helm refuses larger ones, too."""
LARGEST_FILE = 1024 * 1024
"""Bytes of Chart.yaml at most."""


@dataclass(frozen=True, slots=True)
class Chart:
    """A packaged chart: the bytes of its file, and what its Chart.yaml says."""

    name: str
    version: str
    about: dict[str, Any]
    package: bytes
    provenance: bytes | None

    @property
    def tag(self) -> str:
        """The tag of this version."""
        return check_tag(self.version.replace("+", "_"))

    def at(self, folder: str) -> Reference:
        """Where it is pushed to under a registry's folder. Raises ImageReferenceError."""
        base = parse(f"{folder.rstrip('/')}/{self.name}", lower=True, default_tag=None)
        if base.tag or base.digest or "@" in folder:
            raise ImageReferenceError(
                f"{folder!r} is not a place for charts.",
                hint="Give it without a tag: the chart's name and version are put after it.",
            )
        return base.tagged(self.tag)


def read(file: Path) -> Chart:
    """Read a packaged chart and the `.prov` file beside it, if there is one.

    Raises RegistryError if it is not a chart.
    """
    with contextlib.suppress(FileNotFoundError):
        if file.stat().st_size > LARGEST:
            raise RegistryError(f"{file} is larger than a packaged chart may be.")
    try:
        package = file.read_bytes()
        about = yaml.safe_load(_chart_file(file))
    except FileNotFoundError as error:
        raise RegistryError(f"There is no file {file}.") from error
    except (tarfile.TarError, EOFError, OSError, yaml.YAMLError) as error:
        raise _not_a_chart(file, "it cannot be read") from error
    if not isinstance(about, dict):
        raise _not_a_chart(file, "its Chart.yaml is not a mapping")
    name, version = about.get("name"), about.get("version")
    if not isinstance(name, str) or not isinstance(version, str) or "/" in name:
        raise _not_a_chart(file, "its Chart.yaml names no name or version")
    beside = file.with_name(file.name + ".prov")
    provenance = beside.read_bytes() if beside.is_file() else None
    return Chart(name, version, about, package, provenance)


async def push(chart: Chart, target: Repository, progress: Progress) -> Manifest:
    """Push a chart and tag it with its version; returns its manifest.

    Raises RegistryError; then nothing was tagged.
    """
    blobs = [(CONFIG, _json(chart.about)), (CHART, chart.package)]
    if chart.provenance is not None:
        blobs.append((PROVENANCE, chart.provenance))
    described: list[tuple[Descriptor, Content]] = [
        (Descriptor(media_type=media_type, digest=digest_of(data), size=len(data)), Held(data))
        for media_type, data in blobs
    ]
    made = _manifest(chart, [descriptor for descriptor, _ in described])
    await artifact.push(made, described, target, [chart.tag], progress, chart.name)
    return made


def _manifest(chart: Chart, descriptors: list[Descriptor]) -> Manifest:
    annotations = {
        "org.opencontainers.image.title": chart.name,
        "org.opencontainers.image.version": chart.version,
    }
    if isinstance(chart.about.get("description"), str):
        annotations["org.opencontainers.image.description"] = chart.about["description"]
    raw = manifest.encode(
        {
            "schemaVersion": 2,
            "mediaType": manifest.OCI_MANIFEST,
            "config": manifest.plain(descriptors[0]),
            "layers": [manifest.plain(d) for d in descriptors[1:]],
            "annotations": annotations,
        }
    )
    return manifest.read(raw, manifest.OCI_MANIFEST, f"chart {chart.name}")


def _chart_file(file: Path) -> bytes:
    """The bytes of Chart.yaml in the top folder of a package."""
    with tarfile.open(file, "r:gz") as archive:
        for member in archive:
            parts = member.name.removeprefix("./").split("/")
            if len(parts) == 2 and parts[1] == "Chart.yaml" and member.isfile():
                if member.size > LARGEST_FILE:
                    break
                stream = archive.extractfile(member)
                return stream.read(LARGEST_FILE) if stream else b""
    raise _not_a_chart(file, "it has no Chart.yaml in its folder")


def _json(about: dict[str, Any]) -> bytes:
    """Chart.yaml as JSON; YAML's dates become text."""
    return json.dumps(about, separators=(",", ":"), ensure_ascii=False, default=str).encode()


def _not_a_chart(file: Path, why: str) -> RegistryError:
    return RegistryError(
        f"{file} is not a packaged chart: {why}.", hint="`helm package` makes one."
    )
