"""Admission policies: a cluster runs only images of the stack's services that are signed.

With a key, a signature of the image is required; keyless, a signed provenance, because that is what
both controllers verify in bundles (Kyverno: `SigstoreBundle`; policy-controller 0.13 and newer:
`signatureFormat: bundle`).

They are for the administrator of a cluster, who applies them once: they outlive deployments, and a
stack must not be able to remove the policy. Third-party images (Envoy, databases) are not signed by
the team, so the policies name the images of services that have a source.

Sources: Kyverno's ClusterPolicy (kyverno.io/v1, verifyImages); policy-controller's
ClusterImagePolicy (policy.sigstore.dev/v1beta1). With a key neither asks a transparency log, in
which nothing was written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lapwing.errors import UsageError
from lapwing.render.kubernetes import emit
from lapwing.stack.image import service_image
from lapwing.stack.load import LoadedStack
from lapwing.stack.signing import Signing

PROVENANCE = "https://slsa.dev/provenance/v1"
_FULCIO, _REKOR = "https://fulcio.sigstore.dev", "https://rekor.sigstore.dev"
SUFFIXES = (":*", "@*")
"""How an image is named: by tag (and digest), or by digest alone."""


def kyverno_policy(loaded: LoadedStack) -> str:
    """Render a ClusterPolicy of Kyverno for the namespace of an environment. Raises UsageError."""
    signing, images = _signing(loaded), [f"{i}{s}" for i in _images(loaded) for s in SUFFIXES]
    required: dict[str, Any]
    if signing.key is not None:
        required = {"attestors": [{"entries": [{"keys": _kyverno_key(signing.key)}]}]}
    else:
        entry = {"keyless": _identity(signing) | {"rekor": {"url": _REKOR}}}
        attestation = {"type": PROVENANCE, "attestors": [{"entries": [entry]}]}
        required = {"type": "SigstoreBundle", "attestations": [attestation]}
    rule = {
        "name": "signed-by-the-team",
        "match": {"any": [{"resources": {"kinds": ["Pod"], "namespaces": [_namespace(loaded)]}}]},
        "verifyImages": [
            {
                "imageReferences": images,
                "failureAction": "Enforce",
                **required,
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
    signing, authority = _signing(loaded), dict[str, Any](name="team")
    if signing.key is not None:
        authority["key"] = {"data": signing.key, "hashAlgorithm": "sha256"}
    else:
        authority |= {
            "signatureFormat": "bundle",
            "keyless": {"url": _FULCIO, "identities": [_identity(signing)]},
            "ctlog": {"url": _REKOR},
            "attestations": [{"name": "provenance", "predicateType": PROVENANCE}],
        }
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


def _signing(loaded: LoadedStack) -> Signing:
    signing = loaded.stack.signing
    if signing is None:
        raise UsageError(
            "The stack file has no public key and no identity.",
            hint="Set `signing: {key: ...}` or `signing: {keyless: ...}` in the stack file.",
        )
    return signing


def _identity(signing: Signing) -> dict[str, Any]:
    """Return the identity of keyless signatures, of Sigstore's public instance."""
    keyless = signing.keyless
    assert keyless is not None
    if keyless.trusted_root is not None:
        raise UsageError(
            "Policies for a private Sigstore instance are not supported.",
            hint="Remove `trusted_root` and `signing_config`, run the command, and add the "
            "instance to the policy: `rekor`, `ctlog` and `roots` for Kyverno, a TrustRoot for "
            "policy-controller.",
        )
    return {"issuer": keyless.issuer, "subject": keyless.identity}


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
