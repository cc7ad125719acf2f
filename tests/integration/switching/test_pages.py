"""A page that a browser has open outlives a switch: the files that it names stay to be had."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from pathlib import Path

from tests.installation import Installation, installation

STACK = """
stack: pages
services:
  web: {build: ./web, static: ., route: /, rollout: {analysis: false}}
"""


def write(where: Installation, version: str) -> None:
    for old in where.folder.glob("web/assets/*"):
        old.unlink()
    files = {f"web/assets/app-{version}00000.js": version, "web/index.html": version}
    where.write({**files, "web/assets/plain.js": version})


def get(where: Installation, path: str) -> tuple[int, str, str]:
    """Status, text and Cache-Control of an answer."""
    context = ssl.create_default_context(cafile=str(where.home / "certificates" / "ca.pem"))
    try:
        with urllib.request.urlopen(f"https://localhost:{where.port}{path}", context=context) as a:
            return a.status, a.read().decode(), a.headers["Cache-Control"]
    except urllib.error.HTTPError as error:
        return error.code, "", error.headers["Cache-Control"]


def test_page_whose_scripts_are_missing_is_rejected(tmp_path: Path) -> None:
    """A page built for `/` on the route /admin: its scripts are those of another service."""
    page = "<script src=/assets/app.js></script><link rel=stylesheet href=style.css>"
    web = "  web: {build: ./web, static: ., route: /, rollout: {analysis: false}}"
    admin = "  admin: {build: ./admin, static: ., route: /admin, rollout: {analysis: false}}"
    with installation(tmp_path) as where:
        files = {"web/index.html": "home", "admin/assets/app.js": "x", "admin/style.css": "x"}
        where.write({**files, "admin/index.html": page})
        (where.folder / "lapwing.yaml").write_text(f"stack: pages\nservices:\n{web}\n{admin}\n")
        done = where.run("up", status=1)
        assert "GET /assets/app.js responded with status 404" in done.stderr
        where.write({"admin/index.html": page.replace("/assets", "/admin/assets")})
        where.run("up")
        assert get(where, "/admin/assets/app.js")[:2] == (200, "x")


def test_only_hashed_files_of_other_releases_are_served(
    tmp_path: Path,
) -> None:
    with installation(tmp_path) as where:
        (where.folder / "lapwing.yaml").write_text(STACK)
        write(where, "one")
        where.run("up")
        write(where, "two")
        where.run("deploy")
        assert get(where, "/")[1] == "two"
        for version in ("one", "two"):
            status, text, cache = get(where, f"/assets/app-{version}00000.js")
            assert (status, text) == (200, version)
            assert "immutable" in cache
        where.run("rollback")
        assert get(where, "/")[1] == "one"
        assert get(where, "/assets/app-two00000.js")[:2] == (200, "two")
        assert get(where, "/assets/plain.js")[1] == "one"
        assert get(where, "/assets/app-three00000.js")[0] == 404
        assert get(where, "/assets/../../release-00000000.json")[0] == 404
        assert get(where, "/assets/%2e%2e/%2e%2e/release-00000000.json")[0] in (400, 404)
