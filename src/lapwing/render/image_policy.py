"""Admission policies: a cluster runs only images of the stack's services that its key has signed.

They are for the administrator of a cluster, who applies them once: they outlive deployments, and a
stack must not be able to remove the policy. Third-party images (Envoy, databases) are not signed by
the team, so the policies name the images of services that have a source.

Sources: Kyverno's ClusterPolicy (kyverno.io/v1, verifyImages); policy-controller's
ClusterImagePolicy (policy.sigstore.dev/v1beta1). Neither asks a transparency log, in which nothing
was written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lapwing.errors import UsageError
from lapwing.render.kubernetes import emit
from lapwing.stack.image import service_image
from lapwing.stack.load import LoadedStack

SUFFIXES = (":*", "@*")
"""How an image is named: by tag (and digest), or by digest alone."""


def kyverno_policy(loaded: LoadedStack) -> str:
    """Render a ClusterPolicy of Kyverno for the namespace of an environment. Raises UsageError."""
    key, images = _key(loaded), [f"{i}{s}" for i in _images(loaded) for s in SUFFIXES]
    rule = {
        "name": "signed-by-the-team",
        "match": {"any": [{"resources": {"kinds": ["Pod"], "namespaces": [_namespace(loaded)]}}]},
        "verifyImages": [
            {
                "imageReferences": images,
                "failureAction": "Enforce",
                "attestors": [{"entries": [{"keys": _kyverno_key(key)}]}],
            }
        ],
    }
    # Only pods are checked and get digests: Argo CD would undo changes of their controllers.
    annotations = {"pod-policies.kyverno.io/autogen-controllers": "none"}
    return emit.document(
        {
            "apiVersion": "kyverno.io/v1",
            "kind": "ClusterPolicy",
            "metadata": {"name": _name(loaded), "annotations": annotations},
            "spec": {"background": False, "rules": [rule]},
        }
    )


def sigstore_policy(loaded: LoadedStack) -> str:
    """Render a ClusterImagePolicy of Sigstore's policy-controller. Raises UsageError."""
    images = [{"glob": f"{i}{s}"} for i in _images(loaded) for s in SUFFIXES]
    authority = {"name": "team", "key": {"data": _key(loaded), "hashAlgorithm": "sha256"}}
    return emit.document(
        {
            "apiVersion": "policy.sigstore.dev/v1beta1",
            "kind": "ClusterImagePolicy",
            "metadata": {"name": _name(loaded)},
            "spec": {"mode": "enforce", "images": images, "authorities": [authority]},
        }
    )


def _kyverno_key(key: str) -> dict[str, Any]:
    logs = {"rekor": {"url": "", "ignoreTlog": True}, "ctlog": {"ignoreSCT": True}}
    return {"publicKeys": key, "signatureAlgorithm": "sha256", **logs}


def _name(loaded: LoadedStack) -> str:
    return f"{_namespace(loaded)}-signed-images"


def _key(loaded: LoadedStack) -> str:
    signing = loaded.stack.signing
    if signing is None:
        raise UsageError(
            "The stack file has no public key.", hint="Set `signing: {key: ...}` in the stack file."
        )
    return signing.key


def _images(loaded: LoadedStack) -> Sequence[str]:
    """Return the names of the images that are built from a source."""
    registry, services = loaded.registry, loaded.stack.services
    if registry is None:
        raise UsageError(
            "The stack file has no registry.", hint="Set `registry: HOST/FOLDER` in it."
        )
    built = [name for name, service in services.items() if service.build or service.dockerfile]
    if not built:
        raise UsageError(
            "No service of this stack has a source.", hint="Set `build:` of a service."
        )
    return [service_image(registry, name).name for name in built]


def _namespace(loaded: LoadedStack) -> str:
    """Return the namespace of an environment on a cluster."""
    if loaded.settings.target != "kubernetes":
        raise UsageError(
            f"Environment {loaded.environment!r} is not on a cluster.",
            hint="Choose an environment with `target: kubernetes` by --env NAME.",
        )
    return f"{loaded.stack.stack}-{loaded.environment}"
