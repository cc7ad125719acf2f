"""Which certificate authorities are trusted: the system's, and those that the user adds.

OpenSSL and git let `SSL_CERT_FILE` and `GIT_SSL_CAINFO` replace the system's authorities. A company
sets them for its own authority, and then no public registry can be reached. Here they are added.
"""

from __future__ import annotations

import functools
import os
import ssl
from collections.abc import Mapping
from pathlib import Path

from lapwing.errors import UsageError

BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # openSUSE
    "/etc/ssl/cert.pem",  # macOS, Alpine, BSD
)
"""Where systems keep their authorities. Source: the list of Go's crypto/x509."""


def system_bundle() -> Path:
    """Return the file with the system's authorities; that of certifi if the system has none."""
    for name in (ssl.get_default_verify_paths().openssl_cafile, *BUNDLES):
        if Path(name).is_file():
            return Path(name)
    import certifi

    return Path(certifi.where())


def tls_context(environ: Mapping[str, str], authority: Path | None = None) -> ssl.SSLContext:
    """Trust the system's authorities, those of SSL_CERT_FILE and SSL_CERT_DIR, and `authority`.

    Raises UsageError if a file cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(system_bundle())
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        for part in filter(None, environ.get(name, "").split(os.pathsep)):
            if Path(part) != system_bundle():  # Reading it takes 30 ms.
                _add(context, Path(part), name)
    if authority is not None:
        _add(context, authority, "the option")
    return context


def git_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what makes git trust the authority of SSL_CERT_FILE, unless git has a setting."""
    added = environ.get("SSL_CERT_FILE", "")
    if not added or "GIT_SSL_CAINFO" in environ or Path(added) == system_bundle():
        return {}
    return {"GIT_SSL_CAINFO": _joint_bundle(added)}


@functools.cache
def _joint_bundle(added: str) -> str:
    """Return a file with the system's authorities and some more, which ends with this process."""
    import atexit
    import tempfile

    try:
        content = system_bundle().read_bytes() + b"\n" + Path(added).read_bytes()
    except OSError as error:
        raise _unreadable(Path(added), "SSL_CERT_FILE", error) from error
    descriptor, name = tempfile.mkstemp(prefix="lapwing-authorities-", suffix=".pem")
    atexit.register(lambda: Path(name).unlink(missing_ok=True))
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    return name


def _add(context: ssl.SSLContext, path: Path, origin: str) -> None:
    try:
        if path.is_dir():
            context.load_verify_locations(capath=path)
        else:
            context.load_verify_locations(cafile=path)
    except OSError as error:  # ssl.SSLError is one: no certificate in the file.
        raise _unreadable(path, origin, error) from error


def _unreadable(path: Path, origin: str, error: OSError) -> UsageError:
    return UsageError(
        f"Cannot read the certificates in {path}: {error.strerror or error}.",
        hint=f"Correct {origin}: it names a file of certificates in PEM format.",
    )
