"""A desired-state repository that lives elsewhere: on a forge, where Argo CD reads it.

    fetch -> commit on top -> push; somebody was faster -> again

The repository on this machine is a copy of the remote, nothing more: each fetch makes its branch
what the remote's is, so a commit that could not be pushed is simply gone and is made anew on top of
what came first. A push never forces. People's own git configuration and credentials are used for
the remote, and for it only; a token in a URL is kept out of every message. CI gives its token as
LAPWING_DESIRED_TOKEN, which git gets through its environment, so that no process list shows it.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from lapwing.desired.repository import BRANCH, DesiredRepository
from lapwing.errors import ConflictError, DesiredStateError, UsageError
from lapwing.system import git_login as login

PATIENCE = 60.0
"""Seconds that the remote may take to answer."""
ATTEMPTS = 8
PAUSE = 0.2
"""Seconds before the second attempt; they double, with some chance in them."""
TOKEN = "LAPWING_DESIRED_TOKEN"  # noqa: S105 - the name of a variable
_BEHIND = re.compile(
    r"\((fetch first|non-fast-forward|stale info|failed to update ref|incorrect old value provided"
    r"|reference already exists)\)|cannot lock ref"
)
"""What git says where somebody else was faster, before the push or while it arrives."""


class Remote:
    """The desired state at `url`, through a copy below `folder`. `environ` is the user's."""

    def __init__(self, url: str, folder: Path, environ: Mapping[str, str]) -> None:
        name = hashlib.sha256(url.encode()).hexdigest()[:16]
        self.url = url
        self.repository = DesiredRepository(folder / f"{name}.git")
        self._environ = dict(environ)

    @property
    def shown(self) -> str:
        """The URL without a login."""
        return login.without_login(self.url)

    def fetch(self) -> None:
        """Make the copy what the remote is. Raises DesiredStateError or UsageError."""
        self.repository.ensure()
        with self.repository.git.writing():
            self._git("fetch", "--quiet", "--prune", self.url, f"+{BRANCH}:{BRANCH}")

    def commit(self, make: Callable[[DesiredRepository], str | None]) -> str | None:
        """Fetch, let `make` commit (None: there is nothing to do), and push; again when somebody
        was faster. Returns the commit.

        Raises ConflictError after several tries, or what `make` and `fetch` raise.
        """
        pause = PAUSE
        for attempt in range(1, ATTEMPTS + 1):
            self.fetch()
            commit = make(self.repository)
            if commit is None or self._push(commit):
                return commit
            if attempt < ATTEMPTS:
                time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - not for secrets
                pause = min(pause * 2, 5.0)
        raise ConflictError(
            f"Others pushed to {self.shown} each of {ATTEMPTS} times before this deployment.",
            hint="Run the command again in a moment.",
        )

    def _push(self, commit: str) -> bool:
        """Push a commit; False if the remote has gone on meanwhile."""
        done = self._run("push", "--porcelain", self.url, f"{commit}:{BRANCH}")
        if done.returncode == 0:
            return True
        words = self._hide(done.stdout + done.stderr)
        if _BEHIND.search(words):
            return False
        hint = "Look at the words of the remote, and at your right to push there."
        if re.search(r"protected|pre-receive|hook declined", words):
            hint = "Its branch `main` is protected: let this user push to it, or use another one."
        message = f"{self.shown} does not take the commit."
        raise DesiredStateError(message, hint=hint, detail=words.strip())

    def _git(self, *arguments: str) -> None:
        done = self._run(*arguments)
        words = self._hide(done.stderr)
        if done.returncode == 0:
            return
        if "couldn't find remote ref" in words:
            # A remote without a branch has no deployment yet: nor has the copy, whatever it holds
            # that could not be pushed.
            self.repository.git.run("update-ref", "-d", BRANCH)
            return
        raise DesiredStateError(
            f"The desired state at {self.shown} cannot be fetched.",
            hint="Check `repository:` in the stack file, and that `git ls-remote` answers for it.",
            detail=words.strip(),
        )

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        variables = {k: v for k, v in self._environ.items() if not k.startswith("GIT_DIR")}
        variables |= {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
        if token := variables.pop(TOKEN, None):
            variables |= login.variables(self.url, token, variables)
        variables.setdefault("PATH", os.defpath)
        variables.setdefault("GIT_SSH_COMMAND", "ssh -o BatchMode=yes")
        command = ["git", "--git-dir", str(self.repository.path), *arguments]
        try:
            return subprocess.run(
                command,
                env=variables,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=PATIENCE,
            )
        except FileNotFoundError as error:
            raise UsageError("git is not installed.", hint="Install git.") from error
        except subprocess.TimeoutExpired as error:
            raise DesiredStateError(
                f"{self.shown} did not answer within {PATIENCE:g} s.",
                hint="Check the network, then run the command again.",
            ) from error

    def _hide(self, words: str) -> str:
        token = self._environ.get(TOKEN)
        words = login.without_login(words)
        return words.replace(token, "***") if token else words
