"""Order: from the files of a deployment to objects and the waves in which they come to be. Pure.

The files of the desired state are what is applied, for a new deployment and for one that is brought
back alike. One file is one concern, and concerns come one after the other: databases run before
jobs migrate them, jobs are done before services start, services run before the edge leads to them,
and jobs that run after services come last.

A service is started again when the value of one of its secrets changes: a digest of their versions
(keyed digests, which tell nothing of the value) stands in its pods. A Job is never run again for a
deployment that is brought back: what it did is done.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from lapwing.kubernetes.objects import Object, Reference
from lapwing.plan.model import Document
from lapwing.plan.names import FILES, NAME

SECRETS = "lapwing.dev/secrets"
"""The annotation of pods that changes with the values of their secrets."""
STARTED_AGAIN = ("Deployment", "Rollout", "StatefulSet")
_WAVES = {name: number for number, name in enumerate(FILES)}
AFTER = _WAVES["after.yaml"]
"""The wave of jobs that run after services, the last one."""


def read_manifests(files: Mapping[str, bytes]) -> list[tuple[int, dict[str, Any]]]:
    """The objects of YAML files, each with its wave, by what its file is called."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found = []
    for path, data in files.items():
        wave = _WAVES.get(path.rpartition("/")[2], len(_WAVES))
        found += [(wave, thing) for thing in yaml.load_all(data, loader) if thing]
    return sorted(found, key=lambda pair: pair[0])


def wave_numbers(found: Iterable[tuple[int, Object]]) -> dict[Reference, int]:
    """Which wave each object belongs to."""
    return {Reference.of(thing): wave for wave, thing in found}


def with_secret_versions(thing: Object, document: Document) -> Object:
    """The object with what its pods depend on beside its own words: the versions of the secrets of
    its service."""
    service = document.services.get(str((thing["metadata"].get("labels") or {}).get(NAME)))
    if service is None or not service.secrets or thing["kind"] not in STARTED_AGAIN:
        return thing
    template = thing["spec"]["template"]
    spelled = "\n".join(f"{n}={v}" for n, v in sorted(service.secrets.items()))
    digest = hashlib.sha256(spelled.encode()).hexdigest()[:16]
    metadata = template["metadata"]
    annotations = {**(metadata.get("annotations") or {}), SECRETS: digest}
    pods = {**template, "metadata": {**metadata, "annotations": annotations}}
    return {**thing, "spec": {**thing["spec"], "template": pods}}


def objects_to_apply(files: Mapping[str, bytes], document: Document) -> list[tuple[int, Object]]:
    """What to apply for a deployment: the objects of its files, with their waves."""
    is_brought_back = document.deployment.restores is not None
    return [
        (wave, with_secret_versions(thing, document))
        for wave, thing in read_manifests(files)
        if not (is_brought_back and thing["kind"] == "Job")
    ]
