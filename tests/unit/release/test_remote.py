"""URLs of git remotes, and the repositories on forges that they name."""

from __future__ import annotations

import pytest

from lapwing.errors import ReleaseError
from lapwing.release.remote import forge_kind, forge_registry, parse_remote
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
def test_remote_urls(url: str, web: str, owner: str, name: str) -> None:
    found = parse_remote(url)
    assert (found.web, found.owner, found.name) == (web, owner, name)
    assert "secret" not in repr(found) + str(found) + found.page


@pytest.mark.parametrize(
    "url",
    ["/srv/git/a/b.git", "../b.git", "file:///srv/a/b.git", "https://git.example/b",
     "https://git.example", "git@git.example:b.git", "https://git.example/a/..",
     "https://git.example/a b/c", "https://git.example/a/%2e%2e", ""],
)  # fmt: skip
def test_remote_without_forge_is_refused(url: str) -> None:
    with pytest.raises(ReleaseError):
        parse_remote(url)


def test_forge_address_in_file_overrides_remote() -> None:
    found = parse_remote("ssh://git@git.example:2222/a/b.git", web="https://example.org/git/")
    assert found.page == "https://example.org/git/a/b"


def test_forge_kind_and_registry() -> None:
    github, other = (
        parse_remote("git@github.com:Acme/Web.git"),
        parse_remote("https://git.example:3000/Acme/W"),
    )
    assert (forge_kind(github), forge_kind(other)) == ("github", "gitea")
    assert forge_registry(github, "github") == "ghcr.io/acme"
    assert forge_registry(other, "gitea") == "git.example:3000/acme"


def test_login_is_removed_from_url() -> None:
    assert without_login("fatal: 'https://a:b@c/d' and http://e@f/") == (
        "fatal: 'https://c/d' and http://f/"
    )
    with pytest.raises(ReleaseError) as caught:
        parse_remote("https://me:secret@git.example/x")
    assert "secret" not in str(caught.value)
