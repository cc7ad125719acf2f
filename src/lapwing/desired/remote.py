"""A remote desired-state repository: on a forge, where Argo CD or an agent reads it.

    fetch -> commit on top -> push; again if the push was not a fast-forward

The repository on this machine is a copy of the remote. Each fetch resets its branch to that of the
remote, so a commit that could not be pushed is dropped, and made again on top of the new head. A
push never forces. The user's git configuration and credentials are used for the remote only, and a
token in a URL is in no message. In CI the token is LAPWING_DESIRED_TOKEN, which git gets through
its environment, so that no process list shows it.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from lapwing.desired.git_objects import BRANCH
from lapwing.desired.repository import DesiredRepository
from lapwing.errors import ConflictError, DesiredStateError
from lapwing.system.git import Git, without_login
from lapwing.system.retry import RetryPolicy

TIMEOUT_S = 60.0
RETRY = RetryPolicy(attempts=8, first_delay=0.3, max_delay=7.5)
TOKEN = "LAPWING_DESIRED_TOKEN"  # noqa: S105 - the name of a variable
_BEHIND = re.compile(
    r"\((fetch first|non-fast-forward|stale info|failed to update ref|incorrect old value provided"
    r"|reference already exists)\)|cannot lock ref"
)
"""Messages of git for a push that is not a fast-forward, before or while it is received."""


class Remote:
    """The desired-state repository at a URL."""

    def __init__(self, url: str, folder: Path, environ: Mapping[str, str]) -> None:
        """Use the repository at `url` through a copy below `folder`, as the user of `environ`."""
        name = hashlib.sha256(url.encode()).hexdigest()[:16]
        self.url = url
        self.repository = DesiredRepository(folder / f"{name}.git")
        given = {"GIT_SSH_COMMAND": "ssh -o BatchMode=yes", **environ}
        token = given.pop(TOKEN, None)
        self._git = Git(
            self.repository.path, given, DesiredStateError, bare=True, timeout=TIMEOUT_S
        )
        if token:
            self._git.use_token(url, token)

    @property
    def redacted_url(self) -> str:
        """The URL without user and password."""
        return without_login(self.url)

    def fetch(self) -> None:
        """Update the copy to the state of the remote. Raises DesiredStateError or UsageError."""
        self.repository.ensure()
        with self.repository.writing():
            done = self._git.run("fetch", "--quiet", "--prune", self.url, f"+{BRANCH}:{BRANCH}")
            if "couldn't find remote ref" in done.messages:
                # A remote without a branch has no deployment yet; commits of the copy that were
                # never pushed are dropped.
                self.repository.git.text("update-ref", "-d", BRANCH)
            elif done.status != 0:
                raise DesiredStateError(
                    f"Fetching the desired state from {self.redacted_url} failed.",
                    hint="Check `repository:` in the stack file, and that "
                    f"`git ls-remote {self.redacted_url}` works.",
                    detail=done.messages,
                )

    def commit(self, make: Callable[[DesiredRepository], str | None]) -> str | None:
        """Fetch, call `make`, push its commit, and return it; again after a conflict.

        `make` returns None if there is nothing to commit. Raises ConflictError after several
        attempts, or what `make` and `fetch` raise.
        """
        for attempt in range(1, RETRY.attempts + 1):
            self.fetch()
            commit = make(self.repository)
            if commit is None or self._push(commit):
                return commit
            if attempt < RETRY.attempts:
                time.sleep(RETRY.delay(attempt))
        raise ConflictError(
            f"{self.redacted_url} had newer commits at each of {RETRY.attempts} pushes.",
            hint="Run the command again in a moment.",
        )

    def _push(self, commit: str) -> bool:
        """Push a commit; return False if the remote has newer commits."""
        done = self._git.run("push", "--porcelain", self.url, f"{commit}:{BRANCH}")
        if done.status == 0:
            return True
        words = f"{self._git.redact(done.data)}\n{done.messages}"
        if _BEHIND.search(words):
            return False
        hint = "Check that this user may push there; the message of the remote is below."
        if re.search(r"protected|pre-receive|hook declined", words):
            hint = "Its branch `main` is protected: allow this user to push to it."
        message = f"The push to {self.redacted_url} was rejected."
        raise DesiredStateError(message, hint=hint, detail=words)
