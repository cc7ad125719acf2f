"""From a source without a stack file to an answer: `lapwing init` and `lapwing up` on the golden
folders of `init` that are whole applications."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.installation import Installation, installation
from tests.needs import require

SHAPES = Path(__file__).parents[2] / "golden/stack/init"
NODE = {"express-page", "fastapi-and-vite", "next", "next-standalone", "page-with-build-script"}
pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group("shapes")]


@pytest.mark.parametrize(
    ("shape", "answers"),
    [
        ("flask", {"/healthz": "ok"}),
        ("fastapi-package", {"/": "notes"}),
        ("src-layout", {"/healthz": "ok"}),
        ("setup-py", {"/": "shop"}),
        ("procfile", {"/orders": "no orders"}),
        ("django-sqlite", {"/users": "1 users"}),
        ("plain-html", {"/about/": "About the bakery"}),
        ("page-with-build-script", {"/": "Bakery"}),
        ("uvicorn-in-an-extra", {"/docs": "swagger"}),
        ("fastapi-and-vite", {"/": "Shop", "/api/orders": "no orders"}),
        ("express-page", {"/": "shop"}),
        ("bun", {"/": "open for 1h on Bun 1.3.1"}),
        ("next", {"/": "<h1>Shop</h1>"}),
        ("next-standalone", {"/": "<h1>Shop</h1>", "/robots.txt": "User-agent"}),
    ],
)
def test_source_answers_after_init_and_up(
    shape: str, answers: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    if shape in NODE | {"bun"}:
        require("npm")
    with installation(tmp_path_factory.mktemp(shape)) as where:
        shutil.copytree(SHAPES / shape / "folder", where.folder, dirs_exist_ok=True)
        for package in where.folder.rglob("package.json") if shape in NODE else ():
            lock = ["npm", "install", "--package-lock-only", "--silent"]
            subprocess.run(lock, cwd=package.parent, env=where.environ, check=True)
        where.run("init")
        where.write({".gitignore": "node_modules/\n.next/\n"})
        where.run("up")
        for path, answer in answers.items():
            page = get(where, path)
            assert page.status_code == 200
            assert answer in page.text
            for asset in re.findall(r'(?:src|href)="(/[^"]+)"', page.text):
                assert get(where, asset).status_code == 200, asset
        logs = list(where.home.rglob("events.jsonl"))
        assert logs
        assert not any("so other machines can" in log.read_text() for log in logs)


def get(where: Installation, path: str) -> httpx.Response:
    """Request a path of the only stack."""
    return httpx.get(f"https://localhost:{where.port}{path}", verify=False)
