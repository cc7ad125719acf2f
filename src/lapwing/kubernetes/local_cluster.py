"""Local clusters: made and removed by the tool that people know them by, kind or minikube.

Which tool, and what the cluster is called, follows from the name of the context, because both tools
derive one from the other: kind's cluster `shop` is the context `kind-shop`, minikube's profile is
its context. Without a name it is `kind-<stack>` where kind is installed, else `minikube-<stack>`
where minikube is; an environment that is called `minikube` asks for that one first. That is `plan`,
and pure; the rest runs the tool.

Sources: kind's documents, "Quick Start"; minikube's documents, "minikube start" and "minikube
delete".
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from lapwing.errors import ClusterError, ContextError, ToolMissingError

Tell = Callable[[str], None]
Tool = Literal["kind", "minikube"]
WHERE = {
    "kind": "https://kind.sigs.k8s.io has it, for Docker or Podman.",
    "minikube": "https://minikube.sigs.k8s.io has it.",
}
STARTS = "300s"
"""How long kind waits for the control plane of a new cluster."""


@dataclass(frozen=True, slots=True)
class LocalCluster:
    """A cluster of a tool: its `context` in the kubeconfig, and its `name` for the tool."""

    tool: Tool
    context: str
    name: str

    @property
    def create_command(self) -> list[str]:
        """The command that makes it; minikube's also starts one that is stopped."""
        if self.tool == "kind":
            return ["kind", "create", "cluster", "--name", self.name, "--wait", STARTS]
        return ["minikube", "start", "--profile", self.name]

    @property
    def delete_command(self) -> list[str]:
        """The command that removes it with all that is in it."""
        if self.tool == "kind":
            return ["kind", "delete", "cluster", "--name", self.name]
        return ["minikube", "delete", "--profile", self.name]


def from_context(context: str) -> LocalCluster | None:
    """The local cluster that a context is by its name; None for any other context."""
    if context.startswith("kind-") and context != "kind-":
        return LocalCluster("kind", context, context.removeprefix("kind-"))
    if context == "minikube" or context.startswith("minikube-"):
        return LocalCluster("minikube", context, context)
    return None


def choose(
    context: str | None, stack: str, environment: str, there: Iterable[Tool]
) -> LocalCluster:
    """Which cluster `--create` makes: by the context that is named, else by the tools that are
    `there`. Raises ContextError for a context of neither tool."""
    if context is not None:
        found = from_context(context)
        if found is None:
            raise ContextError(
                f"Context {context!r} names no cluster that Lapwing can make.",
                hint="A cluster of kind is called `kind-NAME`, one of minikube `minikube` or "
                "`minikube-NAME`.",
            )
        return found
    tools = set(there)
    tool: Tool = "kind" if "kind" in tools or "minikube" not in tools else "minikube"
    if environment == "minikube":
        tool = "minikube"
    made = from_context(f"{tool}-{stack}")
    assert made is not None
    return made


def installed_tools(environ: Mapping[str, str]) -> tuple[Tool, ...]:
    """The tools that are on the PATH."""
    tools: tuple[Tool, ...] = ("kind", "minikube")
    return tuple(t for t in tools if shutil.which(t, path=environ.get("PATH")))


def create(cluster: LocalCluster, environ: Mapping[str, str], tell: Tell) -> bool:
    """Make the cluster, unless there is one of that name; whether it was made (or started) now.

    Raises ToolMissingError or ClusterError.
    """
    if cluster.tool == "kind" and cluster.name in _names(environ):
        # It is there; the kubeconfig may have lost it.
        _run(["kind", "export", "kubeconfig", "--name", cluster.name], environ, tell)
        return False
    _run(cluster.create_command, environ, tell)
    return True


def delete(cluster: LocalCluster, environ: Mapping[str, str], tell: Tell) -> None:
    """Remove the cluster with all that is in it. Raises ToolMissingError or ClusterError."""
    _run(cluster.delete_command, environ, tell)


def _names(environ: Mapping[str, str]) -> list[str]:
    """The clusters of kind. It says on stderr that there are none."""
    return _run(["kind", "get", "clusters"], environ, lambda _: None).split()


def _run(command: list[str], environ: Mapping[str, str], tell: Tell) -> str:
    """Run a tool and tell what it says as it says it; returns its standard output."""
    program = shutil.which(command[0], path=environ.get("PATH"))
    if program is None:
        raise ToolMissingError(
            f"{command[0]} is not installed; it makes and removes local clusters.",
            hint=f"{WHERE[command[0]]} Or name a cluster that is there with `--context NAME`.",
        )
    said: list[str] = []
    printed: list[str] = []
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
            printed.append(line)
            text = line.strip()
            if text:
                said.append(text)
                tell(f"{command[0]}: {text}")
    if process.returncode != 0:
        raise ClusterError(
            f"`{' '.join(command)}` failed with status {process.returncode}.",
            detail="\n".join(said[-12:]) or None,
            hint="Is Docker (or Podman) running? Run it again when what it says is mended.",
        )
    return "".join(printed)
