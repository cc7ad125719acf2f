"""Where a remote leads."""

from __future__ import annotations

import pytest

from lapwing.errors import ReleaseError
from lapwing.release.remote import kind_of, parse, registry_of
from lapwing.system.git import without_login

FORMS = [
    ("https://git.example/Acme/Web.git", "https://git.example", "Acme", "Web"),
    ("https://git.example/Acme/Web/", "https://git.example", "Acme", "Web"),
    ("https://git.example:3000/a/b", "https://git.example:3000", "a", "b"),
    ("https://git.example:443/a/b", "https://git.example", "a", "b"),
    ("http://localhost:3000/a/b.git", "http://localhost:3000", "a", "b"),
    ("https://git.example/tools/git/a/b.git", "https://git.example/tools/git", "a", "b"),
    ("https://me:secret@git.example/a/b.git", "https://git.example", "a", "b"),
    ("ssh://git@git.example:2222/a/b.git", "https://git.example", "a", "b"),
    ("ssh://git.example/a/b", "https://git.example", "a", "b"),
    ("git+ssh://git@git.example/a/b", "https://git.example", "a", "b"),
    ("git://git.example/a/b.git", "https://git.example", "a", "b"),
    ("git@git.example:a/b.git", "https://git.example", "a", "b"),
    ("git@GIT.example:/a/b.git", "https://git.example", "a", "b"),
    ("git.example:a/b", "https://git.example", "a", "b"),
    ("git@[2001:db8::1]:a/b.git", "https://[2001:db8::1]", "a", "b"),
    ("ssh://git@[2001:db8::1]:22/a/b.git", "https://[2001:db8::1]", "a", "b"),
    ("ssh://git@ssh.github.com:443/a/b.git", "https://github.com", "a", "b"),
    ("git@github.com:a/.github.git", "https://github.com", "a", ".github"),
]


@pytest.mark.parametrize(("url", "web", "owner", "name"), FORMS)
def test_forms(url: str, web: str, owner: str, name: str) -> None:
    found = parse(url)
    assert (found.web, found.owner, found.name) == (web, owner, name)
    assert "secret" not in repr(found) + str(found) + found.page


@pytest.mark.parametrize(
    "url",
    ["/srv/git/a/b.git", "../b.git", "file:///srv/a/b.git", "https://git.example/b",
     "https://git.example", "git@git.example:b.git", "https://git.example/a/..",
     "https://git.example/a b/c", "https://git.example/a/%2e%2e", ""],
)  # fmt: skip
def test_what_leads_to_no_forge(url: str) -> None:
    with pytest.raises(ReleaseError):
        parse(url)


def test_the_stated_address_counts() -> None:
    found = parse("ssh://git@git.example:2222/a/b.git", web="https://example.org/git/")
    assert found.page == "https://example.org/git/a/b"


def test_kinds_and_registries() -> None:
    github, other = parse("git@github.com:Acme/Web.git"), parse("https://git.example:3000/Acme/W")
    assert (kind_of(github), kind_of(other)) == ("github", "gitea")
    assert registry_of(github, "github") == "ghcr.io/acme"
    assert registry_of(other, "gitea") == "git.example:3000/acme"


def test_a_login_is_never_shown() -> None:
    assert without_login("fatal: 'https://a:b@c/d' and http://e@f/") == (
        "fatal: 'https://c/d' and http://f/"
    )
    with pytest.raises(ReleaseError) as caught:
        parse("https://me:secret@git.example/x")
    assert "secret" not in str(caught.value)
