"""A small Kubernetes API client: plain mappings in and out, API errors as `ClusterError`s.

An `ApiClient` talks to the cluster of one kubeconfig context. Objects are written by server-side
apply: the API server merges our fields with those of other field managers and records who owns
which, so a controller's fields (replicas under an autoscaler, the hash that Argo Rollouts adds to
a selector) stay as they are. Source: Kubernetes documentation, "Server-Side Apply" and
"Kubernetes API Concepts".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from lapwing.errors import (
    ClusterError,
    ClusterLoginError,
    ClusterUnreachableError,
    KindMissingError,
    QuotaError,
)
from lapwing.kubernetes.credentials import Credentials
from lapwing.kubernetes.kubeconfig import ClusterAccess
from lapwing.kubernetes.objects import Object, Reference

if TYPE_CHECKING:
    import httpx

FIELD_MANAGER = "lapwing"
"""Our name as the owner of fields."""
TIMEOUT = 30.0
"""Seconds that the API server may take for one answer."""
PAGE = 500
"""Objects asked for at a time."""

INSTALL = {
    "argoproj.io": "Argo Rollouts (and, for Application, Argo CD)",
    "external-secrets.io": "the External Secrets Operator",
    "gateway.networking.k8s.io": "the Gateway API's standard channel",
    "cert-manager.io": "cert-manager",
    "networking.gke.io": "Google Kubernetes Engine (it is part of the cluster there)",
    "cloud.google.com": "Google Kubernetes Engine (it is part of the cluster there)",
}
"""Who brings the kinds of an API group."""


class FieldConflictError(ClusterError):
    """Fields that we apply belong to another manager. `owners` maps the manager to its fields."""

    code = "field-conflict"

    def __init__(self, message: str, owners: Mapping[str, tuple[str, ...]]) -> None:
        super().__init__(message)
        self.owners = owners


class ApiClient:
    """A client of one cluster. Close it, or use it as a context."""

    def __init__(self, access: ClusterAccess, environ: Mapping[str, str]) -> None:
        self.access = access
        self.login = Credentials(access, environ)
        self._client: httpx.Client | None = None
        self._kinds: dict[str, dict[str, tuple[str, bool]]] = {}

    def __enter__(self) -> ApiClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def version(self) -> str:
        """The version of the API server, such as v1.34.4. Raises ClusterUnreachableError."""
        return str(self.call("GET", "/version")["gitVersion"])

    def get(self, reference: Reference) -> Object | None:
        """An object, None if there is none. Raises KindMissingError or ClusterError."""
        return self._found("GET", self.path(reference))

    def list(self, version: str, kind: str, namespace: str, labels: str = "") -> list[Object]:
        """The objects of a kind in a namespace (all of them, if it is empty) with these labels.

        Raises KindMissingError or ClusterError.
        """
        path = self.path(Reference(version, kind, namespace, ""))
        params = {"limit": str(PAGE), "labelSelector": labels}
        found: list[Object] = []
        while True:
            answer = self.call("GET", path, params=params)
            kinds = {"apiVersion": version, "kind": kind}
            found += [{**kinds, **item} for item in answer.get("items") or ()]
            more = answer["metadata"].get("continue")
            if not more:
                return found
            params = {**params, "continue": more}

    def apply(self, thing: Object, *, force: bool = False, dry_run: bool = False) -> Object:
        """Make an object what we say, where we say something; returns it as it is then.

        Raises FieldConflictError if others own fields of it, QuotaError, KindMissingError or
        ClusterError.
        """
        params = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
        if force:
            params["force"] = "true"
        if dry_run:
            params["dryRun"] = "All"
        return self.call(
            "PATCH",
            self.path(Reference.of(thing)),
            params=params,
            body=thing,
            content_type="application/apply-patch+yaml",
            what=f"{Reference.of(thing)}",
        )

    def create(self, thing: Object) -> Object | None:
        """Create an object; None if one of that name is there already. Raises ClusterError."""
        reference = Reference.of(thing)
        path = self.path(Reference(reference.version, reference.kind, reference.namespace, ""))
        try:
            params = {"fieldManager": FIELD_MANAGER}
            return self.call("POST", path, params=params, body=thing, what=f"{reference}")
        except ClusterError as error:
            if getattr(error, "reason", None) == "AlreadyExists":
                return None
            raise

    def patch(
        self, reference: Reference, change: object, *, subresource: str = "", kind: str = "merge"
    ) -> Object:
        """Change fields of an object by a merge patch or a JSON patch (`kind`: merge or json)."""
        path = self.path(reference) + (f"/{subresource}" if subresource else "")
        content_type = {
            "merge": "application/merge-patch+json",
            "json": "application/json-patch+json",
        }
        return self.call(
            "PATCH",
            path,
            params={"fieldManager": FIELD_MANAGER},
            body=change,
            content_type=content_type[kind],
            what=f"{reference}",
        )

    def delete(self, reference: Reference, *, uid: str | None = None) -> bool:
        """Delete an object and, in the background, what it owns; whether there was one. With `uid`
        only that very one."""
        body: dict[str, Any] = {"propagationPolicy": "Background"}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        return self._found("DELETE", self.path(reference), body=body) is not None

    def log(
        self, namespace: str, pod: str, container: str, *, lines: int, previous: bool = False
    ) -> str:
        """The end of what a container printed; empty if there is nothing to be had."""
        params = {"container": container, "tailLines": str(lines)}
        if previous:
            params["previous"] = "true"
        answer = self._send("GET", f"/api/v1/namespaces/{namespace}/pods/{pod}/log", params=params)
        return answer.text if answer.status_code == 200 else ""

    def stream(self, path: str, params: Mapping[str, str], what: str) -> Iterator[bytes]:
        """The body of an answer in pieces as they come, however long it takes; a connection that
        breaks ends it. Close it to hang up. Raises ClusterError and its kin in words."""
        import httpx

        for attempt in (1, 2):
            try:
                with self._http().stream(
                    "GET",
                    path,
                    params=params,
                    headers={"accept-encoding": "identity"},
                    timeout=httpx.Timeout(TIMEOUT, read=None),
                    extensions=self._extensions(),
                ) as answer:
                    if answer.status_code == 200:
                        yield from answer.iter_raw()
                        return
                    if answer.status_code != 401 or attempt == 2 or not self.login.forget():
                        answer.read()
                        raise api_error(answer.status_code, _status(answer), what)
            except (httpx.ReadError, httpx.RemoteProtocolError):
                return
            except httpx.TransportError as error:
                raise self._away(error) from error
            self.close()

    def path(self, reference: Reference) -> str:
        """The path of an object, or of its collection where it has no name."""
        plural, namespaced = self.kind(reference.version, reference.kind)
        root = "/apis" if "/" in reference.version else "/api"
        parts = [root, reference.version]
        if namespaced and reference.namespace:
            parts += ["namespaces", reference.namespace]
        parts.append(plural)
        if reference.name:
            parts.append(reference.name)
        return "/".join(parts)

    def kind(self, version: str, kind: str) -> tuple[str, bool]:
        """The plural of a kind and whether its objects are in namespaces, as the server tells.

        Raises KindMissingError.
        """
        if version not in self._kinds:
            root = "/apis" if "/" in version else "/api"
            found = self._found("GET", f"{root}/{version}") or {}
            self._kinds[version] = {
                r["kind"]: (r["name"], r["namespaced"])
                for r in found.get("resources") or ()
                if "/" not in r["name"]
            }
        known = self._kinds[version].get(kind)
        if known is None:
            del self._kinds[version]  # It may be installed while we wait.
            raise _kind_missing(version, kind)
        return known

    def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = "application/json",
        what: str = "",
    ) -> dict[str, Any]:
        """One request; returns the answer. Raises ClusterError and its kin in words."""
        answer = self._send(method, path, params=params, body=body, content_type=content_type)
        if answer.is_success:
            return _content(answer)
        raise api_error(answer.status_code, _status(answer), what or path)

    def _found(self, method: str, path: str, *, body: object = None) -> dict[str, Any] | None:
        answer = self._send(method, path, body=body)
        if answer.status_code == 404:
            return None
        if answer.is_success:
            return _content(answer)
        raise api_error(answer.status_code, _status(answer), path)

    def _send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = "application/json",
    ) -> httpx.Response:
        import httpx

        content = None if body is None else json.dumps(body).encode()
        headers = {"content-type": content_type} if content is not None else {}
        for attempt in (1, 2):
            try:
                answer = self._http().request(
                    method,
                    path,
                    params=params,
                    content=content,
                    headers=headers,
                    extensions=self._extensions(),
                )
            except httpx.TransportError as error:
                raise self._away(error) from error
            if answer.status_code != 401 or attempt == 2 or not self.login.forget():
                break
            self.close()
        return answer

    def _http(self) -> httpx.Client:
        if self._client is None:
            import httpx

            self._client = httpx.Client(
                base_url=self.access.server,
                verify=self.login.context(),
                headers={**self.login.headers(), "accept": "application/json"},
                proxy=self.access.proxy,
                timeout=TIMEOUT,
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
                trust_env=False,
            )
        return self._client

    def _extensions(self) -> dict[str, Any]:
        name = self.access.server_name
        return {"sni_hostname": name} if name else {}

    def _away(self, error: Exception) -> ClusterUnreachableError:
        hint = "Is it running, and is the network right? `--context NAME` names another."
        if self.access.local:
            hint = "Is it running? `lapwing up --create` makes one, or starts one of minikube."
        return ClusterUnreachableError(
            f"The cluster of context {self.access.context!r} does not answer at "
            f"{self.access.server} ({type(error).__name__}).",
            hint=hint,
        )


def api_error(code: int, status: Mapping[str, Any], what: str) -> ClusterError:
    """The error for what the API server answered instead of doing it."""
    message = str(status.get("message") or f"status {code}")
    reason = str(status.get("reason") or "")
    causes = (status.get("details") or {}).get("causes") or ()
    made: ClusterError
    if code == 401:
        made = ClusterLoginError("The cluster does not know who asks.", hint="Log in again.")
    elif code == 409 and any(c.get("reason") == "FieldManagerConflict" for c in causes):
        made = FieldConflictError(f"{what}: {message}", _owners(causes))
    elif code == 403 and ("exceeded quota" in message or "LimitRange" in message):
        made = quota_error(what, message)
    elif code == 403:
        made = ClusterLoginError(
            f"The cluster does not allow it: {message}.",
            hint="Ask for the right to do so, or use another login.",
        )
    elif code == 404 and "namespaces" in message:
        made = ClusterError(f"{what}: {message}.", hint="Is the namespace being deleted?")
    else:
        made = ClusterError(f"{what}: {message}.")
    made.reason = reason  # type: ignore[attr-defined]
    return made


def quota_error(what: str, message: str) -> QuotaError:
    """The error for a quota that is used up, in the words of the server."""
    found = re.search(r"(exceeded quota.*|.*LimitRange.*)", message)
    return QuotaError(
        f"{what}: {found.group(1) if found else message}.",
        hint="Ask for a larger quota, or lower `resources` and `replicas` in the stack file.",
    )


def _owners(causes: Any) -> dict[str, tuple[str, ...]]:
    owners: dict[str, list[str]] = {}
    for cause in causes:
        named = re.search(r'conflict with "([^"]+)"', str(cause.get("message")))
        owners.setdefault(named.group(1) if named else "unknown", []).append(
            str(cause.get("field", ""))
        )
    return {owner: tuple(fields) for owner, fields in owners.items()}


def _kind_missing(version: str, kind: str) -> KindMissingError:
    group = version.partition("/")[0] if "/" in version else ""
    source = INSTALL.get(group) or INSTALL.get(group.split(".", 1)[-1])
    hint = f"Install {source} in the cluster first." if source else None
    return KindMissingError(f"The cluster does not know {kind} ({version}).", hint=hint)


def _content(answer: httpx.Response) -> dict[str, Any]:
    found: dict[str, Any] = answer.json()
    return found


def _status(answer: httpx.Response) -> Mapping[str, Any]:
    try:
        found = answer.json()
    except ValueError:
        return {"message": answer.text.strip()[:500]}
    return found if isinstance(found, dict) else {}
