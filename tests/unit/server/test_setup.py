"""The steps of a setup as text: what `lapwing server setup --dry-run` prints."""

from __future__ import annotations

import subprocess

from lapwing.server.setup import Step


def test_printed_steps_run_in_one_shell() -> None:
    """A script may end with `exit 0`; the next steps have to run."""
    steps = [
        Step("without a file", "echo one; exit 0"),
        Step("with a text", "cat\nexit 0", b"two\n"),
        Step("with a file", "echo three; exit 0", b"\xff"),
        Step("the last", "echo four  # A comment."),
    ]
    text = "".join(map(str, steps))
    done = subprocess.run(["sh", "-e"], input=text, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("one\ntwo\nthree\nfour\n", "")
