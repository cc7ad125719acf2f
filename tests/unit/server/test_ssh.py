"""Addresses of servers, and what is said of a failed connection."""

from __future__ import annotations

import pytest

from lapwing.errors import UsageError
from lapwing.server.ssh import Host, failure


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("vps", Host("vps")),
        ("deploy@203.0.113.7", Host("203.0.113.7", "deploy")),
        ("root@app.example.com:2222", Host("app.example.com", "root", 2222)),
        ("root@[2001:db8::1]:22", Host("2001:db8::1", "root", 22)),
        ("vps:65535", Host("vps", None, 65535)),
    ],
)
def test_address(text: str, host: Host) -> None:
    assert Host.parse(text) == host
    assert str(host) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-oProxyCommand=id",
        "a b",
        "user@-x",
        "me@host:",
        "me@host:ssh",
        "@host",
        "a;id",
        "me@host:0",
        "me@host:65536",
        "me@host:99999",
    ],
)
def test_invalid_address(text: str) -> None:
    with pytest.raises(UsageError, match="is not the address of a server"):
        Host.parse(text)


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ("Host key verification failed.", "is not known yet"),
        ("@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.",
         "this may be another machine"),
        ("me@vps: Permission denied (publickey,password).", "refuses the login"),
        ("ssh: Could not resolve hostname vps: Name or service not known", "cannot be resolved"),
        ("ssh: connect to host vps port 22: Connection refused", "refuses the connection"),
        ("ssh: connect to host vps port 22: Connection timed out", "does not answer"),
        ("something else", "failed"),
    ],
)  # fmt: skip
def test_failure_has_a_cause_and_a_next_step(messages: str, expected: str) -> None:
    error = failure(Host("vps", "me", 2222), messages, "production")
    assert expected in error.message
    assert error.hint
    assert "{" not in error.message + error.hint


@pytest.mark.parametrize(
    ("user", "expected"),
    [("me", "`ssh-copy-id -p 2222 me@vps`"), ("lapwing", "`lapwing server setup -e production`")],
)
def test_refused_login_advises_setup_only_for_the_user_of_lapwing(user: str, expected: str) -> None:
    messages = f"{user}@vps: Permission denied (publickey,password)."
    hint = failure(Host("vps", user, 2222), messages, "production").hint or ""
    assert expected in hint
    assert ("server setup" in hint) == (user == "lapwing")
