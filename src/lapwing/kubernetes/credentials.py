"""Authenticate to a cluster: the TLS context and the `Authorization` header.

Credentials come from the kubeconfig, from a token file that is rotated, or from a credential plugin
(cloud providers use those). They stay in memory: a client key is in a file, readable by its owner
only, while Python's ssl module loads it.

Source: Kubernetes documentation, "Authenticating", section "client-go credential plugins".
"""

from __future__ import annotations

import base64
import json
import ssl
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lapwing.errors import ClusterLoginError
from lapwing.kubernetes.kubeconfig import ClusterAccess, ExecPlugin
from lapwing.system import process

PLUGIN_TIMEOUT_S = 60.0
"""Seconds that a credential plugin may take; some open a browser."""


class Credentials:
    """The TLS context and the headers for one context of a kubeconfig."""

    def __init__(self, access: ClusterAccess, environ: Mapping[str, str]) -> None:
        """Take the context, and the environment that a credential plugin gets."""
        self._access = access
        self._environ = environ
        self._from_plugin: Mapping[str, Any] | None = None

    def __repr__(self) -> str:
        """Return the context's name: never a credential."""
        return f"Credentials({self._access.context!r})"

    def ssl_context(self) -> ssl.SSLContext:
        """Build the TLS context with authority and client certificate."""
        access = self._access
        cadata = None if access.authority is None else access.authority.decode()
        made = ssl.create_default_context(cadata=cadata)
        if access.insecure:
            made.check_hostname = False
            made.verify_mode = ssl.CERT_NONE
        certificate, key = access.certificate, access.key
        given = self._plugin_status()
        if given.get("clientCertificateData"):
            certificate = str(given["clientCertificateData"]).encode()
            key = str(given["clientKeyData"]).encode()
        if certificate and key:
            _load_client_certificate(made, certificate, key)
        return made

    def headers(self) -> dict[str, str]:
        """Return the `Authorization` header; empty if a client certificate authenticates."""
        access = self._access
        token = self._plugin_status().get("token") or access.token
        if access.token_file is not None:
            token = access.token_file.read_text().strip()
        if token:
            return {"authorization": f"Bearer {token}"}
        if access.basic is not None:
            pair = ":".join(access.basic).encode()
            return {"authorization": "Basic " + base64.b64encode(pair).decode()}
        return {}

    def invalidate(self) -> bool:
        """Drop credentials that were rejected; returns whether new ones can be obtained."""
        self._from_plugin = None
        return self._access.exec is not None or self._access.token_file is not None

    def _plugin_status(self) -> Mapping[str, Any]:
        if self._access.exec is None:
            return {}
        if self._from_plugin is None:
            self._from_plugin = _run_plugin(self._access.exec, self._access, self._environ)
        return self._from_plugin


def _load_client_certificate(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:  # 0700
        path = Path(folder) / "client.pem"
        path.touch(0o600)
        path.write_bytes(certificate + b"\n" + key)
        try:
            context.load_cert_chain(path)
        except ssl.SSLError as error:
            raise ClusterLoginError(
                "The client certificate of the kubeconfig is invalid.",
                hint="Get the cluster's kubeconfig again.",
            ) from error


def _run_plugin(
    plugin: ExecPlugin, access: ClusterAccess, environ: Mapping[str, str]
) -> Mapping[str, Any]:
    spec: dict[str, Any] = {"interactive": False}
    if plugin.wants_cluster:
        spec["cluster"] = {"server": access.server}
    request = {"apiVersion": plugin.version, "kind": "ExecCredential", "spec": spec}
    try:
        env = {**environ, **plugin.env, "KUBERNETES_EXEC_INFO": json.dumps(request)}
        done = process.run([plugin.command, *plugin.args], env, timeout=PLUGIN_TIMEOUT_S)
    except FileNotFoundError as error:
        raise ClusterLoginError(
            f"The credential plugin {plugin.command} of context {access.context!r} is not "
            "installed.",
            hint=plugin.hint,
        ) from error
    except TimeoutError as error:
        raise ClusterLoginError(
            f"The credential plugin {plugin.command} timed out after {PLUGIN_TIMEOUT_S:.0f} s."
        ) from error
    try:
        status: Mapping[str, Any] = json.loads(done.stdout)["status"]
    except (ValueError, KeyError, TypeError):
        raise ClusterLoginError(
            f"The credential plugin {plugin.command} printed no credentials "
            f"(exit status {done.status}).",
            detail=done.stderr[-1000:] or None,
            hint=plugin.hint,
        ) from None
    return status
