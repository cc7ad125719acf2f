"""Create and delete local clusters with kind or minikube, and load images into them.

The name of the context decides the tool and the cluster's name, because both tools derive one from
the other: kind's cluster `shop` has the context `kind-shop`, minikube's profile is its context.
Without a name it is `kind-<stack>` where kind is installed, else `minikube-<stack>` where minikube
is; an environment named `minikube` prefers that one.

Sources: kind's documentation, "Quick Start"; minikube's documentation, "minikube start" and
"minikube delete".
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lapwing.errors import ClusterError, ContextError, ToolMissingError
from lapwing.kubernetes import Report

Tool = Literal["kind", "minikube"]
INSTALL_HINTS = {
    "kind": "Install it from https://kind.sigs.k8s.io; it needs Docker or Podman.",
    "minikube": "Install it from https://minikube.sigs.k8s.io.",
}
CREATE_TIMEOUT = "300s"
"""How long kind waits for the control plane of a new cluster."""
OUTPUT_LINES = 12
LOCAL_REGISTRY = "localhost"
"""The registry in the names of images that are in no registry. Nothing is pulled from there."""


def image_name(repository: str, digest: str) -> str:
    """Return the name of an image in the nodes of a local cluster, which differs by its content.

    It is a tag, because the engine of minikube accepts no other name, and because containerd 2 does
    not start an image of kind that has a digest only: `kind load` adds the name
    `import-<date>@<digest>` to the first image of an archive, and the CRI plugin then looks the
    image up by `docker.io/library/import-...`, which does not exist. It prefers names with a tag.

    Sources: ctr's `images import --digests`, which kind calls; containerd 2.3, toContainerdImage.
    """
    return f"{repository}:{digest.replace(':', '-')}"


@dataclass(frozen=True, slots=True)
class LocalCluster:
    """A cluster of a tool: its `context` in the kubeconfig, and its `name` for the tool."""

    tool: Tool
    context: str
    name: str

    @property
    def create_command(self) -> list[str]:
        """The command that creates it; minikube's also starts a stopped one."""
        if self.tool == "kind":
            return ["kind", "create", "cluster", "--name", self.name, "--wait", CREATE_TIMEOUT]
        return ["minikube", "start", "--profile", self.name]

    def load_command(self, archive: Path) -> list[str]:
        """The command that loads the images of an archive into its nodes."""
        if self.tool == "kind":
            return ["kind", "load", "image-archive", str(archive), "--name", self.name]
        return ["minikube", "image", "load", str(archive), "--profile", self.name]

    @property
    def delete_command(self) -> list[str]:
        """The command that deletes it with everything in it."""
        if self.tool == "kind":
            return ["kind", "delete", "cluster", "--name", self.name]
        return ["minikube", "delete", "--profile", self.name]


def from_context(context: str) -> LocalCluster | None:
    """Return the local cluster that a context names; None for any other context."""
    if context.startswith("kind-") and context != "kind-":
        return LocalCluster("kind", context, context.removeprefix("kind-"))
    if context == "minikube" or context.startswith("minikube-"):
        return LocalCluster("minikube", context, context)
    return None


def choose(
    context: str | None, stack: str, environment: str, installed: Iterable[Tool]
) -> LocalCluster:
    """Choose the cluster that `--create` creates: by the context, else by the installed tools.

    Raises ContextError for a context of neither tool.
    """
    tools = set(installed)
    tool: Tool = "kind" if "kind" in tools or "minikube" not in tools else "minikube"
    if environment == "minikube":
        tool = "minikube"
    wanted = context if context is not None else f"{tool}-{stack}"
    found = from_context(wanted)
    if found is None:
        raise ContextError(
            f"Context {wanted!r} names no cluster that Lapwing can create.",
            hint="Name it `kind-NAME` for kind, `minikube` or `minikube-NAME` for minikube.",
        )
    return found


def installed_tools(environ: Mapping[str, str]) -> tuple[Tool, ...]:
    """Return the tools on the PATH."""
    tools: tuple[Tool, ...] = ("kind", "minikube")
    return tuple(t for t in tools if shutil.which(t, path=environ.get("PATH")))


def create(cluster: LocalCluster, environ: Mapping[str, str], report: Report) -> bool:
    """Create a cluster unless it exists; returns whether it was created or started.

    Raises ToolMissingError or ClusterError.
    """
    if cluster.tool == "kind" and cluster.name in _kind_clusters(environ):
        # The kubeconfig may have lost its context.
        _run(["kind", "export", "kubeconfig", "--name", cluster.name], environ, report)
        return False
    _run(cluster.create_command, environ, report)
    return True


def delete(cluster: LocalCluster, environ: Mapping[str, str], report: Report) -> None:
    """Delete a cluster with everything in it. Raises ToolMissingError or ClusterError."""
    _run(cluster.delete_command, environ, report)


def load(cluster: LocalCluster, archive: Path, environ: Mapping[str, str], report: Report) -> None:
    """Load the images of an archive. Raises ToolMissingError or ClusterError."""
    _run(cluster.load_command(archive), environ, report)


def _kind_clusters(environ: Mapping[str, str]) -> list[str]:
    # If there are none, kind says so on stderr.
    return _run(["kind", "get", "clusters"], environ, lambda _: None).split()


def _run(command: list[str], environ: Mapping[str, str], report: Report) -> str:
    """Run a tool, report each line of its output, and return the output."""
    program = shutil.which(command[0], path=environ.get("PATH"))
    if program is None:
        raise ToolMissingError(
            f"{command[0]} is not installed; it creates and deletes local clusters.",
            hint=f"{INSTALL_HINTS[command[0]]} Or name an existing cluster with `--context NAME`.",
        )
    lines: list[str] = []
    with subprocess.Popen(
        [program, *command[1:]],
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if command[1] != "get" else subprocess.DEVNULL,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if line.strip():
                report(f"{command[0]}: {line.strip()}")
    output = "".join(lines)
    if process.returncode != 0:
        said = [line.strip() for line in lines if line.strip()]
        raise ClusterError(
            f"`{' '.join(command)}` failed with status {process.returncode}.",
            detail="\n".join(said[-OUTPUT_LINES:]) or None,
            hint="Check that Docker or Podman is running, then run the command again.",
        )
    return output
