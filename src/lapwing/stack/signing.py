"""How images, charts and mirrored images are signed: by a key, or by the identity of a CI job."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from lapwing.stack.fields import NonEmpty, StrictModel


class Keyless(StrictModel):
    """Keyless signatures: Sigstore issues a certificate for the identity of a CI job.

    A push requires the extra `lapwing-deploy[keyless]` and a job with an identity token. Signatures
    of Sigstore's public instance are in a public log, with the identity and the digest.
    """

    identity: NonEmpty = Field(
        description="The identity in the certificates: the workflow with the branch, or an e-mail "
        "address.",
        examples=["https://github.com/team/shop/.github/workflows/lapwing.yaml@refs/heads/main"],
    )
    issuer: str = Field(
        pattern=r"^https?://[^\s/]+\S*$",
        description="The issuer of the job's identity token.",
        examples=["https://token.actions.githubusercontent.com"],
    )
    trusted_root: NonEmpty | None = Field(
        None,
        description="The file with the trusted root of a private Sigstore instance "
        "(`trusted_root.json`). Default: the public instance.",
    )
    signing_config: NonEmpty | None = Field(
        None,
        description="The file with the addresses of its services (`signing_config.v0.2.json`).",
    )

    @model_validator(mode="after")
    def _check_issuer(self) -> Self:
        if self.issuer.startswith("http:") and self.trusted_root is None:
            raise ValueError("`issuer` has to begin with https:// on Sigstore's public instance")
        return self


class Signing(StrictModel):
    """Signatures of images, with a key or keyless.

    With `signing`, every push requires a signature: `lapwing image build --push`, `up`, `deploy`,
    `ship`, and the charts and mirrored images of `release`.
    """

    key: str | None = Field(
        None,
        pattern=r"^-----BEGIN PUBLIC KEY-----\n[A-Za-z0-9+/=\n]+-----END PUBLIC KEY-----\n?$",
        description="The public key (ECDSA P-256, PEM). A push requires the private key.",
    )
    keyless: Keyless | None = Field(
        None, description="The identity whose signatures are valid, instead of a key."
    )
