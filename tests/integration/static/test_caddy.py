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
from lapwing.build.precompress import precompress
from lapwing.render.caddy import IMMUTABLE, KEEP_ASSETS_S, config

FILES = {
    "index.html": "<h1>home</h1>" + " " * 2000,
    "about/index.html": "about",
    "contact.html": "contact",
    "404.html": "no such page",
    "app.js": "plain",
    "assets/app-AbCd1234.js": "hashed",
    ".env": "SECRET=1",
    "lapwing.yaml": "stack: secret",
    ".git/config": "secret",
    "docs/.drafts/plan": "secret",
    ".well-known/.drafts/plan": "secret",
    ".well-known/security.txt": "contact",
    ".well-known/assetlinks": "links",
}


def serve(root: Path, folder: Path, *, spa: bool, route: str = "/") -> Iterator[httpx.Client]:
    """Run a Caddy on the files of `root`, with a client for it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = folder / "settings.json"
    arguments = caddy.prepare(
        root, port, spa=spa, settings=settings, route=route, recent=folder / "recent"
    )
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
    """The files of a release in a store, beside one that was active and one that never was.

    The store is below a hidden folder, as in ~/.local/share/lapwing, the default home.
    """
    others = {n: {f"assets/{n}-AbCd1234.js": n} for n in ("old", "never")}
    for release, files in {**others, "web-2": FILES}.items():
        for name, text in files.items():
            path = tmp_path / ".local/store" / release / "app" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    caddy.record_active(tmp_path / "recent", tmp_path / ".local/store/old/app", time.time())
    return tmp_path / ".local/store/web-2/app"


@pytest.fixture
def spa(root: Path, tmp_path: Path) -> Iterator[httpx.Client]:
    """A client of a single-page application."""
    yield from serve(root, tmp_path, spa=True)


@pytest.fixture
def site(root: Path, tmp_path: Path) -> Iterator[httpx.Client]:
    """A client of a site of pages."""
    yield from serve(root, tmp_path, spa=False)


def test_deep_links_return_the_index_page(spa: httpx.Client) -> None:
    for path in ("/", "/customers/7", "/customers/?q=a.b", "/users/jane.doe", "/v1.2/notes"):
        answer = spa.get(path)
        assert (answer.status_code, answer.text[:13]) == (200, "<h1>home</h1>"), path
        assert answer.headers["cache-control"] == "no-cache"
    assert spa.get("/app.js").text == "plain"
    for path in ("/missing.js", "/assets/app-Missing1.js"):
        assert spa.get(path).status_code == 404, path


def test_pages(site: httpx.Client) -> None:
    assert site.get("/").status_code == 200
    assert site.get("/about/").text == "about"
    missing = site.get("/customers/7")
    assert (missing.status_code, missing.text) == (404, "no such page")
    assert missing.headers["cache-control"] == "no-cache"


def test_folders_and_clean_urls_are_pages(site: httpx.Client, spa: httpx.Client) -> None:
    for client in (site, spa):
        assert client.get("/contact").text == "contact"
        assert client.get("/about/").text == "about"
        redirect = client.get("/about")
        assert (redirect.status_code, redirect.headers["location"]) == (308, "/about/")


def test_hashed_names_are_immutable(spa: httpx.Client) -> None:
    answer = spa.get("/assets/app-AbCd1234.js")
    assert (answer.text, answer.headers["cache-control"]) == (
        "hashed",
        "public, max-age=31536000, immutable",
    )
    assert spa.get("/assets/old-AbCd1234.js").text == "old"
    assert spa.get("/app.js").headers["cache-control"] == "no-cache"
    assert spa.get("/assets/old-AbCd1234.js").headers["cache-control"] == IMMUTABLE
    assert spa.get("/assets/app-Missing1.js").headers["cache-control"] == "no-cache"


def test_releases_that_never_were_active_are_not_public(spa: httpx.Client, tmp_path: Path) -> None:
    assert spa.get("/assets/never-AbCd1234.js").status_code == 404
    recent, now = tmp_path / "recent", time.time()
    caddy.record_active(recent, tmp_path / ".local/store/never/app", now)
    assert spa.get("/assets/never-AbCd1234.js").text == "never"
    caddy.record_active(recent, tmp_path / ".local/store/web-2/app", now + KEEP_ASSETS_S + 1)
    for name in ("never", "old"):
        assert spa.get(f"/assets/{name}-AbCd1234.js").status_code == 404


@pytest.mark.parametrize("spa_mode", [True, False])
def test_route_is_removed_from_the_path(root: Path, tmp_path: Path, spa_mode: bool) -> None:
    for client in serve(root, tmp_path, spa=spa_mode, route="/admin"):
        assert client.get("/admin/assets/app-AbCd1234.js").text == "hashed"
        assert client.get("/admin/assets/old-AbCd1234.js").text == "old"
        assert client.get("/admin/").text.startswith("<h1>home</h1>")
        redirect = client.get("/admin?a=b")
        assert (redirect.status_code, redirect.headers["location"]) == (308, "/admin/?a=b")
        assert client.get("/admin/about").headers["location"] == "/admin/about/"
        assert client.get("/admin/contact").text == "contact"
        assert client.get("/admin/x").status_code == (200 if spa_mode else 404)
        assert client.get("/admin/.env").status_code == 404


def test_folder_named_as_the_route_is_served_as_it_is(root: Path, tmp_path: Path) -> None:
    (root / "admin").mkdir()
    (root / "admin/index.html").write_text("inside")
    for client in serve(root, tmp_path, spa=False, route="/admin"):
        assert client.get("/admin/").text == "inside"


@pytest.mark.parametrize(
    "path",
    [
        "/.env",
        "/lapwing.yaml",
        "/.git/config",
        "/%2egit/config",
        "//.git/config",
        "/docs/.drafts/plan",
        "/docs/..%2f.git/config",
        "/.well-known/.drafts/plan",
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


def test_compressed_copies_are_served(root: Path, tmp_path: Path) -> None:
    """Each has another `ETag` than its file; the answer is still immutable."""
    page, script = "<h1>page</h1>" * 200, "script " * 200
    for folder, name, text in (
        (root, "index.html", page),
        (root, "assets/big-AbCd1234.js", script),
        (tmp_path / ".local/store/old/app", "assets/gone-AbCd1234.js", script),
    ):
        (folder / name).write_text(text)
        precompress(folder)
        assert (folder / f"{name}.gz").is_file()
    for suffix in (".br", ".zst"):
        (root / f"assets/big-AbCd1234.js{suffix}").write_bytes(b"of another version: never checked")
    for client in serve(root, tmp_path, spa=True):
        answer = client.get("/", headers={"accept-encoding": "gzip, zstd"})
        assert (answer.text, answer.headers["content-encoding"]) == (page, "gzip")
        assert int(answer.headers["content-length"]) == (root / "index.html.gz").stat().st_size
        assert answer.headers["vary"] == "Accept-Encoding"
        plain = client.get("/", headers={"accept-encoding": "identity"})
        assert (plain.text, plain.headers.get("content-encoding")) == (page, None)
        assert plain.headers["etag"] != answer.headers["etag"]
        headers = {"accept-encoding": "gzip", "if-none-match": answer.headers["etag"]}
        assert client.get("/", headers=headers).status_code == 304
        for name in ("big", "gone"):
            answer = client.get(f"/assets/{name}-AbCd1234.js", headers={"accept-encoding": "gzip"})
            assert (answer.text, answer.headers["content-encoding"]) == (script, "gzip")
            assert answer.headers["cache-control"] == IMMUTABLE
            assert answer.headers["content-type"].startswith("text/javascript")
        for accepted in ("br", "br, zstd, gzip"):
            answer = client.get("/assets/big-AbCd1234.js", headers={"accept-encoding": accepted})
            assert answer.text == script


def test_caddy_writes_no_home_and_has_no_admin_interface(root: Path, tmp_path: Path) -> None:
    made = json.loads(json.dumps(config(root, ":1", spa=True, prefix="", recent=tmp_path)))
    assert made["admin"] == {"disabled": True, "config": {"persist": False}}
    assert all(
        v.startswith(str(tmp_path)) for k, v in caddy.environ(tmp_path).items() if k != "PATH"
    )
