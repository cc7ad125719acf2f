"""Passwords that a chart generates once, and that nothing changes afterwards.

A template cannot do it: `randAlphaNum` gives another value at each rendering, and `lookup`, which
would find the old one, is empty under `helm template`, which Argo CD runs. So a Job generates them:
it sends a `create` for each Secret to the API server, which answers 409 if one exists already. Its
Role allows `create` and nothing else, so it can neither read nor overwrite a Secret, and a Secret
that exists before the installation is kept, too.

It is no hook: nothing waits for it but the kubelet, which starts a container when the Secrets that
it refers to exist. So a first installation cannot hang, and `helm install`, `helm upgrade` and Argo
CD all behave alike. The name of the Job follows its content; a new secret is a new Job.

No secret is in an argument of a process or in a log: values go from `/dev/urandom` through a pipe,
and curl reads the token from a file. Sources: Kubernetes documentation, "Using RBAC Authorization"
(`create` cannot be limited to names) and "Accessing the API from a Pod".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lapwing.plan.names import MANAGED_BY, PART_OF
from lapwing.render.kubernetes import pod
from lapwing.render.kubernetes.analysis import CURL, CURL_USER
from lapwing.render.kubernetes.objects import selector
from lapwing.render.kubernetes.setting import (
    MERGE,
    Digest,
    Extra,
    Joined,
    Scope,
    Setting,
    join,
    spelled,
)
from lapwing.system.package_data import read

FILE = "secret-maker.yaml"
API_PORTS = (443, 6443, 8443)
"""Ports of API servers: in clouds, in kind (kubeadm), in minikube. Network policies match this
port, not that of the Service in front of it."""
SIGNER = "alpine/openssl:3.5.0"
SCRIPT = read("render.helm", "scripts/make.sh")
"""4096 random bytes give about 990 letters and digits; if they are ever too few, `test` fails the
Job, which is retried."""
SIGN = read("render.helm", "scripts/sign.sh")


@dataclass(frozen=True, slots=True)
class Generated:
    """A Secret to generate: its name, and the length (up to 256) of the value of each key.

    Without keys it is a self-signed certificate, with the keys `tls.crt` and `tls.key`.
    """

    name: Joined
    keys: Mapping[str, int]

    @property
    def line(self) -> Joined:
        """The line that the script reads: `NAME KEY=LENGTH ...` or `NAME certificate`."""
        pairs = " ".join(f"{key}={length}" for key, length in self.keys.items())
        return join(self.name, f" {pairs or 'certificate'}\n")


@dataclass(frozen=True, slots=True)
class Generator:
    """What the Job depends on besides the Secrets.

    `host` is the host name of the certificate, `spec` and `metadata` are what all pods have.
    """

    part_of: str
    host: str
    spec: Extra
    metadata: Extra
    curl: str = CURL
    signer: str = SIGNER


def objects(made: Generator, wanted: Sequence[Generated]) -> list[dict[str, Any]]:
    """Build the Job that generates these Secrets, and what it needs; nothing if there are none."""
    if not wanted:
        return []
    listed = join(*(g.line for g in wanted))
    name = join(Scope.PREFIX, "-secret-maker")
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    has_certificate = any(not g.keys for g in wanted)
    data = {"list": listed, "make": SCRIPT} | ({"sign": SIGN} if has_certificate else {})
    part_of = made.part_of
    # Pods of a Job are immutable: any difference is a Job of another name.
    job = _job(made, name, name, signs=has_certificate)
    content = join(listed, SCRIPT, SIGN, spelled(job["template"]))
    by_content = join(Scope.PREFIX, "-secret-maker-", Digest(content))
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
        _object("v1", "ConfigMap", by_content, part_of, data=data),
        _object("networking.k8s.io/v1", "NetworkPolicy", name, part_of, spec=_policy()),
        _object(
            "batch/v1", "Job", by_content, part_of,
            spec=_job(made, name, by_content, signs=has_certificate),
        ),
    ]  # fmt: skip


def _labels(part_of: str) -> dict[str, Any]:
    return {**selector("secret-maker"), PART_OF: part_of, MANAGED_BY: Scope.MANAGER}


def _object(api: str, kind: str, name: Joined, part_of: str, **body: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": Scope.NAMESPACE, "labels": _labels(part_of)}
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **body}


def _policy() -> dict[str, Any]:
    """Allow connections to the API server, whose address no selector matches, and to DNS."""
    ports = [{"port": port, "protocol": "TCP"} for port in API_PORTS]
    names = [{"port": 53, "protocol": protocol} for protocol in ("UDP", "TCP")]
    return {
        "podSelector": {"matchLabels": selector("secret-maker")},
        "policyTypes": ["Ingress", "Egress"],
        "egress": [{"ports": ports}, {"ports": names}],
    }


def _job(made: Generator, account: Joined, config: Joined, *, signs: bool) -> dict[str, Any]:
    shared = '"labels":{"app.kubernetes.io/part-of":"' + made.part_of + '"}'
    make = _container(
        "make",
        Setting("secretMaker.image", made.curl, "The image of curl, for generated secrets."),
        [
            {"name": "API", "value": "https://kubernetes.default.svc"},
            {"name": "NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
            {"name": "LABELS", "value": shared},
        ],
    )
    sign = _container(
        "sign",
        Setting("secretMaker.signer", made.signer, "The image of openssl, for certificates."),
        [{"name": "HOST", "value": made.host}],
    )
    spec = {
        "serviceAccountName": account,
        "automountServiceAccountToken": True,
        "restartPolicy": "OnFailure",
        "securityContext": pod.security(CURL_USER, group=CURL_USER),
        **({"initContainers": [sign]} if signs else {}),
        "containers": [make],
        "volumes": [
            {"name": "list", "configMap": {"name": config}},
            {"name": "scratch", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        ],
        MERGE: made.spec,
    }  # fmt: skip
    return {
        "backoffLimit": 20,
        "template": {
            "metadata": {"labels": _labels(made.part_of), MERGE: made.metadata},
            "spec": spec,
        },
    }


def _container(name: str, image: Setting, env: list[dict[str, Any]]) -> dict[str, Any]:
    """Build a container that runs the script of its name."""
    return {
        "name": name,
        "image": image,
        "command": ["/bin/sh", f"/etc/secret-maker/{name}"],
        "env": env,
        "resources": {
            "requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"},
        },
        "securityContext": pod.CONTAINER,
        "volumeMounts": [
            {"name": "list", "mountPath": "/etc/secret-maker", "readOnly": True},
            {"name": "scratch", "mountPath": "/tmp"},  # noqa: S108 -- in the container
        ],
    }  # fmt: skip
