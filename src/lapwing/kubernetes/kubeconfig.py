"""Kubeconfig: which cluster is meant, where it is and how to log in.

Reads the files that kubectl reads: those of KUBECONFIG, else `~/.kube/config`; the first file that
names a thing wins. A context is safe to change without asking when it is a local cluster of kind or
minikube; any other may be somebody's production.

Source: Kubernetes documentation, "Organizing Cluster ClusterAccess Using kubeconfig Files" and the
reference of `kubeconfig (v1)`.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lapwing.errors import ClusterUnreachableError, ContextError, Where

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class Exec:
    """A program that prints credentials (`users[].user.exec`)."""

    command: str
    args: tuple[str, ...]
    env: Mapping[str, str]
    version: str
    hint: str | None
    wants_cluster: bool


@dataclass(frozen=True, slots=True)
class ClusterAccess:
    """One context: a cluster and how to log in to it. Certificates and keys are PEM."""

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
    exec: Exec | None = field(default=None, repr=False)

    @property
    def local(self) -> bool:
        """Whether this is a cluster of kind or minikube on this machine."""
        return is_local(self.context, self.server)


def is_local(context: str, server: str) -> bool:
    """Whether a context is a cluster of kind or minikube, by its name, and so made to be thrown
    away. kind serves on loopback; minikube's virtual machines have private addresses. A name alone
    is not enough for an address elsewhere: anybody may call a context `kind-production`."""
    host = urlsplit(server).hostname or ""
    if context.startswith("kind-"):
        return host in LOOPBACK or host == "0.0.0.0"  # noqa: S104  (compared, not bound)
    if context == "minikube" or context.startswith("minikube-"):
        return host in LOOPBACK or host.startswith(("192.168.", "10.", "172."))
    return False


def read(paths: Iterable[Path], context: str | None = None) -> ClusterAccess:
    """The context that is named, or the current one.

    Raises ClusterUnreachableError if there is no kubeconfig, ContextError if it has no such
    context or cannot be understood.
    """
    files = [(path, _load(path)) for path in paths if path.is_file()]
    if not files:
        raise ClusterUnreachableError(
            "There is no cluster: no kubeconfig was found.",
            hint="Name one in KUBECONFIG; `lapwing up --create` makes one on this machine.",
        )
    wanted = context or next((c for _, d in files if (c := d.get("current-context"))), None)
    if not wanted:
        raise ContextError(
            "The kubeconfig has no current context.", hint="Name one with `--context NAME`."
        )
    _, entry = _find(files, "contexts", "context", wanted, contexts(files))
    place, cluster = _find(files, "clusters", "cluster", str(entry.get("cluster")), ())
    home, user = _find(files, "users", "user", str(entry.get("user")), ())
    try:
        return _access(wanted, entry, cluster, place.parent, user, home.parent)
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise ContextError(
            f"Context {wanted!r} cannot be used: {type(error).__name__}: {error}.",
            where=Where(place),
            hint="`kubectl config view` shows it as kubectl understands it.",
        ) from error


def contexts(files: Iterable[tuple[Path, Mapping[str, Any]]]) -> tuple[str, ...]:
    """The names of all contexts."""
    return tuple(str(c.get("name")) for _, data in files for c in data.get("contexts") or ())


def _load(path: Path) -> Mapping[str, Any]:
    import yaml

    try:
        data = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ContextError(
            f"The kubeconfig cannot be read: {type(error).__name__}.", where=Where(path)
        ) from error
    return data if isinstance(data, dict) else {}


def _find(
    files: list[tuple[Path, Mapping[str, Any]]],
    group: str,
    kind: str,
    name: str,
    known: tuple[str, ...],
) -> tuple[Path, Mapping[str, Any]]:
    for path, data in files:
        for entry in data.get(group) or ():
            if entry.get("name") == name:
                return path, entry.get(kind) or {}
    hint = f"There are: {', '.join(known)}." if known else None
    raise ContextError(f"The kubeconfig has no {kind} {name!r}.", hint=hint)


def _access(
    context: str,
    entry: Mapping[str, Any],
    cluster: Mapping[str, Any],
    beside: Path,
    user: Mapping[str, Any],
    home: Path,
) -> ClusterAccess:
    token_file = user.get("tokenFile")
    basic = (user["username"], user["password"]) if user.get("username") else None
    return ClusterAccess(
        context=context,
        server=str(cluster["server"]).rstrip("/"),
        namespace=entry.get("namespace") or "default",
        authority=_pem(cluster, "certificate-authority", beside),
        insecure=bool(cluster.get("insecure-skip-tls-verify")),
        server_name=cluster.get("tls-server-name"),
        proxy=cluster.get("proxy-url"),
        certificate=_pem(user, "client-certificate", home),
        key=_pem(user, "client-key", home),
        token=user.get("token"),
        token_file=home / token_file if token_file else None,
        basic=basic,
        exec=_exec(user["exec"]) if user.get("exec") else None,
    )


def _pem(entry: Mapping[str, Any], name: str, folder: Path) -> bytes | None:
    data = entry.get(f"{name}-data")
    if data:
        return base64.b64decode(data)
    path = entry.get(name)
    return (folder / path).read_bytes() if path else None


def _exec(entry: Mapping[str, Any]) -> Exec:
    return Exec(
        command=str(entry["command"]),
        args=tuple(str(a) for a in entry.get("args") or ()),
        env={str(e["name"]): str(e["value"]) for e in entry.get("env") or ()},
        version=str(entry.get("apiVersion", "client.authentication.k8s.io/v1")),
        hint=entry.get("installHint"),
        wants_cluster=bool(entry.get("provideClusterInfo")),
    )
