"""Encryption of files for age recipients (age-encryption.org), by pyrage.

pyrage is in the extra `backup` and imported where it is used.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lapwing.errors import BackupError

INSTALL_HINT = "Run `pip install 'lapwing-deploy[backup]'`."


def read_recipients(recipients: Iterable[str]) -> list[Any]:
    """Parse recipients for pyrage. Raises BackupError."""
    pyrage = _library()
    found = []
    for recipient in recipients:
        try:
            found.append(pyrage.x25519.Recipient.from_str(recipient))
        except pyrage.RecipientError:
            raise BackupError(
                f"{recipient!r} is not a valid age recipient.",
                hint="Copy the public key again, which `age-keygen -y FILE` prints.",
            ) from None
    return found


def encrypt(file: Path, to: Path, recipients: Iterable[str]) -> None:
    """Encrypt a file. Raises BackupError or OSError."""
    _library().encrypt_file(str(file), str(to), read_recipients(recipients))


def decrypt(file: Path, to: Path, identities: str) -> None:
    """Decrypt a file with the text of an identity file. Raises BackupError or OSError."""
    pyrage = _library()
    lines = [line.strip() for line in identities.splitlines()]
    try:
        keys = [pyrage.x25519.Identity.from_str(k) for k in lines if k and not k.startswith("#")]
    except pyrage.IdentityError:
        raise BackupError(
            "The file of `--identity` contains an invalid age identity.",
            hint="Use a file that `age-keygen` wrote, with a line that starts with "
            "AGE-SECRET-KEY-1.",
        ) from None
    try:
        pyrage.decrypt_file(str(file), str(to), keys)
    except pyrage.DecryptError as error:
        raise BackupError(
            f"{file.name} cannot be decrypted: {error}.",
            hint="Use the identity of a recipient of this backup, or another backup.",
        ) from None


def _library() -> Any:
    try:
        import pyrage
    except ImportError:
        message = "`encrypt` of `backup` needs the package pyrage."
        raise BackupError(message, hint=INSTALL_HINT) from None
    return pyrage
