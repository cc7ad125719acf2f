"""A remote desired-state repository: on a forge, where Argo CD or an agent reads it.

    fetch -> commit on top -> push; again if the push was not a fast-forward

The repository on this machine is a copy of the remote. Each fetch resets its branch to that of the
remote, so a commit that could not be pushed is dropped, and made again on top of the new head. A
push never forces. The user's git configuration and credentials are used for the remote only, and a
token in a URL is in no message. In CI the token is LAPWING_DESIRED_TOKEN, which git gets through
its environment, so that no process list shows it.

Where commits have to be signed, each is signed before the push: with the SSH key in
LAPWING_DESIRED_SIGNING_KEY, or as the user's git signs.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
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
SIGNING_KEY = "LAPWING_DESIRED_SIGNING_KEY"
_BEHIND = re.compile(
    r"\((fetch first|non-fast-forward|stale info|failed to update ref|incorrect old value provided"
    r"|reference already exists)\)|cannot lock ref"
)
"""Messages of git for a push that is not a fast-forward, before or while it is received."""


class Remote:
    """The desired-state repository at a URL."""

    def __init__(
        self, url: str, folder: Path, environ: Mapping[str, str], *, sign: bool = False
    ) -> None:
        """Use the repository at `url` through a copy below `folder`, as the user of `environ`.

        With `sign`, commits are signed before they are pushed.
        """
        name = hashlib.sha256(url.encode()).hexdigest()[:16]
        self.url = url
        self.repository = DesiredRepository(folder / f"{name}.git")
        given = {"GIT_SSH_COMMAND": "ssh -o BatchMode=yes", **environ}
        token = given.pop(TOKEN, None)
        self._sign, self._signing_key = sign, given.pop(SIGNING_KEY, None)
        self._git = Git(
            self.repository.path, given, DesiredStateError, bare=True, timeout=TIMEOUT_S
        )
        if token:
            self._git.use_token(url, token)

    @property
    def redacted_url(self) -> str:
        """The URL without user and password."""
        return without_login(self.url)

    def head(self) -> str | None:
        """Return the newest commit of the remote, without fetching it. Raises as `fetch` does."""
        done = self._git.run("ls-remote", "--exit-code", self.url, BRANCH)
        if done.status not in (0, 2):  # 2: it has no such branch.
            raise self._unreachable(done.messages)
        return done.text.split()[0] if done.text else None

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
                raise self._unreachable(done.messages)

    def _unreachable(self, messages: str) -> DesiredStateError:
        return DesiredStateError(
            f"Fetching the desired state from {self.redacted_url} failed.",
            hint="Check the URL in the stack file, and that "
            f"`git ls-remote {self.redacted_url}` works.",
            detail=messages,
        )

    def commit(self, make: Callable[[DesiredRepository], str | None]) -> str | None:
        """Fetch, call `make`, push its commit, and return it; again after a conflict.

        `make` returns None if there is nothing to commit. Raises ConflictError after several
        attempts, or what `make` and `fetch` raise.
        """
        for attempt in range(1, RETRY.attempts + 1):
            self.fetch()
            commit = make(self.repository)
            if commit is not None and self._sign:
                commit = self._signed(commit)
            if commit is None or self._push(commit):
                return commit
            if attempt < RETRY.attempts:
                time.sleep(RETRY.delay(attempt))
        raise ConflictError(
            f"{self.redacted_url} had newer commits at each of {RETRY.attempts} pushes.",
            hint="Run the command again in a moment.",
        )

    def _signed(self, commit: str) -> str:
        """Return a signed copy of the newest commit, which replaces it in the branch."""
        git = self.repository.git
        tree, parent, name, date, text = git.text(
            "log", "-1", "--format=%T%n%P%n%an%n%aI%n%B", commit
        ).split("\n", 4)
        environ = {"GIT_AUTHOR_EMAIL": "lapwing@localhost", "GIT_AUTHOR_DATE": date}
        environ |= {"GIT_AUTHOR_NAME": name, "GIT_COMMITTER_NAME": "Lapwing"}
        environ |= {"GIT_COMMITTER_EMAIL": "lapwing@localhost"}
        arguments = ["commit-tree", "-S", tree, *(("-p", parent) if parent else ())]
        with tempfile.NamedTemporaryFile("w", prefix="lapwing-key-") as key:  # Its mode is 0600.
            if self._signing_key:
                key.write(self._signing_key.strip() + "\n")
                key.flush()
                settings = {"gpg.format": "ssh", "user.signingKey": key.name}
                environ = self._git.with_settings(settings) | environ
            done = self._git.run(*arguments, given=text.encode(), environ=environ)
        if done.status != 0:
            raise DesiredStateError(
                "The commit of the desired state could not be signed.",
                hint=f"Set {SIGNING_KEY} to a private SSH key, or `user.signingKey` of git.",
                detail=done.messages,
            )
        with self.repository.writing():
            git.text("update-ref", BRANCH, done.text)
        return done.text

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
