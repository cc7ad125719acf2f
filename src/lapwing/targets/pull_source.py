"""What `lapwing agent pull` registers: the `desired` of an environment, with its signers."""

from __future__ import annotations

import re
import shutil
import time

from lapwing.desired.signatures import PGP
from lapwing.errors import LapwingError, UsageError
from lapwing.observed.pull import Source
from lapwing.stack.load import LoadedStack

_SIGNER = re.compile(r"\S.*\s(ssh-|ecdsa-|sk-)\S+\s+[A-Za-z0-9+/]+=*(\s.*)?")
"""A line of an allowed signers file. Source: ssh-keygen(1)."""


def read(loaded: LoadedStack) -> Source:
    """Read the source of an environment. Raises UsageError or LapwingError."""
    desired = loaded.settings.desired
    if desired is None:
        raise UsageError(
            f"`desired` is not set for {loaded.environment!r}.",
            hint="Set it to the git URL of the desired-state repository.",
        )
    signers = None if desired.signers is None else _read_signers(loaded, desired.signers)
    return Source(
        url=desired.url, interval=desired.interval, signers=signers, registered=time.time()
    )


def _read_signers(loaded: LoadedStack, name: str) -> str:
    text = loaded.read(name, "the `signers` of `desired`")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    is_pgp = PGP in text
    if not is_pgp and (not lines or not all(map(_SIGNER.fullmatch, lines))):
        raise UsageError(
            f"{loaded.folder / name} has neither PGP public keys nor allowed signers of SSH.",
            hint="Write `NAME ssh-ed25519 KEY` in each line, or the output of `gpg --armor "
            "--export`.",
        )
    program, package = ("gpg", "gnupg") if is_pgp else ("ssh-keygen", "openssh-client")
    if shutil.which(program) is None:
        raise LapwingError(
            f"{program} is not installed; it verifies signatures.",
            hint=f"Run `apt-get install {package}` on the machine.",
        )
    return text
