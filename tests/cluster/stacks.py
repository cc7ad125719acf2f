"""A stack in the test cluster, and the `lapwing` command in its folder."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lapwing.kubernetes import apply, wait
from lapwing.kubernetes.applyset import Scope
from lapwing.kubernetes.client import ApiClient
from lapwing.kubernetes.objects import Reference
from lapwing.kubernetes.wait import WaitLimits
from tests.cluster import objects
from tests.cluster.control_plane import Cluster
from tests.installation import LAPWING, free_port


class Stack:
    """A stack in the cluster, and the command in its folder."""

    def __init__(self, api: ApiClient, cluster: Cluster, scope: Scope, folder: Path) -> None:
        self.api, self.cluster, self.folder = api, cluster, folder
        self.scope = Scope(scope.stack, "staging", f"{scope.stack}-staging")
        self.environ = {
            "PATH": "/usr/bin:/bin",
            "LAPWING_HOME": str(folder / "home"),
            "LAPWING_PORT": str(free_port()),
            "KUBECONFIG": str(cluster.kubeconfig),
        }
        (folder / "lapwing.yaml").write_text(
            f"stack: {scope.stack}\n"
            "services: {api: {image: 'shop/api:v1', route: /}}\n"
            "environments: {staging: {target: kubernetes, domain: shop.example}}\n"
        )

    def put(self, *things: dict[str, Any], ready: bool = True) -> None:
        def until(references: Sequence[Reference]) -> None:
            if ready:
                wait.wait_until_ready(self.api, references, limits=WaitLimits(180.0, 2.0))

        everything = [objects.namespace(self.scope), *things]
        apply.apply_objects(self.api, self.scope, everything, commit="c1", wait=until)

    def pods(self, name: str = "api") -> list[dict[str, Any]]:
        label = f"app.kubernetes.io/name={name}"
        return [dict(p) for p in self.api.list("v1", "Pod", self.scope.namespace, label)]

    def command(self, *words: str) -> list[str]:
        return [str(LAPWING), "-C", str(self.folder), *words, "-e", "staging"]

    @property
    def port(self) -> int:
        """The port that the command takes on this machine."""
        return int(self.environ["LAPWING_PORT"])

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words), env=self.environ, capture_output=True, text=True, check=False
        )
