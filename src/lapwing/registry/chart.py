"""Pushing a packaged Helm chart as an OCI artifact, so that `helm pull oci://...` finds it.

Source: Helm's OCI registry support (HIP 6) for media types, for the name (the chart's name is
appended to the given path), and for the tag (its version, with `+` written `_`). The manifest has
no date: the same package has the same digest wherever and whenever it is pushed.
"""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lapwing.errors import ImageReferenceError, RegistryError
from lapwing.registry.manifest import Descriptor, Manifest, build_manifest
from lapwing.registry.pull import MemoryBlob
from lapwing.registry.push import Progress, push_artifact
from lapwing.registry.repository import Repository
from lapwing.stack.image import Reference, check_tag, parse

CONFIG = "application/vnd.cncf.helm.config.v1+json"
CHART = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
PROVENANCE = "application/vnd.cncf.helm.chart.provenance.v1.prov"
MAX_PACKAGE_BYTES = 32 * 1024 * 1024
"""Helm refuses larger packages, too."""
MAX_CHART_YAML_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class PackagedChart:
    """A packaged chart: the bytes of its file, and its parsed Chart.yaml."""

    name: str
    version: str
    metadata: dict[str, Any]
    package: bytes
    provenance: bytes | None

    @property
    def tag(self) -> str:
        """The tag of this version."""
        return check_tag(self.version.replace("+", "_"))

    def reference(self, folder: str) -> Reference:
        """Return the reference below a registry's folder. Raises ImageReferenceError."""
        base = parse(f"{folder.rstrip('/')}/{self.name}", lower=True, default_tag=None)
        if base.tag or base.digest or "@" in folder:
            raise ImageReferenceError(
                f"{folder!r} has a tag or a digest.",
                hint="Give the destination without: the chart's name and version are appended.",
            )
        return base.tagged(self.tag)


def read_chart(file: Path) -> PackagedChart:
    """Read a packaged chart and the `.prov` file beside it, if there is one.

    Raises RegistryError if it is not a chart.
    """
    with contextlib.suppress(FileNotFoundError):
        if file.stat().st_size > MAX_PACKAGE_BYTES:
            limit = MAX_PACKAGE_BYTES >> 20
            raise RegistryError(f"{file} is larger than {limit} MiB, the limit for a chart.")
    beside = file.with_name(file.name + ".prov")
    try:
        package = file.read_bytes()
        provenance = beside.read_bytes() if beside.is_file() else None
    except FileNotFoundError as error:
        raise RegistryError(f"{file} does not exist.") from error
    except OSError as error:
        raise _invalid(str(file), str(error)) from error
    return parse_chart(package, str(file), provenance)


def parse_chart(package: bytes, file: str, provenance: bytes | None = None) -> PackagedChart:
    """Parse a packaged chart; `file` is its name in errors. Raises RegistryError."""
    try:
        metadata = yaml.safe_load(_chart_yaml(package, file))
    except (tarfile.TarError, EOFError, OSError, yaml.YAMLError) as error:
        raise _invalid(file, str(error)) from error
    if not isinstance(metadata, dict):
        raise _invalid(file, "Chart.yaml is not a mapping")
    name, version = metadata.get("name"), metadata.get("version")
    if not isinstance(name, str) or not isinstance(version, str) or "/" in name:
        raise _invalid(file, "Chart.yaml has no valid name and version")
    return PackagedChart(name, version, metadata, package, provenance)


async def push_chart(chart: PackagedChart, target: Repository, progress: Progress) -> Manifest:
    """Push a chart and tag it with its version; return its manifest.

    Raises RegistryError; then nothing was tagged.
    """
    manifest, blobs = chart_artifact(chart)
    sources = [(blob, MemoryBlob(content)) for blob, content in blobs]
    await push_artifact(manifest, sources, target, [chart.tag], progress, chart.name)
    return manifest


def chart_artifact(chart: PackagedChart) -> tuple[Manifest, list[tuple[Descriptor, bytes]]]:
    """Return the manifest and the blobs of a chart in a registry."""
    # YAML's dates become text.
    config = json.dumps(chart.metadata, separators=(",", ":"), ensure_ascii=False, default=str)
    contents = {CONFIG: config.encode(), CHART: chart.package}
    if chart.provenance is not None:
        contents[PROVENANCE] = chart.provenance
    blobs = [(Descriptor.of(data, kind), data) for kind, data in contents.items()]
    annotations = {
        "org.opencontainers.image.title": chart.name,
        "org.opencontainers.image.version": chart.version,
    }
    if isinstance(chart.metadata.get("description"), str):
        annotations["org.opencontainers.image.description"] = chart.metadata["description"]
    (first, _), *others = blobs
    return build_manifest(first, [layer for layer, _ in others], annotations), blobs


def _chart_yaml(package: bytes, file: str) -> bytes:
    """Return Chart.yaml in the top folder of a package."""
    with tarfile.open(fileobj=io.BytesIO(package), mode="r:gz") as archive:
        for member in archive:
            parts = member.name.removeprefix("./").split("/")
            if len(parts) == 2 and parts[1] == "Chart.yaml" and member.isfile():
                if member.size > MAX_CHART_YAML_BYTES:
                    break
                stream = archive.extractfile(member)
                return stream.read(MAX_CHART_YAML_BYTES) if stream else b""
    raise _invalid(file, "there is no Chart.yaml of up to 1 MiB in its top folder")


def _invalid(file: str, why: str) -> RegistryError:
    return RegistryError(
        f"{file} is not a packaged chart: {why}.",
        hint="Create it with `helm package` or `lapwing chart`.",
    )
