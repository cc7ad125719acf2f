"""The example Company Inc. under load: versions of its source, its packages, its clients."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from lapwing.load.worker import Traffic
from tests.offline import downloaded

EXAMPLE = Path(__file__).parents[1] / "examples" / "company-inc"
NAME = "company-inc"
IGNORED = shutil.ignore_patterns("node_modules", "dist", "__pycache__", ".pytest_cache", ".venv")
CUSTOMER = '{"name": "Customer {unique}", "email": "customer-{unique}@example.com"}'
TRAFFIC = (
    Traffic(kind="new", path="/api/version", workers=2, interval=0.1),
    Traffic(kind="keep-alive", path="/api/customers?size=5", workers=2, interval=0.1),
    Traffic(kind="body", path="/api/customers", body=CUSTOMER, check="rest", interval=0.5),
    Traffic(kind="page", path="/", interval=0.5, version=r"<title>(\w+)"),
    Traffic(kind="events", path="/api/events", seconds=25),
)


def copy_example(folder: Path, base: str, environments: str) -> None:
    """Copy the example, whose Python services get a base image, with more environments."""
    shutil.copytree(EXAMPLE, folder, dirs_exist_ok=True, ignore=IGNORED)
    stack = folder / "lapwing.yaml"
    text = stack.read_text().replace("build: ./api", f"build: {{path: ./api, base: '{base}'}}")
    stack.write_text(text + environments)


def release(version: str) -> dict[str, str]:
    """Return the files of a version of the API and of the page, which name it in every response."""
    api = (EXAMPLE / "api" / "api.py").read_text()
    page = (EXAMPLE / "web" / "index.html").read_text()
    return {
        "api/api.py": api.replace('"development"', f'"{version}"'),
        "web/index.html": page.replace("<title>", f"<title>{version} "),
    }


def download_packages(folder: Path) -> dict[str, str]:
    """Download what its builds need; returns variables for builds without a network."""
    web = folder / "web"
    shutil.copytree(EXAMPLE / "web", web, ignore=IGNORED)
    npm = {"npm_config_cache": str(folder / "npm"), "npm_config_ignore_scripts": "true"}
    subprocess.run(["npm", "ci", "--silent"], cwd=web, env={**os.environ, **npm}, check=True)
    shutil.rmtree(web)
    lock = f"--requirement={EXAMPLE / 'api' / 'requirements.txt'}"
    return {**downloaded(folder, lock), **npm, "npm_config_offline": "true"}
