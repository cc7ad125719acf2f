"""Provenance of an image: from which source, base image and lock files it was built.

The document is an in-toto statement with the predicate of SLSA. Everything in it follows from the
image, so the same image has the same bytes: no time, no name of a machine, no run of CI.

Sources: in-toto attestation framework, Statement v1; SLSA provenance v1
(https://slsa.dev/provenance/v1). A builder is named by a URI: the packages' urn.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from lapwing import __version__
from lapwing.build.image.builder import ANNOTATION, Image
from lapwing.system.git import without_login

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:lapwing:image-build:v1"
BUILDER = "urn:lapwing:image-build"


def statement(name: str, digest: str, predicate_type: str, predicate: object) -> bytes:
    """Return an in-toto statement about the image `name` with a digest: the same bytes always."""
    algorithm, _, encoded = digest.partition(":")
    document = {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {algorithm: encoded}}],
        "predicateType": predicate_type,
        "predicate": predicate,
    }
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


def provenance(image: Image, source: str | None, files: Mapping[str, str]) -> dict[str, Any]:
    """Return the SLSA predicate of an image.

    `source` is the URL of the git repository, None if it has none; `files` are the digests of lock
    files by name.
    """
    platforms = [str(each.platform) for each in image.images]
    external = {"service": image.service, "platforms": platforms, **_source(source)}
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": external,
            "resolvedDependencies": [
                {**_source(source, "uri"), **_revision(image)},
                *_base(image),
                *({"name": n, "digest": _digest(d)} for n, d in sorted(files.items())),
            ],
        },
        "runDetails": {"builder": {"id": BUILDER, "version": {"lapwing": __version__}}},
    }


def source_uri(remote: str) -> str:
    """Return the URL of a git remote as SLSA writes it, without user and password."""
    if "://" not in remote and (short := re.fullmatch(r"(?:[^@/\s]+@)?([^:/\s]+):(.+)", remote)):
        remote = f"ssh://{short[1]}/{short[2].lstrip('/')}"
    return f"git+{without_login(remote)}"


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
