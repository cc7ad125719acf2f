"""Waves: the order in which the objects of a deployment are applied.

The files of the desired state are what is applied, for a new deployment and for a rollback alike.
One file is one concern, and each concern is one wave: databases are ready before jobs migrate
them, jobs complete before services start, services are ready before the edge routes to them, and
jobs that run after services come last. Objects without a file (a rendered directory) name their
wave in Argo CD's annotation, which has the same meaning here.

A service is restarted when the value of one of its secrets changes: its pods are annotated with a
digest of the secrets' versions (keyed digests, which reveal nothing of a value). A Job is not run
again by a rollback.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any

from lapwing.kubernetes.objects import Object, Reference, annotation, label
from lapwing.plan.model import Document
from lapwing.plan.names import FILES, NAME

SYNC_WAVE = "argocd.argoproj.io/sync-wave"
SECRETS = "lapwing.dev/secrets"
"""Annotation of pods that changes with the values of their secrets."""
RESTARTED_KINDS = ("Deployment", "Rollout", "StatefulSet")
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Rollout", "Job", "CronJob", "Application")
"""Kinds that come last in their wave: they refer to the rest of it, and Argo Rollouts calls a
Rollout invalid whose Services or AnalysisTemplates do not exist."""
CLUSTER_WIDE_SHARED = ("Namespace", "CustomResourceDefinition")
FIRST_WAVE = -1_000_000
"""The wave of namespaces and definitions: nothing else can be applied without them."""
_FILE_WAVES = {name: number for number, name in enumerate(FILES)}
AFTER = _FILE_WAVES["after.yaml"]
"""The wave of jobs that run after services, the last one."""


def wave_of(thing: Object) -> int:
    """Return the wave of an object by its annotation; 0 without one."""
    if thing["kind"] in CLUSTER_WIDE_SHARED:
        return FIRST_WAVE
    found = annotation(thing, SYNC_WAVE)
    return int(found) if re.fullmatch(r"-?\d+", found) else 0


def group_by_wave(
    things: Iterable[Object], key: Callable[[Object], int] = wave_of
) -> Iterator[list[Object]]:
    """Yield the objects of each wave, in the order in which waves are applied."""
    for _, wave in groupby(sorted(things, key=key), key=key):
        yield sorted(wave, key=lambda t: t["kind"] in WORKLOADS)


def read_manifests(files: Mapping[str, bytes]) -> list[tuple[int, dict[str, Any]]]:
    """Read the objects of YAML files, each with the wave of its file."""
    import yaml

    from lapwing.system.yaml_loader import LOADER

    found = []
    for path, data in files.items():
        wave = _FILE_WAVES.get(path.rpartition("/")[2], len(_FILE_WAVES))
        found += [(wave, thing) for thing in yaml.load_all(data, LOADER) if thing]
    return sorted(found, key=lambda pair: pair[0])


def wave_numbers(found: Iterable[tuple[int, Object]]) -> dict[Reference, int]:
    """Return the wave of each object."""
    return {Reference.of(thing): wave for wave, thing in found}


def with_secret_versions(thing: Object, document: Document) -> Object:
    """Return an object with the versions of its service's secrets in an annotation of its pods."""
    service = document.services.get(label(thing, NAME))
    if service is None or not service.secrets or thing["kind"] not in RESTARTED_KINDS:
        return thing
    template = thing["spec"]["template"]
    versions = "\n".join(f"{n}={v}" for n, v in sorted(service.secrets.items()))
    digest = hashlib.sha256(versions.encode()).hexdigest()[:16]
    metadata = template["metadata"]
    annotations = {**(metadata.get("annotations") or {}), SECRETS: digest}
    pods = {**template, "metadata": {**metadata, "annotations": annotations}}
    return {**thing, "spec": {**thing["spec"], "template": pods}}


def objects_to_apply(files: Mapping[str, bytes], document: Document) -> list[tuple[int, Object]]:
    """Return the objects that a deployment applies, with their waves."""
    is_rollback = document.deployment.restores is not None
    return [
        (wave, with_secret_versions(thing, document))
        for wave, thing in read_manifests(files)
        if not (is_rollback and thing["kind"] == "Job")
    ]
