"""Stacks of the golden cases of `lapwing render`, as they are in each cluster."""

from __future__ import annotations

import yaml

from lapwing.render.kubernetes import render
from lapwing.render.kubernetes.objects import ClusterEnvironment
from lapwing.stack.load import load
from tests.unit.render.stacks import GOLDEN

CLUSTERS = GOLDEN / "kubernetes"


def cases() -> list[tuple[str, str]]:
    """Each stack with each environment of it that is a cluster."""
    found = []
    for folder in sorted(p for p in CLUSTERS.iterdir() if p.is_dir()):
        stack = yaml.safe_load((folder / "lapwing.yaml").read_text())
        found += [(folder.name, e) for e, s in stack["environments"].items() if is_cluster(s)]
    return found


def is_cluster(environment: dict[str, str]) -> bool:
    """Whether an environment, as it is written, is one."""
    return environment["target"] == "kubernetes"


def cluster_environment(case: str, environment: str) -> ClusterEnvironment:
    """A stack of the golden cases in one environment."""
    loaded = load(CLUSTERS / case / "lapwing.yaml", environment, folders=False)
    return render.prepare(loaded)
