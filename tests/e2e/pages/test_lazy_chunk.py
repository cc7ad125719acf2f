"""A browser has a page open while the next release replaces it, and then loads a script of it."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
from playwright.sync_api import Browser, Page, expect

from tests.installation import Installation, free_port, installation
from tests.needs import require
from tests.registries import Server, docker_registry

PAGE = """\
<!doctype html><title>{0}</title><p id=release>{0}</p><p id=text></p>
<button onclick="import('/assets/chunk-{0}00000.js').then(m => m.show(), show)">load</button>
<script>const show = text => {{ document.getElementById('text').textContent = text }}</script>
"""
CHUNK = "export const show = () => {{ document.getElementById('text').textContent = 'chunk {0}' }}"


def write(where: Installation, version: str, **files: str) -> None:
    """Commit a release: a page, and a script that it loads on a click."""
    for old in where.folder.glob("web/assets/*"):
        old.unlink()
    chunk = {f"web/assets/chunk-{version}00000.js": CHUNK.format(version)}
    where.write({"web/index.html": PAGE.format(version), **chunk, **files})


def load_chunk(page: Page, version: str) -> None:
    expect(page.locator("#release")).to_have_text(version)
    page.get_by_role("button").click()
    expect(page.locator("#text")).to_have_text(f"chunk {version}")


def test_open_page_loads_its_chunk_after_a_switch_on_a_machine(
    browser: Browser, tmp_path: Path
) -> None:
    with installation(tmp_path) as where, browser.new_context(ignore_https_errors=True) as context:
        stack = "stack: pages\nservices:\n  web: {build: ./web, static: ., route: /}\n"
        write(where, "one", **{"lapwing.yaml": stack})
        where.run("up")
        page = context.new_page()
        page.goto(f"https://localhost:{where.port}/")
        write(where, "two")
        where.run("deploy")
        load_chunk(page, "one")
        page.reload()
        load_chunk(page, "two")


def test_open_page_loads_its_chunk_after_a_switch_and_a_rollback_of_images(
    browser: Browser, tmp_path: Path
) -> None:
    """Each image is unpacked and served by its Caddy with its configuration, at one address."""
    where, desired = Installation(tmp_path), tmp_path / "desired-state.git"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(desired)], check=True)
    with docker_registry(require("registry"), tmp_path / "registry") as server:
        stack = (
            f"stack: pages\nregistry: {server.host}/pages\n"
            "services:\n  web: {build: ./web, static: ., route: /}\n"
            "environments:\n  production: {target: kubernetes, domain: pages.example,\n"
            f"    delivery: argo, repository: {desired},\n"
            "    cloud: {provider: gcp, region: europe-west1}}\n"
        )
        port, folders = free_port(), []
        for version in ("one", "two"):
            write(where, version, **{"lapwing.yaml": stack})
            done = where.json("ship", "-e", "production", "--scan", "off")
            digest = done["images"]["web"].rpartition("@")[2]
            folders.append(unpack(server, "pages/web", digest, tmp_path / version))
        where.run("rollback", "-e", "production")
        folders.append(unpack(server, "pages/web", "deployed-production", tmp_path / "rolled-back"))
    with browser.new_context() as context:
        page = context.new_page()
        with caddy(folders[0], port):
            page.goto(f"http://127.0.0.1:{port}/")
            expect(page.locator("#release")).to_have_text("one")
        with caddy(folders[1], port):
            load_chunk(page, "one")
            page.reload()
            expect(page.locator("#release")).to_have_text("two")
        with caddy(folders[2], port):
            load_chunk(page, "two")
            page.reload()
            load_chunk(page, "one")


def unpack(server: Server, repository: str, digest: str, folder: Path) -> Path:
    """Unpack the layers of an image, the lowest first."""
    manifest = server.manifest(repository, digest)
    assert manifest is not None
    folder.mkdir()
    for layer in manifest["layers"]:
        blob = server.blob(repository, layer["digest"])
        assert blob is not None
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(blob))) as archive:
            archive.extractall(folder, filter="data")
    return folder


@contextlib.contextmanager
def caddy(folder: Path, port: int) -> Iterator[None]:
    """Run the Caddy of an unpacked image; its paths begin with the folder instead of `/`."""
    config = folder / "etc/caddy/config.json"
    moved = config.read_text().replace('"/srv', f'"{folder}/srv')
    (folder / "moved.json").write_text(moved)
    environ = {**os.environ, "PORT": str(port), "HOME": str(folder / "tmp")}
    program = [str(folder / "usr/bin/caddy"), "run", "--config", str(folder / "moved.json")]
    process = subprocess.Popen(program, env=environ, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 60
        while True:
            assert process.poll() is None
            assert time.monotonic() < until
            with contextlib.suppress(httpx.TransportError):
                httpx.get(f"http://127.0.0.1:{port}/", trust_env=False)
                break
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(60)
