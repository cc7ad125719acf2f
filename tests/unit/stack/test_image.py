"""References and digests: what is filled in, and what is refused with which reason."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapwing.errors import ImageReferenceError
from lapwing.stack.image import Reference, built_image, check_tag, digest_of, is_loopback, parse

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("redis", "docker.io/library/redis:latest"),
        ("redis:7", "docker.io/library/redis:7"),
        ("fleetdm/fleet:v4", "docker.io/fleetdm/fleet:v4"),
        ("docker.io/redis", "docker.io/library/redis:latest"),
        ("index.docker.io/library/redis:7", "docker.io/library/redis:7"),
        ("registry-1.docker.io/a/b", "docker.io/a/b:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app", "localhost:5000/app:latest"),
        ("Registry.Example:443/a/b/c:T-1_x.y", "registry.example:443/a/b/c:T-1_x.y"),
        ("[::1]:5000/app:1", "[::1]:5000/app:1"),
        (f"redis@{DIGEST}", f"docker.io/library/redis@{DIGEST}"),
        (f"r.example/a:1@{DIGEST}", f"r.example/a:1@{DIGEST}"),
        ("oci://r.example/charts/fleet:1.0", "r.example/charts/fleet:1.0"),
        ("docker://r.example/a", "r.example/a:latest"),
        ("r.example/a__b/c-----d/e.f", "r.example/a__b/c-----d/e.f:latest"),
    ],
)
def test_what_is_filled_in(text: str, whole: str) -> None:
    assert str(parse(text)) == whole


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not of the form"),
        (" redis", "not of the form"),
        ("https://r.example/a", "not of the form"),
        ("r.example/", "the repository is missing"),
        ("r.example/:1", "the repository is missing"),
        ("r.example/App", "must be lower-case"),
        ("r.example/a//b", "must consist of parts"),
        ("r.example/a..b", "must consist of parts"),
        ("r.example/a___b", "must consist of parts"),
        ("r.example/-a", "must consist of parts"),
        ("r.example/a/../../etc", "must consist of parts"),
        ("r.example/a?x=1", "must consist of parts"),
        ("r.example/ä", "must consist of parts"),
        ("r.example/a\nb", "must consist of parts"),
        ("r.example/a:", "must consist of letters"),
        ("r.example/a:-x", "must consist of letters"),
        ("r.example/a:1/2", "must consist of parts"),
        ("r.example/a:" + "x" * 129, "has 129 characters"),
        ("r.example/" + "a" * 300, "longer than 255"),
        ("r_x.example/a", "not a host"),
        ("r.example:99999/a", "not a host"),
        ("r.example:/a", "not a host"),
        ("user@r.example/a", "digest must be sha256"),
        ("r.example/a@", "digest must be sha256"),
        ("r.example/a@sha256:abc", "64 hexadecimal digits"),
        (f"r.example/a@{DIGEST.upper()}", "digest must be sha256"),
        ("r.example/a@md5:" + "0" * 32, "must be sha256 or sha512"),
    ],
)
def test_invalid_references_are_refused(text: str, why: str) -> None:
    with pytest.raises(ImageReferenceError) as refused:
        parse(text)
    assert why in refused.value.message
    assert refused.value.exit_status == 2


def test_upper_case_is_lowered_only_where_asked() -> None:
    found = parse("ghcr.io/MyOrg/App:V1", lower=True)
    assert str(found) == "ghcr.io/myorg/app:V1"
    with pytest.raises(ImageReferenceError) as refused:
        parse("ghcr.io/MyOrg/App:V1")
    assert refused.value.hint == "Write it as myorg/app."


def test_docker_hub_is_served_elsewhere() -> None:
    assert parse("redis").api == "registry-1.docker.io"
    assert parse("r.example:1/a").api == "r.example:1"


def test_the_digest_decides() -> None:
    assert parse(f"redis:7@{DIGEST}").wanted == DIGEST
    assert parse("redis:7").wanted == "7"
    assert parse("redis", default_tag=None) == Reference("docker.io", "library/redis")


def test_tags() -> None:
    assert parse("a").tagged("v1.2").tag == "v1.2"
    with pytest.raises(ImageReferenceError) as refused:
        check_tag("1.0+x")
    assert "Helm" in (refused.value.hint or "")


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("app.localhost:80", True),
        ("127.0.0.1:5000", True),
        ("127.1.2.3", True),
        ("[::1]:5000", True),
        ("[::1]", True),
        ("localhost.example", False),
        ("127.0.0.1.example:5000", False),
        ("10.0.0.1", False),
        ("r.example", False),
    ],
)
def test_plain_http_is_only_for_this_machine(host: str, here: bool) -> None:
    assert is_loopback(host) is here


def test_digests() -> None:
    assert digest_of(b"").endswith("b855")
    assert digest_of(b"", DIGEST).startswith("sha256:e3b0")
    assert len(digest_of(b"", "sha512:")) == len("sha512:") + 128


@given(st.text(max_size=60))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        found = parse(text)
    except ImageReferenceError:
        return
    assert parse(str(found)) == found


def test_where_ci_puts_a_service() -> None:
    made = built_image("registry.example:5000/team/", "api", "a" * 40)
    assert str(made) == f"registry.example:5000/team/api:{'a' * 40}"
