"""Kubeconfig files: which cluster a context names, where it is and how to authenticate.

Reads the files that kubectl reads: those of KUBECONFIG, else `~/.kube/config`; the first file that
defines a name wins. A context of a local cluster (kind, minikube) may be changed without asking;
any other may be a production cluster.

Source: Kubernetes documentation, "Organizing Cluster Access Using kubeconfig Files" and the
reference of `kubeconfig (v1)`.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lapwing.errors import ClusterUnreachableError, ContextError, Location

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class ExecPlugin:
    """A credential plugin: a program that prints credentials (`users[].user.exec`)."""

    command: str
    args: tuple[str, ...]
    env: Mapping[str, str]
    version: str
    hint: str | None
    wants_cluster: bool


@dataclass(frozen=True, slots=True)
class ClusterAccess:
    """One context: a cluster and how to authenticate to it. Certificates and keys are PEM."""

    context: str
    server: str
    namespace: str = "default"
    authority: bytes | None = None
    insecure: bool = False
    server_name: str | None = None
    proxy: str | None = None
    certificate: bytes | None = field(default=None, repr=False)
    key: bytes | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    token_file: Path | None = None
    basic: tuple[str, str] | None = field(default=None, repr=False)
    exec: ExecPlugin | None = field(default=None, repr=False)

    @property
    def local(self) -> bool:
        """Whether this is a kind or minikube cluster on this machine."""
        return is_local(self.context, self.server)


def is_local(context: str, server: str) -> bool:
    """Return whether a context is a disposable cluster of kind or minikube.

    kind serves on loopback; minikube's virtual machines have private addresses. The name alone is
    not enough for other addresses: anybody may call a context `kind-production`.
    """
    host = urlsplit(server).hostname or ""
    if context.startswith("kind-"):
        return host in LOOPBACK or host == "0.0.0.0"  # noqa: S104  (compared, not bound)
    if context == "minikube" or context.startswith("minikube-"):
        return host in LOOPBACK or host.startswith(("192.168.", "10.", "172."))
    return False


def read(paths: Iterable[Path], context: str | None = None) -> ClusterAccess:
    """Read the named context, or the current one.

    Raises ClusterUnreachableError if there is no kubeconfig, ContextError if it has no such
    context or is invalid.
    """
    files = [(path, _load(path)) for path in paths if path.is_file()]
    if not files:
        raise ClusterUnreachableError(
            "No kubeconfig file found.",
            hint="Set KUBECONFIG to one, or create a local cluster with `lapwing up -e NAME "
            "--create`.",
        )
    wanted = context or next((c for _, d in files if (c := d.get("current-context"))), None)
    if not wanted:
        raise ContextError(
            "The kubeconfig has no current context.", hint="Name one with `--context NAME`."
        )
    _, entry = _find(files, "contexts", "context", wanted)
    cluster_file, cluster = _find(files, "clusters", "cluster", str(entry.get("cluster")))
    user_file, user = _find(files, "users", "user", str(entry.get("user")))
    folder = user_file.parent
    try:
        token_file = user.get("tokenFile")
        return ClusterAccess(
            context=wanted,
            server=str(cluster["server"]).rstrip("/"),
            namespace=entry.get("namespace") or "default",
            authority=_pem(cluster, "certificate-authority", cluster_file.parent),
            insecure=bool(cluster.get("insecure-skip-tls-verify")),
            server_name=cluster.get("tls-server-name"),
            proxy=cluster.get("proxy-url"),
            certificate=_pem(user, "client-certificate", folder),
            key=_pem(user, "client-key", folder),
            token=user.get("token"),
            token_file=folder / token_file if token_file else None,
            basic=(user["username"], user["password"]) if user.get("username") else None,
            exec=_exec(user["exec"]) if user.get("exec") else None,
        )
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise ContextError(
            f"Context {wanted!r} is invalid: {type(error).__name__}: {error}.",
            where=Location(cluster_file),
            hint="`kubectl config view` shows how kubectl reads it.",
        ) from error


def _load(path: Path) -> Mapping[str, Any]:
    import yaml

    try:
        data = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ContextError(
            f"The kubeconfig cannot be read: {type(error).__name__}.", where=Location(path)
        ) from error
    return data if isinstance(data, dict) else {}


def _find(
    files: list[tuple[Path, Mapping[str, Any]]], group: str, kind: str, name: str
) -> tuple[Path, Mapping[str, Any]]:
    entries = [(path, entry) for path, data in files for entry in data.get(group) or ()]
    for path, entry in entries:
        if entry.get("name") == name:
            return path, entry.get(kind) or {}
    known = ", ".join(str(entry.get("name")) for _, entry in entries)
    hint = f"Known {group}: {known}." if known else None
    raise ContextError(f"The kubeconfig has no {kind} {name!r}.", hint=hint)


def _pem(entry: Mapping[str, Any], name: str, folder: Path) -> bytes | None:
    data = entry.get(f"{name}-data")
    if data:
        return base64.b64decode(data)
    path = entry.get(name)
    return (folder / path).read_bytes() if path else None


def _exec(entry: Mapping[str, Any]) -> ExecPlugin:
    return ExecPlugin(
        command=str(entry["command"]),
        args=tuple(str(a) for a in entry.get("args") or ()),
        env={str(e["name"]): str(e["value"]) for e in entry.get("env") or ()},
        version=str(entry.get("apiVersion", "client.authentication.k8s.io/v1")),
        hint=entry.get("installHint"),
        wants_cluster=bool(entry.get("provideClusterInfo")),
    )
