"""Provenance of an image: from which source, base image and lock files it was built.

It is the predicate of SLSA. Everything in it follows from the image, so the same image has the same
bytes: no time, no name of a machine, no run of CI.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lapwing.build.image.builder import ANNOTATION, Image
from lapwing.registry.attestations import provenance_predicate


def provenance(image: Image, source: str | None, files: Mapping[str, str]) -> dict[str, Any]:
    """Return the SLSA predicate of an image.

    `source` is the URL of the git repository, None if it has none; `files` are the digests of lock
    files by name.
    """
    platforms = [str(each.platform) for each in image.images]
    external = {"service": image.service, "platforms": platforms, **_source(source)}
    dependencies = [
        {**_source(source, "uri"), **_revision(image)},
        *_base(image),
        *({"name": n, "digest": _digest(d)} for n, d in sorted(files.items())),
    ]
    return provenance_predicate("image-build", external, dependencies)


def _source(uri: str | None, key: str = "source") -> dict[str, str]:
    return {key: uri} if uri else {}


def _revision(image: Image) -> dict[str, Any]:
    """Return the commit of the source; a source with uncommitted changes has none."""
    if image.is_dirty:
        return {"name": "source", "annotations": {"revision": image.revision}}
    annotations = image.images[0].manifest.annotations or {}
    return {"name": "source", "digest": {"gitCommit": annotations[f"{ANNOTATION}.revision"]}}


def _base(image: Image) -> list[dict[str, Any]]:
    reference = image.base.reference
    if reference is None:
        return []
    uri = f"oci://{reference.name}"
    return [{"name": image.base.name, "uri": uri, "digest": _digest(reference.wanted)}]


def _digest(digest: str) -> dict[str, str]:
    algorithm, _, encoded = digest.partition(":")
    return {algorithm: encoded}
