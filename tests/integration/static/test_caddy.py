"""What clients get from a static replica: the real Caddy with the configuration of a replica."""

from __future__ import annotations

import json
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from lapwing.agent import caddy

FILES = {
    "index.html": "<h1>home</h1>" + " " * 2000,
    "about/index.html": "about",
    "app.js": "plain",
    "assets/app-AbCd1234.js": "hashed",
    ".env": "SECRET=1",
    ".git/config": "secret",
    ".well-known/security.txt": "contact",
    ".well-known/assetlinks": "links",
}


def serve(root: Path, folder: Path, *, spa: bool) -> Iterator[httpx.Client]:
    """Run a Caddy on the files of `root`, with a client for it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = folder / "settings.json"
    arguments = caddy.prepare(root, port, spa=spa, settings=settings)
    assert stat.S_IMODE(settings.stat().st_mode) == 0o600
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            arguments, env=caddy.environ(folder), stdout=log, stderr=subprocess.STDOUT
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            while True:
                assert process.poll() is None, (folder / "log").read_text()
                try:
                    client.get("/")
                    break
                except httpx.ConnectError:
                    time.sleep(0.02)
            yield client
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The files of a release in a store, beside an older release."""
    for release, files in {"web-1": {"assets/old-AbCd1234.js": "old"}, "web-2": FILES}.items():
        for name, text in files.items():
            path = tmp_path / "store" / release / "app" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return tmp_path / "store/web-2/app"


@pytest.fixture
def spa(root: Path, tmp_path: Path) -> Iterator[httpx.Client]:
    """A client of a single-page application."""
    yield from serve(root, tmp_path, spa=True)


@pytest.fixture
def site(root: Path, tmp_path: Path) -> Iterator[httpx.Client]:
    """A client of a site of pages."""
    yield from serve(root, tmp_path, spa=False)


def test_deep_links_return_the_index_page(spa: httpx.Client) -> None:
    for path in ("/", "/customers/7", "/customers/?q=a.b"):
        answer = spa.get(path)
        assert (answer.status_code, answer.text[:13]) == (200, "<h1>home</h1>"), path
        assert answer.headers["cache-control"] == "no-cache"
    assert spa.get("/app.js").text == "plain"
    for path in ("/missing.js", "/assets/app-Missing1.js"):
        assert spa.get(path).status_code == 404, path


def test_pages(site: httpx.Client) -> None:
    assert site.get("/").status_code == 200
    assert site.get("/about/").text == "about"
    assert site.get("/customers/7").status_code == 404


def test_hashed_names_are_immutable(spa: httpx.Client) -> None:
    answer = spa.get("/assets/app-AbCd1234.js")
    assert (answer.text, answer.headers["cache-control"]) == (
        "hashed",
        "public, max-age=31536000, immutable",
    )
    assert spa.get("/assets/old-AbCd1234.js").text == "old"
    assert spa.get("/app.js").headers["cache-control"] == "no-cache"


@pytest.mark.parametrize(
    "path",
    [
        "/.env",
        "/.git/config",
        "/%2egit/config",
        "/assets/../.env",
        "/.well-known/../.env",
        "/.well-known/%2e%2e/.env",
        "/../settings.json",
        "/..%2f..%2f..%2fsettings.json",
        "/assets/%2e%2e/%2e%2e/x-AbCd1234.js",
        "/settings.json",
    ],
)
def test_hidden_files_are_not_served(site: httpx.Client, path: str) -> None:
    """The path goes out as it is written: a client of ours would tidy it."""
    host, port = site.base_url.host, site.base_url.port
    assert port is not None
    with socket.create_connection((host, port)) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert b"secret" not in answer.lower()
    assert b"listen" not in answer
    assert answer.split()[1] in (b"400", b"404", b"308", b"301")


@pytest.mark.parametrize("name", ["security.txt", "assetlinks"])
def test_well_known_files_are_served(spa: httpx.Client, name: str) -> None:
    """Source: RFC 8615."""
    assert spa.get(f"/.well-known/{name}").text == FILES[f".well-known/{name}"]


def test_ranges_tags_and_compression(spa: httpx.Client) -> None:
    whole = spa.get("/", headers={"accept-encoding": "gzip"})
    assert whole.headers["content-encoding"] == "gzip"
    assert whole.headers["x-content-type-options"] == "nosniff"
    plain = spa.get("/", headers={"accept-encoding": "identity"})
    again = spa.get(
        "/", headers={"if-none-match": plain.headers["etag"], "accept-encoding": "identity"}
    )
    assert again.status_code == 304
    part = spa.get("/app.js", headers={"range": "bytes=1-2", "accept-encoding": "identity"})
    assert (part.status_code, part.text) == (206, "la")


def test_caddy_writes_no_home_and_has_no_admin_interface(root: Path, tmp_path: Path) -> None:
    made = json.loads(json.dumps(caddy.config(root, 1, spa=True)))
    assert made["admin"] == {"disabled": True, "config": {"persist": False}}
    assert all(
        v.startswith(str(tmp_path)) for k, v in caddy.environ(tmp_path).items() if k != "PATH"
    )
