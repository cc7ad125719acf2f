"""Passwords that a chart makes once, and that nothing changes afterwards.

A template cannot do it: `randAlphaNum` gives another value at each rendering, and `lookup`, which
would find the old one, is empty under `helm template`, which is what Argo CD runs. So a Job makes
them: it sends a `create` for each Secret to the API server, which answers 409 where there is one
already. Its Role allows `create` and nothing else, so it can neither read nor overwrite a Secret,
and a Secret that somebody made before the installation is kept, too.

It is no hook: nothing waits for it but the kubelet, which starts a container when the Secrets that
it names are there. So a first installation cannot hang, and `helm install`, `helm upgrade` and Argo
CD all do the same. The Job's name follows what it makes; a new secret is a new Job.

Nothing secret is on a command line or in a log: values go from `/dev/urandom` through a pipe, and
the token is read by curl from a file. Sources: Kubernetes' documents, "Using RBAC Authorization"
(`create` cannot be limited to names) and "Accessing the API from a Pod".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lapwing.render.kubernetes.setting import Digest, Joined, Scope, Setting, join

FILE = "secret-maker.yaml"
PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
IMAGE = "curlimages/curl:8.11.1"
USER = 100
"""The numeric user of that image."""
SCRIPT = f"""set -eu
umask 077
account={PATH}
printf 'Authorization: Bearer %s' "$(cat "$account/token")" > /tmp/header
make() {{
  value=$(head -c 512 /dev/urandom | LC_ALL=C tr -dc 'A-Za-z0-9' | head -c "$3")
  test "${{#value}}" -eq "$3"
  status=$(printf '{{"apiVersion":"v1","kind":"Secret","metadata":{{"name":"%s",%s}},%s}}' \\
      "$1" "$LABELS" "\\"stringData\\":{{\\"$2\\":\\"$value\\"}}" |
    curl --silent --show-error --cacert "$account/ca.crt" --header @/tmp/header \\
      --header 'Content-Type: application/json' --data-binary @- --output /dev/null \\
      --retry 10 --retry-connrefused --max-time 30 --write-out '%{{http_code}}' \\
      "$API/api/v1/namespaces/$NAMESPACE/secrets")
  case "$status" in
    201) echo "made $1" ;;
    409) echo "kept $1" ;;
    *) echo "the API server answered $status for $1" >&2; return 1 ;;
  esac
}}
while read -r name key length; do
  make "$name" "$key" "$length"
done < /etc/secret-maker/list
"""
"""`head -c 512` gives about 124 usable characters at the least that was ever likely; `test` stops
the Job, which tries again, should it be fewer than asked for."""


@dataclass(frozen=True, slots=True)
class Generated:
    """A Secret to make: the end of its name, its key, the characters of its value (to 64)."""

    end: str
    key: str
    length: int


def objects(part_of: str, wanted: Sequence[Generated]) -> list[dict[str, Any]]:
    """The Job that makes these Secrets, and what it needs; nothing where there are none."""
    if not wanted:
        return []
    listed = join(*(p for g in wanted for p in (Scope.PREFIX, f"{g.end} {g.key} {g.length}\n")))
    script = Joined((SCRIPT,))
    name = join(Scope.PREFIX, "-secret-maker")
    by_content = join(Scope.PREFIX, "-secret-maker-", Digest(listed))
    role = {
        "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name,
    }  # fmt: skip
    return [
        _object("v1", "ServiceAccount", name, part_of, automountServiceAccountToken=False),
        _object(
            "rbac.authorization.k8s.io/v1", "Role", name, part_of,
            rules=[{"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]}],
        ),
        _object(
            "rbac.authorization.k8s.io/v1", "RoleBinding", name, part_of, roleRef=role,
            subjects=[{"kind": "ServiceAccount", "name": name, "namespace": Scope.NAMESPACE}],
        ),
        _object("v1", "ConfigMap", by_content, part_of, data={"list": listed, "make": script}),
        _object("networking.k8s.io/v1", "NetworkPolicy", name, part_of, spec=_edges()),
        _object("batch/v1", "Job", by_content, part_of, spec=_job(part_of, name, by_content)),
    ]  # fmt: skip


def _labels(part_of: str) -> dict[str, Any]:
    return {
        "app.kubernetes.io/name": "secret-maker",
        "app.kubernetes.io/instance": Scope.PREFIX,
        "app.kubernetes.io/part-of": part_of,
        "app.kubernetes.io/managed-by": Scope.MANAGER,
    }


def _selected() -> dict[str, Any]:
    return {"app.kubernetes.io/name": "secret-maker", "app.kubernetes.io/instance": Scope.PREFIX}


def _object(api: str, kind: str, name: Joined, part_of: str, **body: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": Scope.NAMESPACE, "labels": _labels(part_of)}
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **body}


def _edges() -> dict[str, Any]:
    """The API server, whose address no selector knows, and the names of the cluster."""
    ports = [{"port": port, "protocol": "TCP"} for port in (443, 6443)]
    names = [{"port": 53, "protocol": protocol} for protocol in ("UDP", "TCP")]
    return {
        "podSelector": {"matchLabels": _selected()},
        "policyTypes": ["Ingress", "Egress"],
        "egress": [{"ports": ports}, {"ports": names}],
    }


def _job(part_of: str, account: Joined, config: Joined) -> dict[str, Any]:
    shared = '"labels":{"app.kubernetes.io/part-of":"' + part_of + '"}'
    container = {
        "name": "make",
        "image": Setting("secretMaker.image", IMAGE, "What makes the secrets: curl and a shell."),
        "command": ["/bin/sh", "/etc/secret-maker/make"],
        "env": [
            {"name": "API", "value": "https://kubernetes.default.svc"},
            {"name": "NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
            {"name": "LABELS", "value": shared},
        ],
        "resources": {
            "requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "list", "mountPath": "/etc/secret-maker", "readOnly": True},
            {"name": "scratch", "mountPath": "/tmp"},  # noqa: S108
        ],
    }  # fmt: skip
    pod = {
        "serviceAccountName": account,
        "automountServiceAccountToken": True,
        "restartPolicy": "OnFailure",
        "securityContext": {
            "runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": "list", "configMap": {"name": config}},
            {"name": "scratch", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        ],
    }  # fmt: skip
    return {
        "backoffLimit": 20,
        "template": {"metadata": {"labels": _labels(part_of)}, "spec": pod},
    }
