"""Keyless signatures: by the identity of a CI job, for which Sigstore issues a certificate.

    identity token of the job -> certificate (Fulcio) -> signature -> timestamp and log (Rekor)

The certificate is valid for some minutes, and its private key exists only in memory. The timestamp
proves that the signature is of that time, the log makes every use of the identity visible. All of
it is in the bundle, so verification needs only the trusted root: that of Sigstore's public
instance, which is fetched by TUF, or a file. The library `sigstore` does each step; it is imported
only here, and only for a stack with `signing: {keyless: ...}`.

Sources: Sigstore's client specification; Fulcio's docs/oidc.md (identities of issuers).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lapwing.errors import KeylessError, causes
from lapwing.registry.signature import STATEMENT_TYPE, Verifier, parse_statement

if TYPE_CHECKING:
    from sigstore.models import Bundle, ClientTrustConfig
    from sigstore.verify import Verifier as BundleVerifier

_PERMISSIONS = (
    "Push from a CI job with an identity token: on GitHub with `permissions: {id-token: write}`, "
    "on GitLab with `id_tokens: {SIGSTORE_ID_TOKEN: {aud: sigstore}}`."
)


@dataclass(frozen=True, slots=True)
class Identity:
    """An identity whose signatures are valid, and the issuer of its tokens.

    `trusted_root` is the file of a private Sigstore instance, None for the public one. Raises
    KeylessError if the library is not installed.
    """

    name: str
    issuer: str
    trusted_root: Path | None = None

    def __post_init__(self) -> None:
        if find_spec("sigstore") is None:
            raise KeylessError(
                "Keyless signatures need the library sigstore.",
                hint="Run `pip install 'lapwing-deploy[keyless]'`.",
            )

    @property
    def kind(self) -> str:
        """The word for it in messages."""
        return "identity"

    def open_bundle(self, content: bytes, digest: str) -> Mapping[str, Any] | None:
        """Return the statement in a bundle, if the identity signed it and it is about the digest.

        Raises KeylessError without a trusted root.
        """
        from sigstore.models import Bundle

        verifier = _bundle_verifier(self.trusted_root)
        try:
            payload = self.verify(verifier, Bundle.from_json(content))
        except Exception:  # It is untrusted content: parsers raise any error.
            return None
        return parse_statement(payload, digest)

    def verify(self, verifier: BundleVerifier, bundle: Bundle) -> bytes:
        """Return the signed statement. Raises sigstore's VerificationError."""
        from sigstore.errors import VerificationError
        from sigstore.verify.policy import Identity as Policy

        policy = Policy(identity=self.name, issuer=self.issuer)
        kind, payload = verifier.verify_dsse(bundle, policy)
        if kind != STATEMENT_TYPE:
            raise VerificationError(f"the payload is no in-toto statement: {kind}")
        return payload


@dataclass(frozen=True, slots=True)
class KeylessSigner:
    """Signs by the identity of the CI job that runs this; `signing_config` is a file, too."""

    identity: Identity
    signing_config: Path | None = None

    @property
    def verifier(self) -> Verifier:
        """The identity."""
        return self.identity

    @property
    def repeats(self) -> bool:
        """Each signature has another certificate and another time."""
        return False

    def check(self) -> None:
        """Check that there is a trusted root, and an identity token. Raises KeylessError."""
        _bundle_verifier(self.identity.trusted_root)
        self._token()

    def sign_bundles(self, statements: Sequence[bytes]) -> list[bytes]:
        """Sign in-toto statements with one certificate.

        Raises KeylessError, also if the certificate has another identity than the expected one.
        """
        from sigstore.dsse import Statement
        from sigstore.errors import VerificationError
        from sigstore.oidc import IdentityToken
        from sigstore.sign import SigningContext

        if not statements:
            return []
        verifier, bundles = _bundle_verifier(self.identity.trusted_root), []
        try:
            token = IdentityToken(self._token())
            context = SigningContext.from_trust_config(self._trust_config())
            with context.signer(token) as signer:
                for statement in statements:
                    bundle = signer.sign_dsse(Statement(statement))
                    self.identity.verify(verifier, bundle)
                    bundles.append(bundle.to_json().encode())
        except VerificationError as error:
            raise KeylessError(
                f"The signature of this job is not valid for the stack file: {error}.",
                hint="Nothing was pushed. Set `identity` and `issuer` of `signing: {keyless: ...}` "
                "to those of the job, and `trusted_root` to the instance that signs.",
            ) from error
        except KeylessError:
            raise
        except Exception as error:  # Its clients raise errors of many libraries.
            raise KeylessError(
                f"Sigstore did not sign: {_reason(error)}.",
                hint="Run the job again. If it fails again, check the addresses in "
                "`signing_config`, or https://status.sigstore.dev for the public instance.",
            ) from error
        return bundles

    def _token(self) -> str:
        """Return a new identity token of the job."""
        from sigstore.oidc import IdentityError, detect_credential

        try:
            found = detect_credential()
        except IdentityError as error:
            raise KeylessError(
                f"The identity token of this job cannot be read: {error}.", hint=_PERMISSIONS
            ) from error
        if found is None:
            raise KeylessError(
                "Images and charts have to be signed by the identity of a CI job "
                "(`signing: {keyless: ...}`), and no identity token is available.",
                hint=_PERMISSIONS,
            )
        return found

    def _trust_config(self) -> ClientTrustConfig:
        from sigstore.models import ClientTrustConfig

        root, config = self.identity.trusted_root, self.signing_config
        if root is None or config is None:
            return ClientTrustConfig.production()
        document = {
            "mediaType": ClientTrustConfig.ClientTrustConfigType.CONFIG_0_1.value,
            "trustedRoot": json.loads(root.read_bytes()),
            "signingConfig": json.loads(config.read_bytes()),
        }
        return ClientTrustConfig.from_json(json.dumps(document))


@cache
def _bundle_verifier(trusted_root: Path | None) -> BundleVerifier:
    """Read the trusted root once. Raises KeylessError."""
    from sigstore.models import TrustedRoot
    from sigstore.verify import Verifier as BundleVerifier

    try:
        if trusted_root is None:
            return BundleVerifier.production()
        return BundleVerifier(trusted_root=TrustedRoot.from_file(str(trusted_root)))
    except Exception as error:  # Errors of TUF, of files and of their parsers.
        hint = "Check the connection to tuf-repo-cdn.sigstore.dev."
        if trusted_root is not None:
            hint = "Check `trusted_root` of `signing: {keyless: ...}`, or --trusted-root."
        where = trusted_root or "Sigstore's public instance"
        message = f"The trusted root of {where} cannot be read: {_reason(error)}."
        raise KeylessError(message, hint=hint) from error


def _reason(error: BaseException) -> str:
    """Return the message of an error, or of its cause: some of the library have none."""
    text = next(filter(None, map(str, causes(error))), type(error).__name__)
    return text.splitlines()[0].rstrip(".")
