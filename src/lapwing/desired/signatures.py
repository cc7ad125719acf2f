"""The signatures of commits: by the keys that a file lists, never by those of the user's keyring.

    ssh   an allowed signers file: `NAME KEYTYPE KEY` in each line; see ssh-keygen(1)
    gpg   public keys, ASCII-armored, imported into a keyring for this check only

Every commit since the last accepted one has to be signed. Signatures of the newest one only, as
Flux and Argo CD check them, would accept a change that another user pushed before it: a later,
signed commit of CI is made on top of it. Before the first accepted commit, these are the
commits from the one that last changed the document of the environment: older ones have no effect on
what is deployed.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from lapwing.desired.repository import DesiredRepository
from lapwing.errors import DesiredStateError
from lapwing.system import process

PGP = "-----BEGIN PGP PUBLIC KEY BLOCK-----"
REASONS = {
    "N": "is not signed",
    "B": "has a signature that does not match its content",
    "U": "is signed by a key that is not in `signers`",
    "E": "is signed by a key that is not in `signers`",
    "X": "has a signature that has expired",
    "Y": "is signed by a key that has expired",
    "R": "is signed by a key that was revoked",
}
"""What git reports of a signature as `%G?`. Source: git-log(1)."""


def check(
    repository: DesiredRepository,
    head: str,
    accepted: str | None,
    written: str | None,
    signers: str,
) -> None:
    """Check the commits after `accepted` up to `head`; without `accepted`, those since `written`.

    `written` is the newest commit that changed the document of the environment, which is checked as
    well. Raises DesiredStateError for the first one without the signature of a signer.
    """
    since = accepted or f"{written or head}^@"  # The parents of a commit, see gitrevisions(7).
    commits = [head, f"^{since}"]
    with tempfile.TemporaryDirectory(prefix="lapwing-signers-") as temporary:
        settings, environ, good = _configure(signers, Path(temporary))
        found = repository.git.text(
            "log", "--format=%H %G?", "--reverse", *commits,
            environ=repository.git.with_settings(settings) | environ,
        )  # fmt: skip
    for commit, state in map(str.split, found.splitlines()):
        if state not in good:
            again = "ship a new commit with a signing key"
            if accepted:
                again = f"set the branch back to {accepted[:12]} (a force-push to it is accepted) "
                again += "and ship again with a signing key"
            raise DesiredStateError(
                f"Commit {commit[:12]} of the desired state {REASONS.get(state, 'is invalid')}.",
                hint=f"Nothing was changed. To continue, {again}, or correct `signers` and run "
                "`lapwing agent pull -e NAME` again.",
            )


def _configure(signers: str, folder: Path) -> tuple[dict[str, str], dict[str, str], str]:
    """Return git's settings and variables for signatures, and the states that are accepted.

    The program of the other kind of signatures is disabled. In a keyring that has the keys of
    `signers` only, their trust is unknown to GPG (`U`), and each of them is accepted.
    """
    off = "/bin/false"
    settings = {"gpg.x509.program": off, "gpg.minTrustLevel": "undefined"}
    file = folder / "signers"
    file.write_text(signers)
    if PGP not in signers:
        settings |= {"gpg.program": off, "gpg.ssh.allowedSignersFile": str(file)}
        return settings, {}, "G"
    environ = {"GNUPGHOME": str(folder)}
    done = process.run(
        ["gpg", "--batch", "--no-autostart", "--import", str(file)], environ, timeout=60
    )
    if done.status != 0:
        raise DesiredStateError(
            "The PGP keys of `signers` cannot be imported.",
            hint="Export them with `gpg --armor --export`, and run `lapwing agent pull -e NAME` "
            "again.",
            detail=done.stderr or None,
        )
    return settings | {"gpg.ssh.program": off}, environ, "GU"
