"""Logging in to a cluster: TLS, and the header that says who asks.

Credentials come from the kubeconfig, from a token file that is rotated, or from a program (cloud
providers do so). They are kept in memory: a client key is in a file for as long as Python's ssl
module needs to read it, and that file is for its owner only.

Source: Kubernetes documentation, "Authenticating", section "client-go credential plugins".
"""

from __future__ import annotations

import json
import ssl
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lapwing.errors import ClusterLoginError
from lapwing.kubernetes.kubeconfig import ClusterAccess, Exec

EXEC_TIMEOUT = 60.0
"""Seconds that a credential program may take; some open a browser."""


class Credentials:
    """Gives the TLS context and the headers for one context of a kubeconfig."""

    def __init__(self, access: ClusterAccess, environ: Mapping[str, str]) -> None:
        self._access = access
        self._environ = environ
        self._given: Mapping[str, Any] | None = None

    def __repr__(self) -> str:
        return f"Credentials({self._access.context!r})"

    def context(self) -> ssl.SSLContext:
        """What TLS trusts and shows. Raises ClusterLoginError."""
        access = self._access
        made = ssl.create_default_context()
        if access.authority is not None:
            made = ssl.create_default_context(cadata=access.authority.decode())
        if access.insecure:
            made.check_hostname = False
            made.verify_mode = ssl.CERT_NONE
        certificate, key = access.certificate, access.key
        given = self._from_program()
        if given.get("clientCertificateData"):
            certificate = str(given["clientCertificateData"]).encode()
            key = str(given["clientKeyData"]).encode()
        if certificate and key:
            _show(made, certificate, key)
        return made

    def headers(self) -> dict[str, str]:
        """The header that says who asks; empty where the certificate does."""
        import base64

        access = self._access
        token = self._from_program().get("token") or access.token
        if access.token_file is not None:
            token = access.token_file.read_text().strip()
        if token:
            return {"authorization": f"Bearer {token}"}
        if access.basic is not None:
            pair = ":".join(access.basic).encode()
            return {"authorization": "Basic " + base64.b64encode(pair).decode()}
        return {}

    def forget(self) -> bool:
        """Drop what can be had anew, after a refusal; whether there is anything to ask again."""
        self._given = None
        return self._access.exec is not None or self._access.token_file is not None

    def _from_program(self) -> Mapping[str, Any]:
        if self._access.exec is None:
            return {}
        if self._given is None:
            self._given = _run(self._access.exec, self._access, self._environ)
        return self._given


def _show(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:  # 0700
        path = Path(folder) / "client.pem"
        path.touch(0o600)
        path.write_bytes(certificate + b"\n" + key)
        try:
            context.load_cert_chain(path)
        except ssl.SSLError as error:
            raise ClusterLoginError(
                "The client certificate of the kubeconfig cannot be used.",
                hint="Get the cluster's kubeconfig again.",
            ) from error


def _run(program: Exec, access: ClusterAccess, environ: Mapping[str, str]) -> Mapping[str, Any]:
    spec: dict[str, Any] = {"interactive": False}
    if program.wants_cluster:
        spec["cluster"] = {"server": access.server}
    asked = {"apiVersion": program.version, "kind": "ExecCredential", "spec": spec}
    env = {**environ, **program.env, "KUBERNETES_EXEC_INFO": json.dumps(asked)}
    try:
        done = subprocess.run(
            [program.command, *program.args],
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=EXEC_TIMEOUT,
            check=False,
        )
    except FileNotFoundError as error:
        raise ClusterLoginError(
            f"Context {access.context!r} logs in with {program.command}, which is not installed.",
            hint=program.hint,
        ) from error
    except subprocess.TimeoutExpired as error:
        raise ClusterLoginError(
            f"{program.command} gave no credentials within {EXEC_TIMEOUT:.0f} s."
        ) from error
    try:
        status: Mapping[str, Any] = json.loads(done.stdout)["status"]
    except (ValueError, KeyError, TypeError):
        raise ClusterLoginError(
            f"{program.command} gave no credentials (exit status {done.returncode}).",
            detail=done.stderr.decode(errors="replace")[-1000:] or None,
            hint=program.hint,
        ) from None
    return status
