"""The users of basic authentication, from a secret to what Envoy reads."""

from __future__ import annotations

import pytest

from lapwing.plan.htpasswd import htpasswd

ADA = "ada:{SHA}FEI6rNnb7XvP5yNyknSZvByyHbQ="
"""The line that `htpasswd -nbs ada s3cret:x` prints."""


def test_passwords_are_hashed_and_hashes_kept() -> None:
    text = f"# admins\r\nada:s3cret:x\r\n\n{ADA.replace('ada', 'bob')}"
    assert htpasswd(text) == f"{ADA}\n{ADA.replace('ada', 'bob')}\n"


def test_password_may_begin_as_a_hash_does() -> None:
    assert htpasswd("a:$ecret") != htpasswd("a:$2")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it has no"),
        ("# a comment\n\n", "it has no"),
        ("hunter2", "line 1 is not"),
        (":hunter2", "line 1 is not"),
        ("a:b\nc:", "line 2 is not"),
        ("a:hunter2\na:b", "line 2 has a user"),
        ("a:$2y$05$hunter2", "line 1 has a hash .* bcrypt.*htpasswd -s"),
        ("a:$apr1$hunter2", "line 1 has a hash"),
        ("a:{SSHA}hunter2", "line 1 has a hash"),
        ("a:{SHA}hunter2", r"line 1: the text after `{SHA}` is not a SHA-1 hash in base64 \(28"),
    ],
)
def test_unusable_users_are_refused_without_their_passwords(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as refused:
        htpasswd(text)
    assert "hunter2" not in str(refused.value)
