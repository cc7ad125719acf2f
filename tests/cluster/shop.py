"""A stack of a test's own, and the command as people call it, against a control plane."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.cluster.control_plane import Cluster
from tests.installation import GIT, LAPWING

STACK = """
stack: {name}
services:
  api:
    image: "shop/api:{tag}"
    command: serve
    route: /
    health: /healthz
    user: 1000
    replicas: 2
    needs: [cache]
    secrets: [TOKEN, {{name: KEY, generate: 32}}]
    env: {{COLOR: {color}}}
  migrate: {{kind: job, image: "shop/api:{tag}", command: migrate, user: 1000, needs: [cache]}}
{more}
resources:
  cache: {{kind: redis, version: "7"}}
environments:
  kind: {{target: kubernetes, domain: localhost{said}}}
"""
WORK = "  work: {image: 'shop/work:v1', command: work, user: 1000}"


class Shop:
    """`folder` has the stack file, `home` the state. The namespace is `<name>-kind`."""

    def __init__(self, cluster: Cluster, folder: Path, name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.namespace = f"{name}-kind"
        self.folder = folder / "stack"
        self.folder.mkdir()
        self.home = folder / "home"
        self.environ = {
            **{k: v for k, v in os.environ.items() if not k.startswith("LAPWING_")},
            **GIT,
            "LAPWING_HOME": str(self.home),
            "LAPWING_ACTOR": "tester",
            "NO_COLOR": "1",
            "HOME": str(folder),
            "KUBECONFIG": str(cluster.kubeconfig),
        }

    def write(self, tag: str = "v1", color: str = "red", more: str = WORK, said: str = "") -> None:
        """Write the stack file."""
        text = STACK.format(name=self.name, tag=tag, color=color, more=more, said=said)
        (self.folder / "lapwing.yaml").write_text(text)

    def secret(self, value: str, name: str = "TOKEN") -> None:
        """Set a secret as people do."""
        command = [str(LAPWING), "secret", "set", name, "-e", "kind", "-C", str(self.folder)]
        subprocess.run(command, env=self.environ, input=value.encode(), check=True)

    def start(self, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        """Begin a command, with pipes."""
        return subprocess.Popen(
            [str(LAPWING), *arguments, "-e", "kind", "-C", str(self.folder)],
            env={**self.environ, **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def call(self, *arguments: str, **environ: str) -> tuple[int, str, str]:
        """Run a command; returns its exit status, its answer and its talk."""
        with self.start(*arguments, **environ) as process:
            try:
                out, err = process.communicate(timeout=500)
            finally:
                process.kill()
        return process.returncode, out, err

    def run(self, *arguments: str) -> str:
        """Run a command that has to succeed; returns what it says, the answer first."""
        status, out, err = self.call(*arguments)
        assert status == 0, f"lapwing {arguments}: {status}\n{out}\n{err}"
        return out + err

    def json(self, *arguments: str, status: int = 0) -> Any:
        """What a command answers to programs."""
        found, out, err = self.call(*arguments, "--output", "json")
        assert found == status, f"lapwing {arguments}: {found}\n{out}\n{err}"
        return json.loads(out)

    def outcomes(self) -> list[tuple[str, str]]:
        """Kind and outcome of each deployment, newest first."""
        return [(e["kind"], e["outcome"]) for e in self.json("history")]

    def get(self, path: str) -> Any:
        """An object of the namespace by its path below it, such as `secrets/shop-cache`, as an
        administrator sees it; None if it is not there. A group is before a colon."""
        group, _, rest = path.rpartition(":")
        root = f"/apis/{group}" if group else "/api/v1"
        return self.cluster.call("GET", f"{root}/namespaces/{self.namespace}/{rest}")

    def deployment(self, part: str) -> Any:
        """The Deployment of a service."""
        return self.get(f"apps/v1:deployments/{self.name}-{part}")

    def secrets(self) -> dict[str, Mapping[str, str]]:
        """The data of every Secret of the namespace."""
        found = self.get("secrets")["items"]
        return {s["metadata"]["name"].removeprefix(f"{self.name}-"): s["data"] for s in found}


def volumes(cluster: Cluster, count: int = 4) -> None:
    """Add volumes for the claims of databases: nothing makes them, and other tests keep theirs."""
    for _ in range(count):
        volume = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"generateName": "volume-"},
            "spec": {
                "capacity": {"storage": "1Ti"},
                "accessModes": ["ReadWriteOnce"],
                "hostPath": {"path": "/nowhere"},
            },
        }
        cluster.call("POST", "/api/v1/persistentvolumes", volume)


def program(folder: Path, name: str, script: str) -> None:
    """A program of that name that is a Python script; `folder` goes on the PATH."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!{sys.executable}\n{script}")
    path.chmod(0o755)
