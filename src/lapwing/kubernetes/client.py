"""A small Kubernetes API client: plain mappings in and out, API errors as `ClusterError`s.

An `ApiClient` talks to the cluster of one kubeconfig context. Objects are written by server-side
apply: the API server merges our fields with those of other field managers and records who owns
which, so a controller's fields (replicas under an autoscaler, the hash that Argo Rollouts adds to
a selector) stay as they are. docs/decisions/0018 compares it with the published clients.

Source: Kubernetes documentation, "Server-Side Apply" and "Kubernetes API Concepts".
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from lapwing.errors import ClusterError, KindMissingError
from lapwing.kubernetes.api_errors import api_error, kind_missing, parse_status, unreachable
from lapwing.kubernetes.credentials import Credentials
from lapwing.kubernetes.kubeconfig import ClusterAccess
from lapwing.kubernetes.objects import Object, Reference

if TYPE_CHECKING:
    import httpx

FIELD_MANAGER = "lapwing"
REQUEST_TIMEOUT_S = 30.0
PAGE_SIZE = 500
"""Objects per page of a list."""
PATCH_TYPES = {
    "apply": "application/apply-patch+yaml",
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
}


class ApiClient:
    """A client of one cluster. Close it, or use it in a `with` statement."""

    def __init__(self, access: ClusterAccess, environ: Mapping[str, str]) -> None:
        """Connect on the first request; `environ` is for credential plugins."""
        self.access = access
        self.credentials = Credentials(access, environ)
        self._client: httpx.Client | None = None
        self._kinds: dict[str, dict[str, tuple[str, bool]]] = {}

    def __enter__(self) -> ApiClient:
        """Return the client itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def version(self) -> str:
        """Return the version of the API server, such as v1.34.4."""
        return str(self.call("GET", "/version")["gitVersion"])

    def get(self, reference: Reference) -> Object | None:
        """Return an object, or None if it does not exist."""
        return self._call_or_none("GET", self.path(reference))

    def list(
        self,
        version: str,
        kind: str,
        namespace: str,
        labels: str = "",
        *,
        missing_kind_ok: bool = False,
    ) -> list[Object]:
        """List the objects of a kind in a namespace (in all namespaces if it is empty).

        Raises KindMissingError unless `missing_kind_ok`, which makes the list empty then.
        """
        try:
            path = self.path(Reference(version, kind, namespace, ""))
        except KindMissingError:
            if missing_kind_ok:
                return []
            raise
        params = {"limit": str(PAGE_SIZE), "labelSelector": labels}
        found: list[Object] = []
        while True:
            page = self.call("GET", path, params=params)
            type_meta = {"apiVersion": version, "kind": kind}
            found += [{**type_meta, **item} for item in page.get("items") or ()]
            token = page["metadata"].get("continue")
            if not token:
                return found
            params = {**params, "continue": token}

    def apply(self, thing: Object, *, force: bool = False, dry_run: bool = False) -> Object:
        """Apply an object on the server's side; returns the merged object.

        Raises FieldConflictError if other managers own fields of it and `force` is not set.
        """
        params = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
        if force:
            params["force"] = "true"
        if dry_run:
            params["dryRun"] = "All"
        reference = Reference.of(thing)
        return self.call(
            "PATCH",
            self.path(reference),
            params=params,
            body=thing,
            content_type=PATCH_TYPES["apply"],
            what=f"{reference}",
        )

    def create(self, thing: Object) -> Object | None:
        """Create an object; returns None if one of that name exists."""
        reference = Reference.of(thing)
        path = self.path(Reference(reference.version, reference.kind, reference.namespace, ""))
        params = {"fieldManager": FIELD_MANAGER}
        try:
            return self.call("POST", path, params=params, body=thing, what=f"{reference}")
        except ClusterError as error:
            if error.reason == "AlreadyExists":
                return None
            raise

    def patch(
        self, reference: Reference, change: object, *, subresource: str = "", kind: str = "merge"
    ) -> Object:
        """Change fields of an object by a patch of `kind` merge or json."""
        return self.call(
            "PATCH",
            self.path(reference) + (f"/{subresource}" if subresource else ""),
            params={"fieldManager": FIELD_MANAGER},
            body=change,
            content_type=PATCH_TYPES[kind],
            what=f"{reference}",
        )

    def delete(self, reference: Reference, *, uid: str | None = None, orphan: bool = False) -> bool:
        """Delete an object and, in the background, its dependents; whether it existed.

        With `uid`, a later object of the same name is not deleted; with `orphan`, no dependent.
        """
        body: dict[str, Any] = {"propagationPolicy": "Orphan" if orphan else "Background"}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        return self._call_or_none("DELETE", self.path(reference), body=body) is not None

    def log(
        self, namespace: str, pod: str, container: str, *, lines: int, previous: bool = False
    ) -> str:
        """Return the last lines of a container's log; empty if there is none."""
        params = {"container": container, "tailLines": str(lines)}
        if previous:
            params["previous"] = "true"
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/log"
        response = self._send("GET", path, params=params)
        return response.text if response.status_code == 200 else ""

    def stream(self, path: str, params: Mapping[str, str], what: str) -> Iterator[bytes]:
        """Yield a response body piece by piece, without a time limit.

        A connection that breaks ends it. Raises ClusterError if the request is refused.
        """
        import httpx

        response = self._send(
            "GET",
            path,
            stream=True,
            params=params,
            headers={"accept-encoding": "identity"},
            timeout=httpx.Timeout(REQUEST_TIMEOUT_S, read=None),
        )
        with contextlib.closing(response):
            if response.status_code != 200:
                response.read()
                raise api_error(response.status_code, parse_status(response.text), what)
            try:
                yield from response.iter_raw()
            except (httpx.ReadError, httpx.RemoteProtocolError):
                return

    def path(self, reference: Reference) -> str:
        """Return the path of an object, or of its collection if the reference has no name."""
        plural, namespaced = self.kind(reference.version, reference.kind)
        parts = [_root(reference.version)]
        if namespaced and reference.namespace:
            parts += ["namespaces", reference.namespace]
        parts.append(plural)
        if reference.name:
            parts.append(reference.name)
        return "/".join(parts)

    def kind(self, version: str, kind: str) -> tuple[str, bool]:
        """Return the plural of a kind and whether it is namespaced, from API discovery.

        Raises KindMissingError.
        """
        if version not in self._kinds:
            found = self._call_or_none("GET", _root(version)) or {}
            self._kinds[version] = {
                r["kind"]: (r["name"], r["namespaced"])
                for r in found.get("resources") or ()
                if "/" not in r["name"]
            }
        known = self._kinds[version].get(kind)
        if known is None:
            del self._kinds[version]  # It may be installed later in this run.
            raise kind_missing(version, kind)
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
        """Send one request and return the JSON of its response. Raises ClusterError."""
        content = None if body is None else json.dumps(body).encode()
        headers = {"content-type": content_type} if content is not None else {}
        response = self._send(method, path, params=params, content=content, headers=headers)
        if not response.is_success:
            raise api_error(response.status_code, parse_status(response.text), what or path)
        found: dict[str, Any] = response.json()
        return found

    def _call_or_none(self, method: str, path: str, body: object = None) -> dict[str, Any] | None:
        try:
            return self.call(method, path, body=body)
        except ClusterError as error:
            if error.status == 404:
                return None
            raise

    def _send(
        self, method: str, path: str, *, stream: bool = False, **options: Any
    ) -> httpx.Response:
        """Send a request; after a 401, once more with renewed credentials."""
        import httpx

        server_name = self.access.server_name
        extensions = {"sni_hostname": server_name} if server_name else {}
        for attempt in (1, 2):
            client = self._http()
            request = client.build_request(method, path, extensions=extensions, **options)
            try:
                response = client.send(request, stream=stream)
            except httpx.TransportError as error:
                raise unreachable(self.access, error) from error
            if response.status_code != 401 or attempt == 2 or not self.credentials.invalidate():
                break
            response.close()
            self.close()
        return response

    def _http(self) -> httpx.Client:
        if self._client is None:
            import httpx

            self._client = httpx.Client(
                base_url=self.access.server,
                verify=self.credentials.ssl_context(),
                headers={**self.credentials.headers(), "accept": "application/json"},
                proxy=self.access.proxy,
                timeout=REQUEST_TIMEOUT_S,
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
                trust_env=False,
            )
        return self._client


def _root(version: str) -> str:
    return f"/apis/{version}" if "/" in version else f"/api/{version}"
